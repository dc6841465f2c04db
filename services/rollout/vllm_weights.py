"""Carries pushed weights from the rollout service into vLLM's worker processes.

`vllm_engine.py` writes a push into a `SharedWeights`; vLLM finds `register` through the entry point group
`vllm.general_plugins` in each of its processes, and the worker there maps the same memory and loads it.

Importable without vLLM: its classes are looked up when vLLM itself calls `register`.
"""

import contextlib
import mmap
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from prime.types import TensorSpec

BACKEND = "prime"
_ALIGNMENT = 64  # so that every tensor may be read with wide loads


class SharedWeights:
    """One push in anonymous shared memory.

    There is nothing to delete: the memory belongs to a file descriptor, and the kernel frees it when that is closed,
    also when this process dies. Unlike `/dev/shm`, which containers often limit to 64 MiB, only the machine's memory
    bounds it.
    """

    def __init__(self, tensors: Sequence[tuple[TensorSpec, memoryview]]) -> None:
        """Copy the tensors.

        Raises:
            OSError: there is no memory left.
        """
        self._fd = os.memfd_create("prime-weights")
        self._entries: list[tuple[str, str, list[int], int]] = []
        try:
            with open(self._fd, "wb", closefd=False) as file:
                for spec, content in tensors:
                    start = -(-file.tell() // _ALIGNMENT) * _ALIGNMENT
                    file.seek(start)
                    file.write(content)
                    self._entries.append((spec.name, spec.dtype, list(spec.shape), start))
        except BaseException:
            self.close()
            raise

    def update_info(self) -> dict[str, Any]:
        """What a worker on this machine needs to find the tensors: plain values, small."""
        return {"path": f"/proc/{os.getpid()}/fd/{self._fd}", "entries": self._entries}

    def close(self) -> None:
        """Let go of the memory; workers that still map it keep it until they are done."""
        os.close(self._fd)


def read_tensors(path: str, entries: Sequence[Sequence[Any]]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a `SharedWeights`, without copying; each keeps the memory mapped while it lives."""
    with open(path, "rb") as file:
        # A private mapping: whatever a loader does to a tensor in place stays with this worker.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    for name, dtype, shape, start in entries:
        flat = torch.frombuffer(mapped, dtype=getattr(torch, dtype), count=prod(shape), offset=start)
        yield name, flat.view(tuple(shape))


def register() -> None:
    """Make the back end known to vLLM, which calls this in each of its processes."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    with contextlib.suppress(ValueError):  # it is registered already
        WeightTransferEngineFactory.register_engine(BACKEND, _transfer_engine())
    if multiprocessing.parent_process() is not None:
        threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()


def _end_with_parent() -> None:
    """vLLM's core process would outlive a service that was killed, and keep its memory."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _transfer_engine() -> type:
    from vllm.distributed.weight_transfer.base import (
        WeightTransferEngine,
        WeightTransferInitInfo,
        WeightTransferUpdateInfo,
    )
    from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

    @dataclass
    class InitInfo(WeightTransferInitInfo):  # type: ignore[misc]
        """Nothing is set up in advance."""

    @dataclass
    class UpdateInfo(WeightTransferUpdateInfo):  # type: ignore[misc]
        """See `SharedWeights.update_info`."""

        path: str
        entries: list[Sequence[Any]]

    class PushedWeights(WeightTransferEngine):  # type: ignore[misc]
        """Loads pushes layer by layer, so that every layer is packed for its kernels anew.

        Writing into the parameters would not do: on CPU the linear layers compute from packed copies.
        """

        init_info_cls = InitInfo
        update_info_cls = UpdateInfo

        def init_transfer_engine(self, init_info: InitInfo) -> None:
            """Nothing to connect to."""

        def start_weight_update(self) -> None:
            """Put the layers back into the state in which checkpoints are loaded."""
            initialize_layerwise_reload(self.model)

        def update_weights(self, update_info: dict[str, Any]) -> None:
            """Load a push; unlike the base method it also works where there is no accelerator to wait for."""
            self.receive_weights(self.parse_update_info(update_info))
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()

        def receive_weights(self, update_info: UpdateInfo) -> None:
            """Load the tensors; vLLM maps checkpoint names to its own."""
            self.model.load_weights(read_tensors(update_info.path, update_info.entries))

        def finish_weight_update(self) -> None:
            """Pack what was loaded."""
            finalize_layerwise_reload(self.model, self.model_config)

        def shutdown(self) -> None:
            """Nothing is held between pushes."""

    return PushedWeights
