"""Low-rank adapters (LoRA, arXiv 2106.09685): beside a model's layers, added into its weights, and by themselves.

Adapters are kept in peft's form, so that whoever serves adapters beside a base model can serve these.
"""

import importlib.util
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from prime.errors import CheckpointError, SettingsError
from prime.lm.compute import whole

_ADAPTER = "prime"
_ADAPTER_CONFIG, _ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PEFT_PREFIX = "base_model.model."


def can_adapt() -> bool:
    """Whether the library is there."""
    return importlib.util.find_spec("peft") is not None


def is_adapter_folder(folder: Path) -> bool:
    """Whether it holds adapters as peft saves them, and no model of its own."""
    return (folder / _ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path) -> Path:
    """The model that adapters belong to: as their folder names it, else the folder itself where it is a model.

    Raises:
        CheckpointError: what is named is not a folder here. Nothing is downloaded.
    """
    if not is_adapter_folder(folder):
        return folder
    named = _adapter_config(folder).get("base_model_name_or_path")
    candidates = [Path(str(named)), folder / str(named)] if named else []
    found = next((each for each in candidates if (each / "config.json").is_file()), None)
    if found is None:
        raise CheckpointError(
            f"{folder} holds adapters of the model {named!r}, which is not a model folder here: write its path as "
            f"base_model_name_or_path into {_ADAPTER_CONFIG}"
        )
    return found


def task_of(folder: Path) -> str:
    """What adapters were trained for, in peft's words: `CAUSAL_LM`, `TOKEN_CLS`, `SEQ_CLS`; empty if it is not said."""
    return str(_adapter_config(folder).get("task_type") or "")


def adapter_shapes(folder: Path) -> dict[str, list[int]]:
    """Of every tensor in a folder of adapters.

    Raises:
        CheckpointError: they are not there as safetensors.
    """
    path = folder / _ADAPTER_WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"{folder} holds no {_ADAPTER_WEIGHTS}")
    with safe_open(path, framework="pt") as tensors:
        return {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118  it is no mapping


def merge_adapters(module: Any, folder: Path) -> Any:
    """The module with the folder's adapters added into its weights.

    Raises:
        SettingsError: peft is not installed.
        CheckpointError: the adapters are not those of this module.
    """
    if not can_adapt():
        raise SettingsError(f"{folder} holds LoRA adapters, which need peft: pip install 'prime-services[lora]'")
    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            # Without them the model would be its base, and say nothing.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            return PeftModel.from_pretrained(module, folder, is_trainable=False).merge_and_unload()
    except (OSError, ValueError, KeyError, RuntimeError, UserWarning) as error:
        raise CheckpointError(f"the adapters in {folder} do not fit their model: {error}") from error


def _adapter_config(folder: Path) -> dict[str, Any]:
    path = folder / _ADAPTER_CONFIG
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        config.get("task_type")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is no configuration of adapters: {error}") from None
    return config


def add_adapters(module: Any, rank: int) -> None:
    """Freeze the weights and put low-rank adapters (LoRA, arXiv 2106.09685) beside every linear layer but the head.

    Raises:
        SettingsError: peft is not installed.
    """
    if not can_adapt():
        raise SettingsError("lora_rank needs the library peft, which is not installed here: pip install peft")
    module.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _inject(module, rank)


def _inject(module: Any, rank: int) -> None:
    from peft import inject_adapter_in_model

    inject_adapter_in_model(_config(rank, "all-linear"), module, adapter_name=_ADAPTER)


def _config(rank: int, targets: str | list[str]) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, task_type="CAUSAL_LM")


def adapters_of(module: Any) -> dict[str, Tensor]:
    """The adapters' weights by name; empty without adapters."""
    return {name: tensor for name, tensor in module.state_dict().items() if is_adapter(name)}


def merged_tensors(module: Any) -> Iterator[tuple[str, Tensor]]:
    """Every weight under its checkpoint name, whole, with adapters added in; on all ranks at once.

    A tied head is listed under both of its names.
    """
    state = _state_with_head(module)
    plain = {plain_name(name): name for name in state if not is_adapter(name)}
    for name, stored in sorted(plain.items()):
        tensor = whole(state[stored])
        if stored != name and name.endswith(".weight"):
            layer = module.get_submodule(stored.partition(".base_layer.")[0])
            up, down = whole(layer.lora_B[_ADAPTER].weight), whole(layer.lora_A[_ADAPTER].weight)
            tensor = tensor + layer.scaling[_ADAPTER] * (up @ down)
        yield name, tensor


def _state_with_head(module: Any) -> dict[str, Tensor]:
    state: dict[str, Tensor] = dict(module.state_dict())
    return {"lm_head.weight": module.get_output_embeddings().weight, **state}


def stored_tensors(module: Any) -> Iterator[tuple[str, Tensor]]:
    """Every tensor as it is stored, whole: weights and adapters apart; on all ranks at once.

    Names are those of a module with adapters, so that another one can take them. A tied head is listed under both of
    its names.
    """
    for name, tensor in sorted(_state_with_head(module).items()):
        yield name, whole(tensor)


def rank_of(named: Mapping[str, Sequence[int]]) -> int:
    """The rank of the adapters among tensors with these names and shapes; 0 where there are none."""
    return next((int(shape[0]) for name, shape in named.items() if ".lora_A." in name), 0)


def is_adapter(name: str) -> bool:
    """Whether a tensor of `stored_tensors` is an adapter's."""
    return ".lora_" in name


def plain_name(name: str) -> str:
    """Of a weight beside adapters, its name in a module without them."""
    return name.replace(".base_layer.", ".")


def peft_name(name: str) -> str:
    """Of an adapter, its name in peft's files."""
    return f"{_PEFT_PREFIX}{name.replace(f'.{_ADAPTER}.', '.')}"


def whole_adapters(module: Any) -> Iterator[tuple[str, Tensor]]:
    """The adapters' weights, whole, under the names that peft has for them; on all ranks at once."""
    for name, tensor in sorted(adapters_of(module).items()):
        yield peft_name(name), whole(tensor)


def save_adapters(tensors: dict[str, Tensor], folder: Path, *, rank: int, base: str) -> None:
    """Write them as a folder that peft reads; `base` is the model that they belong to."""
    layers = {name.removeprefix(_PEFT_PREFIX).partition(".lora_")[0] for name in tensors}
    # By name, for not all who serve adapters know what "all-linear" is.
    config = _config(rank, sorted({layer.rpartition(".")[2] for layer in layers}))
    config.base_model_name_or_path, config.inference_mode = base, True
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / _ADAPTER_WEIGHTS)
