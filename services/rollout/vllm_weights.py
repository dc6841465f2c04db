"""Carries pushed weights from the rollout service into vLLM's worker processes.

vLLM finds `register` through the entry point group `vllm.general_plugins` in each of its processes. The worker there
has an `Inbox`, and fetches a push where it is told: from the trainer past gRPC, or from memory in which
`vllm_engine.py` has put chunks together.

Importable without vLLM: its classes are looked up when vLLM itself calls `register`.
"""

import contextlib
import functools
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prime.lm.adapters import is_adapter, peft_name, plain_name, rank_of, save_adapters
from prime.lm.hub_names import HubNames
from prime.lm.inbox import Inbox
from prime.types import PushOffer, TensorSpec

BACKEND = "prime"


def fetch_order(offer: PushOffer, specs: Sequence[TensorSpec]) -> dict[str, Any]:
    """Tells a worker what to begin to fetch: plain values, as all that travels to vLLM's processes."""
    return {"key": offer.key, "offer": asdict(offer), "specs": [asdict(spec) for spec in specs]}


def register() -> None:
    """Make the back end known to vLLM, which calls this in each of its processes."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    with contextlib.suppress(ValueError):  # it is registered already
        WeightTransferEngineFactory.register_engine(BACKEND, _transfer_engine())
    if multiprocessing.parent_process() is not None:
        threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()


@functools.lru_cache(maxsize=1)
def _hub_names(model: str) -> HubNames:
    return HubNames(Path(model))


def _forget_expert_kernels(model: Any, device: torch.device) -> None:
    """Have experts packed anew by the update that follows.

    vLLM packs them for a CPU only when it first builds their kernel, takes every later update for one in place, and
    would compute from experts that were never packed. Where there are CUDA graphs it must stay as it is: they know the
    kernel's addresses.
    """
    if device.type != "cpu":
        return
    for layer in model.modules():
        method: Any = getattr(layer, "quant_method", None)
        if hasattr(method, "moe_kernel"):
            method.moe_kernel = None


def _weights_of(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """Under the names of a module without adapters: vLLM's own adapters leave its loader as it was."""
    return {plain_name(name): tensor for name, tensor in named.items() if not is_adapter(name)}


def _write_adapters(named: dict[str, Tensor], folder: str, *, base: str, by: int) -> None:
    """The adapters of a push as peft has them, with the scale that the trainer has; worker 0 writes."""
    if not folder or by != 0:
        return
    adapters = {peft_name(name): tensor.cpu() for name, tensor in named.items() if is_adapter(name)}
    shutil.rmtree(folder, ignore_errors=True)
    rank = rank_of({name: tensor.shape for name, tensor in named.items()})
    save_adapters(adapters, Path(folder), rank=rank, base=base)


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
        """Begin to fetch (see `fetch_order`) or, without an offer, wait until what was begun is there."""

        key: str
        offer: dict[str, Any] | None = None
        specs: list[dict[str, Any]] | None = None

    @dataclass
    class UpdateInfo(WeightTransferUpdateInfo):  # type: ignore[misc]
        """The names under which the model takes what was fetched, and which of the tensors each is.

        Adapters among them are written into the folder `adapter`, from where vLLM loads them.
        """

        names: list[tuple[str, int]]
        adapter: str = ""

    class PushedWeights(WeightTransferEngine):  # type: ignore[misc]
        """Loads pushes layer by layer, so that every layer is packed for its kernels anew.

        Writing into the parameters would not do: on CPU the linear layers compute from packed copies.
        """

        init_info_cls = InitInfo
        update_info_cls = UpdateInfo

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self._inbox = Inbox(torch.device(self.device))
            self._fetched: list[Tensor] = []

        def init_transfer_engine(self, init_info: InitInfo) -> None:
            """Fetch, beside the sampling; vLLM calls this for every push, before it pauses for it."""
            if init_info.offer is None or init_info.specs is None:
                self._fetched = self._inbox.take(init_info.key)
            else:
                specs = [TensorSpec(**spec) for spec in init_info.specs]
                self._inbox.begin(PushOffer(**init_info.offer), specs)

        def start_weight_update(self) -> None:
            """Put the layers back into the state in which checkpoints are loaded."""
            initialize_layerwise_reload(self.model)
            _forget_expert_kernels(self.model, torch.device(self.device))

        def update_weights(self, update_info: dict[str, Any]) -> None:
            """Load a push; unlike the base method it also works where there is no accelerator to wait for."""
            self.receive_weights(self.parse_update_info(update_info))
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()

        def receive_weights(self, update_info: UpdateInfo) -> None:
            """Load the tensors; vLLM maps checkpoint names to its own."""
            fetched, self._fetched = self._fetched, []
            named = {name: fetched[index] for name, index in update_info.names}
            weights = _weights_of(named)
            self.model.load_weights(_hub_names(self.model_config.model).undo(weights).items())
            _write_adapters(named, update_info.adapter, base=self.model_config.model, by=self.parallel_config.rank)

        def finish_weight_update(self) -> None:
            """Pack what was loaded."""
            finalize_layerwise_reload(self.model, self.model_config)

        def shutdown(self) -> None:
            """Let the trainer go."""
            self._inbox.close()

    return PushedWeights
