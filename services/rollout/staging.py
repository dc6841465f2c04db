"""Collects weight pushes off the hot path: bytes in, whole and proven tensors out.

Two buffers hold all weights: one that the engine may be using, one that the next push is written into. A push is whole,
or a delta (see `prime.deltas`).
"""

import math
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch

from prime.deltas import Frame, apply_delta, as_integers, join_digests, take_frames, tensor_digest
from prime.errors import StaleBase, WeightPushError
from prime.lm.inbox import total_checksum, wrapped
from prime.types import PushManifest, TensorSpec

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_ALIGNMENT = 64


class WeightStore:
    """All pushes of one replica. Example: `store.begin(manifest)`, `add` chunks, `finish`, engine loads, `keep`."""

    def __init__(self) -> None:
        self._live = _buffer(0)
        self._spare = _buffer(0)
        self._version: int | None = None
        self._tensors: tuple[TensorSpec, ...] = ()
        # One thread: what is copied, applied and hashed is done in order, beside the event loop.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="staging")
        self._spare_is_copy: Future[None] | None = None

    def begin(self, manifest: PushManifest) -> "StagedWeights | FetchedWeights":
        """Get ready for a push. Blocks while the spare buffer is still being written for another reason.

        Raises:
            StaleBase: it is a delta, and these are not the weights that it changes; a full push will do.
            WeightPushError: a dtype is not known here, or there is no probe to prove the result with.
        """
        _check(manifest)
        if manifest.offer is not None:
            return FetchedWeights(manifest)
        size = _layout(manifest)[1]
        if manifest.base_version is not None:
            if manifest.base_version != self._version or manifest.tensors != self._tensors:
                held = "no weights" if self._version is None else f"version {self._version}"
                raise StaleBase(
                    f"push of version {manifest.version} changes version {manifest.base_version}; this replica holds "
                    f"{held}, so it needs a full push"
                )
            self._copy_live()
            self._spare_is_copy, copied = None, self._spare_is_copy
            return StagedWeights(manifest, self._spare, self._worker, after=copied)
        if self._spare_is_copy is not None and not self._spare_is_copy.cancel():
            self._spare_is_copy.result()
        self._spare_is_copy = None
        if len(self._spare) != size:
            self._spare = _buffer(size)
        return StagedWeights(manifest, self._spare, self._worker)

    def keep(self, staged: "StagedWeights | FetchedWeights") -> None:
        """The engine has taken what was staged: the other buffer is free, and deltas may build on this version.

        On weights that the engine fetched by itself no delta can build: they are not here.
        """
        manifest = staged.manifest
        if manifest.offer is not None:
            self.forget()
            return
        self._live, self._spare = self._spare, self._live
        self._version, self._tensors = manifest.version, manifest.tensors
        if manifest.keep_base:
            self._copy_live()

    def forget(self) -> None:
        """Nobody knows which weights are in use: the next push must be full."""
        self._version = None

    def _copy_live(self) -> None:
        """Start to make the spare buffer equal to the live one, unless that is done or under way."""
        if self._spare_is_copy is not None:
            return

        if len(self._spare) != len(self._live):
            self._spare = _buffer(len(self._live))
        live, spare = self._live, self._spare

        def copy() -> None:
            spare[:] = live

        self._spare_is_copy = self._worker.submit(copy)


class StagedWeights:
    """One push on its way in."""

    def __init__(
        self,
        manifest: PushManifest,
        buffer: memoryview,
        worker: ThreadPoolExecutor,
        *,
        after: Future[None] | None = None,
    ) -> None:
        """`after`: what the worker has to finish before the buffer holds the base."""
        self.manifest = manifest
        self._worker = worker
        self._sizes = sizes_of(manifest)
        starts, _ = _layout(manifest)
        self._views = [buffer[start : start + size] for start, size in zip(starts, self._sizes, strict=True)]
        self._digests: dict[int, bytes] = {}
        self._work: list[Future[None]] = [after] if after is not None else []
        self._missing = sum(self._sizes)
        self._number, self._filled = 0, 0
        self._item_bytes = [ITEM_BYTES[spec.dtype] for spec in manifest.tensors]
        self._frames = bytearray()
        self._started = time.perf_counter()

    def add(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes.

        Raises:
            WeightPushError: more bytes than announced, or not the form of a delta.
        """
        if self.manifest.base_version is not None:
            self._frames += chunk
            try:
                for frame in take_frames(self._frames, self._item_bytes):
                    self._work.append(self._worker.submit(self._apply, frame))
            except ValueError as error:
                raise WeightPushError(f"push of version {self.manifest.version}: {error}") from error
            return
        self._missing -= len(chunk)
        if self._missing < 0:
            raise WeightPushError(
                f"push of version {self.manifest.version}: {-self._missing} bytes more arrived than were announced"
            )
        # Copied and hashed beside the event loop, which goes on receiving: numpy lets go of the interpreter meanwhile.
        self._work.append(self._worker.submit(self._fill, chunk))

    def _fill(self, chunk: bytes | memoryview) -> None:
        rest = np.frombuffer(chunk, dtype=np.uint8)
        while len(rest):
            view = np.frombuffer(self._views[self._number], dtype=np.uint8)
            part = rest[: len(view) - self._filled]
            view[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            rest = rest[len(part) :]
            if self._filled == len(view):
                self._hash(self._number)
                self._number, self._filled = self._number + 1, 0

    def finish(self, digest: bytes) -> Sequence[tuple[TensorSpec, memoryview]]:
        """The tensors, in the manifest's order, then those that share their memory. Blocks.

        Raises:
            WeightPushError: bytes are missing, or the result is not the one that was sent.
        """
        version = self.manifest.version
        if self.manifest.base_version is None and self._missing:
            total = sum(self._sizes)
            raise WeightPushError(f"push of version {version}: {total - self._missing} of {total} bytes arrived")
        if self._frames:
            raise WeightPushError(f"push of version {version}: it ended in the middle of a tensor's changes")
        try:
            for work in self._work:
                work.result()
        except ValueError as error:
            raise WeightPushError(f"push of version {version}: {error}") from error
        for number in range(len(self._sizes)):
            if number not in self._digests:
                self._hash(number)
        if join_digests([self._digests[number] for number in range(len(self._sizes))]) != digest:
            raise WeightPushError(f"push of version {version}: the weights do not match the announced digest")
        specs = self.manifest.tensors
        return [
            (replace(specs[number], name=name), self._views[number]) for name, number in self.manifest.named.items()
        ]

    def checksum(self) -> int:
        """The sum over all tensors, as `prime.lm.inbox.checksum` makes it. Blocks."""
        return total_checksum(torch.frombuffer(view, dtype=torch.uint8) for view in self._views if len(view))

    @property
    def seconds(self) -> float:
        """Since the push began."""
        return time.perf_counter() - self._started

    def _apply(self, frame: Frame) -> None:
        values = as_integers(self._views[frame.tensor], item_bytes=self._item_bytes[frame.tensor])
        apply_delta(values[frame.start :], frame.delta)

    def _hash(self, number: int) -> None:
        self._digests[number] = tensor_digest(self._views[number])


class FetchedWeights:
    """A push whose tensors the engine fetches by itself: nothing of it comes here."""

    def __init__(self, manifest: PushManifest) -> None:
        self.manifest = manifest
        self._started = time.perf_counter()

    def add(self, chunk: bytes | memoryview) -> None:
        """Refuse.

        Raises:
            WeightPushError: always.
        """
        raise WeightPushError(f"push of version {self.manifest.version}: a chunk came, but its tensors are fetched")

    def finish(self, digest: bytes) -> Sequence[tuple[TensorSpec, memoryview]]:
        """None; the engine proves what it fetched."""
        return []

    def checksum(self) -> int:
        """The sum of what was offered, which the engine has proven."""
        offer = self.manifest.offer
        return wrapped(sum(offer.checksums)) if offer is not None else 0

    @property
    def seconds(self) -> float:
        """Since the push began."""
        return time.perf_counter() - self._started


def sizes_of(manifest: PushManifest) -> list[int]:
    """Bytes of every tensor."""
    return [ITEM_BYTES[spec.dtype] * math.prod(spec.shape) for spec in manifest.tensors]


def _layout(manifest: PushManifest) -> tuple[list[int], int]:
    """Where every tensor begins in a buffer, and the buffer's size; aligned, so that models may compute from it."""
    starts, end = [], 0
    for size in sizes_of(manifest):
        starts.append(end)
        end += -(-size // _ALIGNMENT) * _ALIGNMENT
    return starts, end


def _buffer(size: int) -> memoryview:
    view: memoryview = torch.empty(size, dtype=torch.uint8).numpy().data
    return view


def _check(manifest: PushManifest) -> None:
    unknown = sorted({spec.dtype for spec in manifest.tensors} - set(ITEM_BYTES))
    if unknown:
        raise WeightPushError(f"push of version {manifest.version}: dtypes {unknown} are not among {list(ITEM_BYTES)}")
    if len(manifest.probe_ids) < 2 or len(manifest.probe_logprobs) != len(manifest.probe_ids) - 1:
        raise WeightPushError(
            f"push of version {manifest.version}: a probe is two tokens or more with a log-prob for each after "
            f"the first; got {len(manifest.probe_ids)} and {len(manifest.probe_logprobs)}"
        )
    if manifest.offer is not None and len(manifest.offer.checksums) != len(manifest.tensors):
        raise WeightPushError(
            f"push of version {manifest.version}: {len(manifest.tensors)} tensors are offered with "
            f"{len(manifest.offer.checksums)} checksums"
        )
    odd = [alias.name for alias in manifest.aliases if alias.of not in {spec.name for spec in manifest.tensors}]
    if odd:
        raise WeightPushError(f"push of version {manifest.version}: {odd[0]!r} is to share a tensor that is not sent")
