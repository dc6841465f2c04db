"""One version's weights on their way to the replicas: read once, encoded once, sent to all.

Whole, or as what changed since the version before. Both begin to flow before everything is encoded and hashed.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prime.deltas import Frame, Integers, as_integers, digest_of, encode_delta, pack_frame
from prime.lm.inbox import checksum
from prime.lm.model import tensor_bytes
from prime.types import PushManifest, PushOffer, TensorAlias, TensorSpec

_CHUNK_BYTES = 1024 * 1024
_ENCODERS = 2
# Values per frame: large tensors are encoded, sent and applied in parts, all at the same time.
_FRAME_VALUES = 1 << 23


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A short sequence, and the policy's log-prob of each of its tokens after the first."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    max_gap: float
    """Largest mean difference, in nats, that a replica may show."""
    previous: tuple[float, ...] = ()
    """The version's before, where they tell its weights from these."""


class OutgoingWeights:
    """All weights of one version, in the dtype that replicas hold, and what changed since `base`."""

    def __init__(
        self,
        version: int,
        tensors: Sequence[tuple[str, Tensor]],
        aliases: Sequence[TensorAlias],
        *,
        probe: Probe,
        base: "OutgoingWeights | None",
        keep_base: bool,
    ) -> None:
        """`tensors` are this object's own, on the CPU where there are deltas: none without a `base` that fits."""
        self.version = version
        self._tensors = list(tensors)
        self._aliases = tuple(aliases)
        self.probe = probe
        self._keep_base = keep_base
        self.specs = tuple(
            TensorSpec(name=name, dtype=str(tensor.dtype).removeprefix("torch."), shape=tuple(tensor.shape))
            for name, tensor in tensors
        )
        self._base = base if base is not None and base.specs == self.specs else None
        self.base_version = None if self._base is None else self._base.version
        self._loop = asyncio.get_running_loop()
        # Hashing and encoding run beside the sending, in threads that torch and xxhash free the interpreter for.
        self._workers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="push")
        self._hashing: asyncio.Future[bytes] | None = None
        self._summing: asyncio.Future[tuple[int, ...]] | None = None
        self._encoding: asyncio.Future[None] | None = None
        self._frames: list[bytes] = []
        self._more = asyncio.Event()

    @property
    def num_bytes(self) -> int:
        """Of all tensors."""
        return sum(tensor.numel() * tensor.element_size() for _, tensor in self._tensors)

    @property
    def num_delta_bytes(self) -> int:
        """Of what was encoded as changed, so far."""
        return sum(map(len, self._frames))

    @property
    def tensors(self) -> list[Tensor]:
        """In the order of `specs`."""
        return [tensor for _, tensor in self._tensors]

    def manifest(self, *, as_delta: bool = False, offer: PushOffer | None = None) -> PushManifest:
        """The announcement: of chunks to come, or of tensors to be fetched."""
        return PushManifest(
            version=self.version,
            base_version=self.base_version if as_delta else None,
            tensors=self.specs,
            aliases=self._aliases,
            keep_base=self._keep_base,
            probe_ids=self.probe.ids,
            probe_logprobs=self.probe.logprobs,
            max_gap=self.probe.max_gap,
            previous_logprobs=self.probe.previous,
            offer=offer,
        )

    async def digest(self) -> bytes:
        """Of the weights, however they are sent in chunks."""
        return await asyncio.shield(self._start_hashing())

    async def checksums(self) -> tuple[int, ...]:
        """Of every tensor, computed where it lies; for those who fetch."""
        if self._summing is None:
            self._summing = self._loop.run_in_executor(
                self._workers, lambda: tuple(checksum(tensor) for _, tensor in self._tensors)
            )
        return await asyncio.shield(self._summing)

    async def full(self) -> AsyncIterator[bytes | memoryview]:
        """All tensors' bytes in pieces of up to 1 MiB; neighbours that are small share one."""
        self._start_hashing()
        shared = bytearray()
        for _, tensor in self._tensors:
            view = tensor_bytes(tensor)
            if len(shared) + len(view) <= _CHUNK_BYTES:
                shared += view
                continue
            if shared:
                yield bytes(shared)
                shared.clear()
            for start in range(0, len(view), _CHUNK_BYTES):
                yield view[start : start + _CHUNK_BYTES]
        if shared:
            yield bytes(shared)

    async def changes(self) -> AsyncIterator[bytes | memoryview]:
        """What changed since the base, per tensor, as soon as it is found."""
        self._start_hashing()
        if self._encoding is None:
            self._encoding = self._loop.run_in_executor(self._workers, self._encode)
            self._encoding.add_done_callback(lambda _: self._more.set())
        sent = 0
        while True:
            while sent < len(self._frames):
                frame = memoryview(self._frames[sent])
                sent += 1
                for start in range(0, len(frame), _CHUNK_BYTES):
                    yield frame[start : start + _CHUNK_BYTES]
            if self._encoding.done():
                self._encoding.result()
                if sent == len(self._frames):
                    return
                continue
            self._more.clear()
            await self._more.wait()

    def drop_base(self) -> None:
        """Everybody has what changed; the base's memory is free."""
        self._base = None
        self._frames.clear()

    def _start_hashing(self) -> "asyncio.Future[bytes]":
        """Once, beside the first sending; what is fetched needs no digest."""
        if self._hashing is None:
            self._hashing = self._loop.run_in_executor(self._workers, self._hash)
        return self._hashing

    def _hash(self) -> bytes:
        return digest_of([tensor_bytes(tensor) for _, tensor in self._tensors])

    def _encode(self) -> None:
        if self._base is None:
            raise ValueError("there is no base to encode changes against")
        pairs = zip(self._tensors, self._base._tensors, strict=True)
        parts = [
            (number, start, new_N[start : start + _FRAME_VALUES], old_N[start : start + _FRAME_VALUES])
            for number, ((_, new), (_, old)) in enumerate(pairs)
            for new_N, old_N in [(_integers(new), _integers(old))]
            for start in range(0, len(new_N), _FRAME_VALUES)
        ]
        with ThreadPoolExecutor(max_workers=_ENCODERS, thread_name_prefix="encode") as encoders:
            for frame in encoders.map(lambda part: _frame(*part), parts):
                if frame:
                    self._frames.append(frame)
                    self._loop.call_soon_threadsafe(self._more.set)


def _integers(tensor: Tensor) -> Integers:
    return as_integers(tensor_bytes(tensor), item_bytes=tensor.element_size())


def _frame(tensor: int, start: int, new: Integers, old: Integers) -> bytes:
    """Empty where nothing changed."""
    delta = encode_delta(new, old)
    return pack_frame(Frame(tensor, start, delta)) if len(delta.gaps) else b""


def as_pushed(named: Any, dtype: str, device: torch.device | str = "cpu") -> list[tuple[str, Tensor]]:
    """Copies in the dtype of the replicas: the originals are trained on while these are sent."""
    wanted: torch.dtype = getattr(torch, dtype)
    return [(name, tensor.to(device=device, dtype=wanted, copy=True).contiguous()) for name, tensor in named]
