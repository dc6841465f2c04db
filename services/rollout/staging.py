"""Collects a weight push off the hot path: bytes in, whole and proven tensors out. No torch here."""

import hashlib
import math
import time
from collections.abc import Sequence

from prime.errors import WeightPushError
from prime.types import PushManifest, TensorSpec

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class StagedWeights:
    """One push on its way in. Example: announce 2 tensors of 8 and 4 bytes, add 12 bytes in any chunks, finish."""

    def __init__(self, manifest: PushManifest) -> None:
        """Reserve the memory.

        Raises:
            WeightPushError: a dtype is not known here, or there is no probe to prove the result with.
        """
        unknown = sorted({spec.dtype for spec in manifest.tensors} - set(ITEM_BYTES))
        if unknown:
            raise WeightPushError(
                f"push of version {manifest.version}: dtypes {unknown} are not among {list(ITEM_BYTES)}"
            )
        if len(manifest.probe_ids) < 2 or len(manifest.probe_logprobs) != len(manifest.probe_ids) - 1:
            raise WeightPushError(
                f"push of version {manifest.version}: a probe is two tokens or more with a log-prob for each after "
                f"the first; got {len(manifest.probe_ids)} and {len(manifest.probe_logprobs)}"
            )
        self.manifest = manifest
        self._sizes = [ITEM_BYTES[spec.dtype] * math.prod(spec.shape) for spec in manifest.tensors]
        self._buffer = bytearray(sum(self._sizes))
        self._filled = 0
        self._hash = hashlib.sha256()
        self._started = time.perf_counter()

    def add(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            WeightPushError: more bytes than announced.
        """
        end = self._filled + len(chunk)
        if end > len(self._buffer):
            raise WeightPushError(
                f"push of version {self.manifest.version}: {end} bytes arrived, {len(self._buffer)} were announced"
            )
        self._buffer[self._filled : end] = chunk
        self._filled = end
        self._hash.update(chunk)

    def finish(self) -> Sequence[tuple[TensorSpec, memoryview]]:
        """The tensors, in the manifest's order.

        Raises:
            WeightPushError: bytes are missing, or the digest is another one.
        """
        version = self.manifest.version
        if self._filled != len(self._buffer):
            raise WeightPushError(f"push of version {version}: {self._filled} of {len(self._buffer)} bytes arrived")
        if self._hash.digest() != self.manifest.digest:
            raise WeightPushError(f"push of version {version}: the bytes do not match the announced digest")
        view, start, tensors = memoryview(self._buffer), 0, []
        for spec, size in zip(self.manifest.tensors, self._sizes, strict=True):
            tensors.append((spec, view[start : start + size]))
            start += size
        return tensors

    @property
    def seconds(self) -> float:
        """Since the push began."""
        return time.perf_counter() - self._started
