"""The processes that hold one model together: this one alone, or as many as torchrun started.

Rank 0 decides and the others follow: a method marked `on_every_rank`, called on rank 0, runs on all of them with the
same arguments. So a service's loop, its edge and its files exist once, and only what touches weights is parallel.
"""

import functools
import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from prime.errors import PrimeError, SettingsError

# Followers wait for as long as rank 0 waits for rollouts; when it dies its connections break, and they notice.
_IDLE_LIMIT = timedelta(days=30)

ArgumentsT = ParamSpec("ArgumentsT")
ResultT = TypeVar("ResultT")


class World:
    """This process's rank, how many there are, and what they say to each other beside the model's own traffic."""

    def __init__(self, *, rank: int = 0, size: int = 1, orders: Any = None, saving: Any = None) -> None:
        """`orders` and `saving` are CPU process groups; None in a world of one."""
        self.rank = rank
        self.size = size
        self.saving = saving
        """For checkpoints, which are written beside the next step's traffic."""
        self._orders = orders
        self._is_together = False

    @property
    def is_leader(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def mesh(self, device: torch.device) -> DeviceMesh:
        """All ranks in one row. A process alone becomes a world of one first: mixed precision needs a mesh too."""
        if not dist.is_initialized():
            backend = "cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
        return init_device_mesh(device.type, (self.size,))

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks of a tensor on the CPU."""
        if self.size > 1:
            dist.all_reduce(values, group=self._orders)
        return values

    def send(self, order: Any) -> None:
        """From rank 0 to all others; None: go home."""
        if self.size > 1:
            dist.broadcast_object_list([order], src=0, group=self._orders)

    def receive(self) -> Any:
        """What rank 0 sends."""
        box: list[Any] = [None]
        dist.broadcast_object_list(box, src=0, group=self._orders)
        return box[0]

    def run_together(self, work: Callable[[], ResultT]) -> ResultT:
        """Run on every rank; what one rank refuses, all refuse.

        Raises:
            PrimeError: of the first rank that raised one.
        """
        if self.size == 1 or self._is_together:
            return work()
        self._is_together = True
        error: PrimeError | None = None
        result: Any = None
        try:
            result = work()
        except PrimeError as raised:
            error = raised
        finally:
            self._is_together = False
        errors: list[PrimeError | None] = [None] * self.size
        dist.all_gather_object(errors, error, group=self._orders)
        first = next((each for each in errors if each is not None), None)
        if first is not None:
            raise first
        answer: ResultT = result
        return answer

    def leave(self) -> None:
        """The end, on every rank: nobody goes while another still talks to it."""
        if self.size > 1:
            dist.barrier(group=self._orders)
        if dist.is_initialized():
            dist.destroy_process_group()

    @property
    def needs_order(self) -> bool:
        """Whether a call on rank 0 has to be announced: not inside one that was."""
        return self.size > 1 and not self._is_together


class Shared(Protocol):
    """What lies on every rank: a model with its optimiser."""

    world: World


SharedT = TypeVar("SharedT", bound=Shared)


def on_every_rank(
    method: Callable[Concatenate[SharedT, ArgumentsT], ResultT],
) -> Callable[Concatenate[SharedT, ArgumentsT], ResultT]:
    """Mark a method that uses weights: called on rank 0, it runs on all ranks, and rank 0's result is returned."""

    def call(self: SharedT, /, *args: ArgumentsT.args, **kwargs: ArgumentsT.kwargs) -> ResultT:
        if self.world.needs_order:
            self.world.send((method.__name__, args, kwargs))
        return self.world.run_together(lambda: method(self, *args, **kwargs))

    return functools.update_wrapper(call, method)


def follow(shared: Shared) -> None:
    """What ranks other than 0 do: whatever rank 0 does, until it sends them home."""
    # The launcher signals everybody at once; rank 0 still has a step to finish, with our help.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while (order := shared.world.receive()) is not None:
        name, args, kwargs = order
        method = getattr(type(shared), name).__wrapped__
        try:
            shared.world.run_together(functools.partial(method, shared, *args, **kwargs))
        except PrimeError:
            continue  # rank 0 raises it too, and knows what to do


def join_world(device: str) -> World:
    """The world that torchrun made, or that of this process alone.

    Raises:
        SettingsError: there are fewer GPUs on this machine than processes.
    """
    if not dist.is_torchelastic_launched():
        return World()
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        local_rank = dist.get_node_local_rank()
        if local_rank >= torch.cuda.device_count():
            raise SettingsError(
                f"process {local_rank} on this machine has no GPU: there are {torch.cuda.device_count()}; "
                f"start as many processes as there are GPUs"
            )
        torch.cuda.set_device(local_rank)
    dist.init_process_group("cuda:nccl,cpu:gloo" if on_gpu else "gloo")
    return World(
        rank=dist.get_rank(),
        size=dist.get_world_size(),
        orders=dist.new_group(backend="gloo", timeout=_IDLE_LIMIT),
        saving=dist.new_group(backend="gloo"),
    )
