"""Keeps log-probs of the reference: it is frozen, so what it once said of a sequence holds for good."""

import hashlib
import threading
from array import array
from collections import OrderedDict

from torch import Tensor

from prime.lm.packing import TokenRow

_BYTES_PER_TOKEN = 4


class ReferenceCache:
    """Log-probs of whole responses, the least recently used dropped first. Threads may share it.

    Belongs to one reference model and its tokenizer, so the key is the token ids alone.
    """

    def __init__(self, *, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
        self._used = 0
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, row: TokenRow) -> Tensor | None:
        """Log-prob of every response token, fp32 [T]; None when they are not kept."""
        key = _key(row)
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key]

    def put(self, row: TokenRow, logprobs_T: Tensor) -> None:
        """Keep them; what is larger than the whole cache is not kept."""
        key, size = _key(row), _size(logprobs_T)
        with self._lock:
            if size > self._capacity or key in self._kept:
                return
            # A row of a batch is a view, which would keep the whole batch alive.
            self._kept[key] = logprobs_T.clone()
            self._used += size
            while self._used > self._capacity:
                _, dropped_T = self._kept.popitem(last=False)
                self._used -= _size(dropped_T)


def _key(row: TokenRow) -> bytes:
    digest = hashlib.blake2b(len(row.prompt_ids).to_bytes(8, "little"), digest_size=32)
    digest.update(array("q", row.prompt_ids))
    digest.update(array("q", row.response_ids))
    digest.update(array("q", [place for span in row.observed for place in (-1 - span.start, span.length)]))
    return digest.digest()


def _size(logprobs_T: Tensor) -> int:
    return _BYTES_PER_TOKEN * len(logprobs_T)
