"""The receiving end of pushes past gRPC, in the process that holds the model; the sending end is the trainer's."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future

import torch
from torch import Tensor

from prime.errors import WeightPushError
from prime.lm.link import Link
from prime.lm.shared_memory import read_shared
from prime.types import PushOffer, TensorSpec

# What is left free of a GPU's memory when weights wait there.
_MARGIN_BYTES = 1 << 30


def transports_of(device_type: str) -> tuple[str, ...]:
    """By which ways past gRPC a model on such a device (`cpu` or `cuda`) takes weights."""
    return ("ipc", "nccl" if device_type == "cuda" else "gloo")


def checksum(tensor: Tensor) -> int:
    """The sum of its memory's 8-byte words, and of the bytes that are left over, as signed integers modulo 2^64.

    One pass over memory, on whichever device it lies. It tells missing, doubled and torn tensors; against malice only
    the token helps.
    """
    raw = tensor.detach().contiguous().view(-1).view(torch.uint8)
    whole = len(raw) - len(raw) % 8
    total = int(raw[:whole].view(torch.int64).sum()) + int(raw[whole:].sum(dtype=torch.int64))
    return wrapped(total)


def total_checksum(tensors: Iterable[Tensor]) -> int:
    """The sum over tensors: it does not depend on their order, nor on whether neighbours became one tensor."""
    return wrapped(sum(map(checksum, tensors)))


def wrapped(total: int) -> int:
    """As a signed integer of 64 bits, modulo 2^64."""
    return (total + 2**63) % 2**64 - 2**63


class Inbox:
    """One push at a time: `begin` fetches it beside the sampling, `take` hands it over, whole and proven."""

    def __init__(self, device: torch.device) -> None:
        """`device`: where the model is."""
        self._device = device
        self._link: Link | None = None
        self._fetched: dict[str, Future[list[Tensor]]] = {}
        """At most one, by the key of its offer."""

    def begin(self, offer: PushOffer, specs: Sequence[TensorSpec]) -> None:
        """Start to fetch. What was not taken is given up. An offer without checksums is of this replica's own.

        Raises:
            WeightPushError: the offer cannot be taken here.
        """
        if not all(fetched.done() for fetched in self._fetched.values()):
            self._drop_link()
        self._fetched.clear()
        if offer.transport not in transports_of(self._device.type):
            raise WeightPushError(f"weights on {self._device.type} cannot be pushed by {offer.transport!r}")
        if offer.transport == "ipc":
            tensors = list(read_shared(offer.place, specs))
            self._fetched[offer.key] = _in_thread(lambda: _proven(tensors, offer))
            return
        if self._link is None or self._link.place != offer.place:
            self._drop_link()
            self._link = Link.join(offer.transport, offer.place, deadline_s=offer.deadline_s)
        link = self._link
        self._fetched[offer.key] = _in_thread(lambda: _proven(list(self._receive(link, specs)), offer))

    def take(self, key: str) -> list[Tensor]:
        """The tensors in the order in which they were announced. Blocks until all are there.

        Raises:
            WeightPushError: another push came between, the trainer went away, or they are not the ones that were sent.
        """
        fetched = self._fetched.pop(key, None)
        if fetched is None:
            raise WeightPushError("this push was given up, because another one began after it")
        try:
            return fetched.result()
        except BaseException:
            self._drop_link()
            raise

    def close(self) -> None:
        """Let the trainer go."""
        self._drop_link()

    def _drop_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _receive(self, link: Link, specs: Sequence[TensorSpec]) -> Iterator[Tensor]:
        """On a GPU that is full they wait in the machine's memory."""
        num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in map(_meta, specs))
        wait_here = self._device.type != "cuda" or torch.cuda.mem_get_info(self._device)[0] > num_bytes + _MARGIN_BYTES
        for tensor in link.receive(specs, self._device):
            yield tensor if wait_here else torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor)


def _proven(tensors: list[Tensor], offer: PushOffer) -> list[Tensor]:
    if not offer.checksums:
        return tensors
    wrong = sum(checksum(tensor) != sent for tensor, sent in zip(tensors, offer.checksums, strict=True))
    if wrong:
        raise WeightPushError(f"{wrong} of {len(tensors)} tensors are not the ones that were sent: checksums differ")
    return tensors


def _meta(spec: TensorSpec) -> Tensor:
    return torch.empty(spec.shape, dtype=getattr(torch, spec.dtype), device="meta")


def _in_thread(work: Callable[[], list[Tensor]]) -> "Future[list[Tensor]]":
    """A thread that nobody waits for at the end: one that hangs on a trainer that is gone must not hold the process."""
    future: Future[list[Tensor]] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001  whatever it is, it is raised where the tensors are taken
            future.set_exception(error)

    threading.Thread(target=run, name="inbox", daemon=True).start()
    return future
