"""Trainer and replica hand each other tensors past gRPC: NCCL between GPUs, gloo between CPUs.

A process group of two. NCCL moves weights from one GPU's memory into the other's over NVLink, InfiniBand or sockets,
whichever it finds; gloo takes sockets, and is what the same code runs on where there is no GPU.
"""

import contextlib
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from prime.errors import WeightPushError
from prime.types import TensorSpec

# Its types leave out most of what follows.
c10d: Any = torch.distributed

_TRAINER, _REPLICA = 0, 1
_LOOK_AGAIN_S = 0.005
_JOINED = "joined"


class Link:
    """One end: the trainer's listens and sends, the replica's joins and receives. Blocking, and used by one thread."""

    def __init__(
        self, transport: str, *, rank: int, store: Any, place: str, own_address: str, deadline_s: float
    ) -> None:
        """Use `listen` or `join`."""
        self.place = place
        """What the other end joins: `host:port/name`."""
        self._transport = transport
        self._rank = rank
        self._store = store
        self._own_address = own_address
        self._deadline_s = deadline_s
        self._group: Any = None
        self._is_closed = False

    @classmethod
    def listen(cls, transport: str, *, towards: str, deadline_s: float) -> "Link":
        """The trainer's end, reachable at the address from which the host `towards` is reached, and at no other.

        `transport`: `nccl` or `gloo`; `deadline_s` bounds the wait for the other end, and for every tensor.
        """
        own_address = _address_towards(towards)
        listener = socket.create_server((own_address, 0), family=_family(own_address))
        port, name = listener.getsockname()[1], uuid.uuid4().hex
        # The store takes the socket over. By itself it would listen on every interface of the machine.
        store = c10d.TCPStore(
            own_address,
            port,
            is_master=True,
            timeout=timedelta(seconds=deadline_s),
            wait_for_workers=False,
            master_listen_fd=listener.detach(),
        )
        return cls(
            transport,
            rank=_TRAINER,
            store=c10d.PrefixStore(name, store),
            place=f"{own_address}:{port}/{name}",
            own_address=own_address,
            deadline_s=deadline_s,
        )

    @classmethod
    def join(cls, transport: str, place: str, *, deadline_s: float) -> "Link":
        """The replica's end.

        Raises:
            WeightPushError: nobody listens there, or another process has joined before: the trainer has to listen anew.
        """
        address, _, name = place.partition("/")
        host, _, port = address.rpartition(":")
        try:
            store = c10d.PrefixStore(
                name,
                c10d.TCPStore(
                    host,
                    int(port),
                    is_master=False,
                    timeout=timedelta(seconds=deadline_s),
                    wait_for_workers=False,
                ),
            )
            joined = store.add(_JOINED, 1)
        except (RuntimeError, ValueError) as error:
            raise WeightPushError(f"the trainer cannot be met at {address}: {error}") from error
        if joined > 1:
            raise WeightPushError(f"{address} was joined by another process before; a link is between two")
        return cls(
            transport,
            rank=_REPLICA,
            store=store,
            place=place,
            own_address=_address_towards(host),
            deadline_s=deadline_s,
        )

    def send(self, tensors: Sequence[Tensor]) -> None:
        """Bring all of them over, in order; returns when they may be overwritten.

        Raises:
            WeightPushError: the other end does not come, or went away.
        """
        try:
            group = self._connected()
            with _beside(_stream(tensors[0].device)):
                for tensor in tensors:
                    group.send([_raw(tensor)], _REPLICA, 0).wait()
        except RuntimeError as error:
            raise WeightPushError(f"sending over {self._transport} failed: {error}") from error

    def receive(self, specs: Sequence[TensorSpec], device: torch.device) -> Iterator[Tensor]:
        """Tensors of these shapes as they come.

        Raises:
            WeightPushError: the other end went away.
        """
        try:
            group = self._connected()
            stream = _stream(device)
            for spec in specs:
                # Allocated outside: its memory goes back to the stream that computes with it.
                tensor = torch.empty(spec.shape, dtype=getattr(torch, spec.dtype), device=device)
                with _beside(stream):
                    group.recv([_raw(tensor)], _TRAINER, 0).wait()
                yield tensor
        except RuntimeError as error:
            raise WeightPushError(f"receiving over {self._transport} failed: {error}") from error

    def close(self) -> None:
        """Let the other end go. What waits in `send` or `receive` ends with an error, with gloo after its deadline."""
        self._is_closed = True
        group, self._group, self._store = self._group, None, None
        if group is not None and self._transport == "nccl":
            group.abort()

    def _connected(self) -> Any:
        if self._group is None:
            store = self._store
            if self._rank == _TRAINER:
                self._wait_for_replica(store)
            self._group = _process_group(
                self._transport, store, self._rank, own_address=self._own_address, deadline_s=self._deadline_s
            )
        return self._group

    def _wait_for_replica(self, store: Any) -> None:
        ends = time.monotonic() + self._deadline_s
        # Looked at again and again, for a wait inside the store cannot be called off.
        while not self._is_closed and not store.check([_JOINED]):
            if time.monotonic() > ends:
                raise WeightPushError(f"the replica did not join within {self._deadline_s:g} s")
            time.sleep(_LOOK_AGAIN_S)
        if self._is_closed:
            raise WeightPushError("the push was called off before the replica joined")


def _process_group(transport: str, store: Any, rank: int, *, own_address: str, deadline_s: float) -> Any:
    timeout = timedelta(seconds=deadline_s)
    if transport == "nccl":
        options = c10d.ProcessGroupNCCL.Options()
        options._timeout = timeout
        return c10d.ProcessGroupNCCL(store, rank, 2, options)
    options = c10d.ProcessGroupGloo._Options()
    options._timeout = timeout
    options._devices = [c10d.ProcessGroupGloo.create_device(hostname=own_address)]
    return c10d.ProcessGroupGloo(store, rank, 2, options)


@contextlib.contextmanager
def _beside(stream: Any) -> Iterator[None]:
    """Run on a stream of its own on a GPU, so that nothing waits for the model's work; all is done when it ends."""
    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.current_stream(stream.device))
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()


def _stream(device: torch.device) -> Any:
    if device.type != "cuda":
        return None
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _raw(tensor: Tensor) -> Tensor:
    """The same memory as bytes: a transport need not know every dtype."""
    return tensor.view(-1).view(torch.uint8)


def _address_towards(host: str) -> str:
    """This machine's own address on the way to a host; no packet is sent."""
    family, _, _, _, peer = socket.getaddrinfo(host.strip("[]"), 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(peer)
        return str(probe.getsockname()[0])


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
