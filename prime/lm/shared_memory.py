"""Tensors that another process on this machine reads where they lie: CUDA IPC, or anonymous shared memory on a CPU.

A place is a short text, so it travels in any message; what reads it needs no pickle.
"""

import json
import mmap
import os
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.multiprocessing.reductions import rebuild_cuda_tensor, reduce_tensor

from prime.errors import WeightPushError
from prime.lm.model import tensor_bytes
from prime.types import TensorSpec

_ALIGNMENT = 64  # so that every tensor may be read with wide loads


class Shared(Protocol):
    """Tensors that others may read until they are closed."""

    def place(self) -> str:
        """Where: what `read_shared` takes. Asked for once per reader."""

    def close(self) -> None:
        """Let go of the memory; who still reads it keeps it until he is done."""


def share(tensors: Sequence[Tensor]) -> Shared:
    """Offer tensors of one device: those on a GPU as they lie, those on a CPU as a copy.

    Raises:
        OSError: there is no memory left.
    """
    if tensors[0].device.type == "cuda":
        return SharedOnGpu(tensors)
    return SharedMemory([tensor_bytes(tensor) for tensor in tensors])


class SharedMemory:
    """A copy in anonymous shared memory.

    There is nothing to delete: the memory belongs to a file descriptor, and the kernel frees it when that is closed,
    also when this process dies. Unlike `/dev/shm`, which containers often limit to 64 MiB, only the machine's memory
    bounds it.
    """

    def __init__(self, contents: Sequence[memoryview]) -> None:
        """Copy the bytes of every tensor.

        Raises:
            OSError: there is no memory left.
        """
        self._fd = os.memfd_create("prime-weights")
        self._starts: list[int] = []
        try:
            with open(self._fd, "wb", closefd=False) as file:
                for content in contents:
                    start = -(-file.tell() // _ALIGNMENT) * _ALIGNMENT
                    file.seek(start)
                    file.write(content)
                    self._starts.append(start)
        except BaseException:
            self.close()
            raise

    def place(self) -> str:
        """For processes on this machine, of this user, that see this one by the same process id."""
        return json.dumps({"path": f"/proc/{os.getpid()}/fd/{self._fd}", "starts": self._starts})

    def close(self) -> None:
        """Let go of the memory; who still maps it keeps it until he is done."""
        os.close(self._fd)


class SharedOnGpu:
    """Tensors on a GPU, whose memory others map. They must not change, nor be freed, while others read them."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors

    def place(self) -> str:
        """For one reader, that sees the same GPU: torch counts the readers."""
        device = self._tensors[0].device
        torch.cuda.synchronize(device)  # what is still being written is not there for others
        handles = [_to_json(tensor.detach()) for tensor in self._tensors]
        return json.dumps({"gpu": _gpu_name(device), "handles": handles})

    def close(self) -> None:
        """Nothing but the tensors is held."""
        self._tensors = ()


def read_shared(place: str, specs: Sequence[TensorSpec]) -> Iterator[Tensor]:
    """The tensors that lie there, without copying; each keeps its memory mapped while it lives.

    On a CPU, whatever a reader does to one in place stays with this process.

    Raises:
        WeightPushError: nothing lies there that this process can reach.
    """
    found = json.loads(place)
    try:
        if "path" in found:
            yield from _read_mapped(found["path"], found["starts"], specs)
        else:
            yield from _read_on_gpu(found["gpu"], found["handles"], specs)
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightPushError(
            f"the trainer's memory cannot be read here: {error}. 'ipc' is for processes of one user on one machine "
            "that see each other's process ids and GPUs; elsewhere take 'nccl', or push over gRPC"
        ) from error


def _read_mapped(path: str, starts: Sequence[int], specs: Sequence[TensorSpec]) -> Iterator[Tensor]:
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    for spec, start in zip(specs, starts, strict=True):
        flat = torch.frombuffer(mapped, dtype=getattr(torch, spec.dtype), count=prod(spec.shape), offset=start)
        yield flat.view(spec.shape)


def _read_on_gpu(gpu: str, handles: Sequence[Sequence[Any]], specs: Sequence[TensorSpec]) -> Iterator[Tensor]:
    here = [index for index in range(torch.cuda.device_count()) if _gpu_name(torch.device("cuda", index)) == gpu]
    if not here:
        raise ValueError(f"GPU {gpu} is not visible to this process")
    for spec, handle in zip(specs, handles, strict=True):
        stride = torch.empty(spec.shape, device="meta").stride()
        yield _from_json(handle, spec=spec, stride=stride, device=here[0])


# `reduce_tensor` gives what `rebuild_cuda_tensor` takes: class, size, stride, offset, storage class, dtype and device,
# which the reader knows by himself, then the handle and what belongs to it: plain values and bytes, which are sent.
_OFFSET, _HANDLE = 3, 7


def _to_json(tensor: Tensor) -> list[Any]:
    _, arguments = reduce_tensor(tensor)  # type: ignore[no-untyped-call]
    sent = [arguments[_OFFSET], *arguments[_HANDLE:]]
    return [{"hex": value.hex()} if isinstance(value, bytes) else value for value in sent]


def _from_json(values: Sequence[Any], *, spec: TensorSpec, stride: Sequence[int], device: int) -> Tensor:
    offset, *rest = [bytes.fromhex(value["hex"]) if isinstance(value, dict) else value for value in values]
    dtype = getattr(torch, spec.dtype)
    tensor: Tensor = rebuild_cuda_tensor(  # type: ignore[no-untyped-call]
        Tensor, torch.Size(spec.shape), stride, offset, torch.storage.TypedStorage, dtype, device, *rest
    )
    return tensor


def _gpu_name(device: torch.device) -> str:
    return str(torch.cuda.get_device_properties(device).uuid)
