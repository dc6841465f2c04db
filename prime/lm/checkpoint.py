"""Model folders that `transformers` alone can load, and the training state beside them. Nothing is ever half-written.

A folder is written under a temporary name and renamed when it is complete; `latest` is a file moved into place. That
holds against crashes of the process; a power cut may still lose what the kernel had not written.

The training state is PyTorch's distributed checkpoint: every rank writes its part, and another number of ranks can
read it. `Snapshot` takes a copy and writes it while training goes on.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed._state_dict_utils import _copy_state_dict, _create_cpu_state_dict
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException

from prime.data.prm_config import write_prm_config
from prime.errors import CheckpointError
from prime.lm.adapters import save_adapters
from prime.lm.attention import PACKED
from prime.lm.compute import load_whole
from prime.lm.model import CausalLM, load_module
from prime.lm.training import Optimiser
from prime.scoring import PrmConfig

_FACTS_FILE = "facts.json"
ADAPTER_FOLDER = "adapter"
"""In the folder of a model that was trained by adapters: they alone, as peft has them."""


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write into a temporary folder beside `folder`, then put it in place, replacing an older one."""
    temporary = _temporary(folder)
    try:
        fill(temporary)
        _put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.writing-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    return temporary


def _put_in_place(temporary: Path, folder: Path) -> None:
    replaced = folder.with_name(f".{folder.name}.replaced-{os.getpid()}")
    try:
        if folder.exists():
            folder.rename(replaced)
        temporary.rename(folder)
    finally:
        shutil.rmtree(replaced, ignore_errors=True)


def save_model(lm: CausalLM, tokenizer: Any, folder: Path, *, prm_config: PrmConfig | None = None) -> None:
    """Write weights, configuration and tokenizer as one Hugging Face folder; of a PRM, also how to read it.

    In a world of several ranks all must call; rank 0 writes.
    """
    weights, adapters = whole_weights(lm, copy=False), _on_leader(lm, lm.named_adapters(), copy=False)
    if lm.world.is_leader:
        write_folder(folder, lambda target: _fill_model(lm, weights, adapters, tokenizer, target, prm_config))


def whole_weights(lm: CausalLM, *, copy: bool) -> dict[str, Tensor]:
    """All weights under their checkpoint names on the CPU of rank 0, nothing on the others; all must call."""
    return _on_leader(lm, lm.named_tensors(), copy=copy)


def _on_leader(lm: CausalLM, named: Iterable[tuple[str, Tensor]], *, copy: bool) -> dict[str, Tensor]:
    weights = {}
    for name, tensor in named:
        if lm.world.is_leader:
            on_cpu = tensor.cpu()
            weights[name] = on_cpu.clone() if copy and on_cpu.data_ptr() == tensor.data_ptr() else on_cpu
    return weights


def _fill_model(
    lm: CausalLM,
    weights: dict[str, Tensor],
    adapters: dict[str, Tensor],
    tokenizer: Any,
    target: Path,
    prm_config: PrmConfig | None,
) -> None:
    if getattr(lm.module.config, "tie_word_embeddings", False):
        weights = {name: tensor for name, tensor in weights.items() if name != "lm_head.weight"}
    lm.module.save_pretrained(target, state_dict=weights)
    tokenizer.save_pretrained(target)
    if adapters:
        base = str(lm.module.config.name_or_path)
        save_adapters(adapters, target / ADAPTER_FOLDER, rank=lm.compute.lora_rank, base=base)
    if prm_config is not None:
        write_prm_config(prm_config, target)


class Snapshot:
    """A checkpoint on its way to the disk: copied when made, by all ranks at once; written while training goes on.

    Example: `snapshot = Snapshot(lm, optimiser, tokenizer, model_folder=..., state_folder=..., facts={"version": 3})`,
    a training step, then `snapshot.wait()`.
    """

    def __init__(
        self,
        lm: CausalLM,
        optimiser: Optimiser,
        tokenizer: Any,
        *,
        model_folder: Path,
        state_folder: Path,
        facts: dict[str, Any],
        prm_config: PrmConfig | None = None,
    ) -> None:
        self._world = lm.world
        self._lm, self._tokenizer, self._prm_config = lm, tokenizer, prm_config
        self.folder = model_folder
        self._state_folder, self._facts = state_folder, facts
        self._weights = whole_weights(lm, copy=True)
        self._adapters = _on_leader(lm, lm.named_adapters(), copy=True)
        self._temporary = state_folder.with_name(f".{state_folder.name}.writing")
        if self._world.is_leader:
            shutil.rmtree(self._temporary, ignore_errors=True)
            state_folder.parent.mkdir(parents=True, exist_ok=True)
        self._world.sum(torch.zeros(1))  # nobody writes before the old remains are gone
        writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing = writer.submit(self._write, _on_cpu(optimiser.state()))
        writer.shutdown(wait=False)

    def wait(self) -> None:
        """Until everything is written and in place; all ranks must call.

        Raises:
            CheckpointError: it could not be.
        """
        try:
            self._writing.result()
        except (OSError, RuntimeError, CheckpointException) as error:
            raise CheckpointError(f"checkpoint {self._state_folder.parent} could not be written: {error}") from error

    def _write(self, state: dict[str, Any]) -> None:
        # The last of these calls ends only when every rank has written its part.
        state_dict_saver.save(
            state, checkpoint_id=self._temporary, process_group=self._world.saving, no_dist=self._world.size == 1
        )
        if self._world.is_leader:
            (self._temporary / _FACTS_FILE).write_text(json.dumps(self._facts))
            _put_in_place(self._temporary, self._state_folder)
            write_folder(
                self.folder,
                lambda target: _fill_model(
                    self._lm, self._weights, self._adapters, self._tokenizer, target, self._prm_config
                ),
            )
        self._weights.clear()
        self._adapters.clear()


def _on_cpu(state: Any) -> Any:
    """A copy of a state dict, sharded tensors staying sharded."""
    return _copy_state_dict(state, _create_cpu_state_dict(state))


def load_training_state(lm: CausalLM, optimiser: Optimiser, folder: Path) -> dict[str, Any]:
    """The training state of a `Snapshot` of any number of ranks; returns its facts. All ranks must call.

    Raises:
        CheckpointError: the folder is not there or not whole.
    """
    try:
        facts: dict[str, Any] = json.loads((folder / _FACTS_FILE).read_text())
        state = optimiser.state()
        state_dict_loader.load(state, checkpoint_id=folder, no_dist=lm.world.size == 1)
        optimiser.load_state(state)
    except (OSError, ValueError, KeyError, RuntimeError, CheckpointException) as error:
        raise CheckpointError(f"checkpoint {folder} cannot be read: {error}") from error
    return facts


def copy_weights(source: CausalLM, target: CausalLM) -> None:
    """Give `target` the weights of `source`, a model of the same architecture in the same world without adapters."""
    with torch.no_grad():
        for mine, theirs in zip(target.module.parameters(), source.module.parameters(), strict=True):
            mine.copy_(theirs)


def load_weights(lm: CausalLM, folder: Path) -> None:
    """Put a folder's weights into a model that is already there (same architecture). All ranks must call.

    Raises:
        CheckpointError: the folder holds no such model.
    """
    if lm.compute.lora_rank:
        # The weights themselves never change; the adapters' values lie in the training state.
        lm.reset_adapters()
        return
    weights: dict[str, Tensor] = {}
    if lm.world.is_leader:
        weights = load_module(folder, dtype=torch.float32, attention=PACKED).state_dict()
    try:
        load_whole(lm.module, weights, lm.world)
    except RuntimeError as error:
        raise CheckpointError(f"{folder} holds another architecture: {error}") from error
