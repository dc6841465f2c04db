"""Model folders that `transformers` alone can load, and the state beside them. Nothing is ever half-written.

A folder is written under a temporary name and renamed when it is complete; `latest` is a file moved into place. That
holds against crashes of the process; a power cut may still lose what the kernel had not written.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from prime.data.prm_config import write_prm_config
from prime.errors import CheckpointError
from prime.lm.model import CausalLM
from prime.lm.training import Optimiser
from prime.scoring import PrmConfig

_OPTIMISER_FILE = "optimiser.pt"


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write into a temporary folder beside `folder`, then put it in place, replacing an older one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.writing-{os.getpid()}")
    replaced = folder.with_name(f".{folder.name}.replaced-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        fill(temporary)
        if folder.exists():
            folder.rename(replaced)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def write_file(path: Path, text: str) -> None:
    """Replace a file in one move."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.writing-{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def save_model(lm: CausalLM, tokenizer: Any, folder: Path, *, prm_config: PrmConfig | None = None) -> None:
    """Write weights, configuration and tokenizer as one Hugging Face folder; of a PRM, also how to read it."""

    def fill(target: Path) -> None:
        lm.module.save_pretrained(target)
        tokenizer.save_pretrained(target)
        if prm_config is not None:
            write_prm_config(prm_config, target)

    write_folder(folder, fill)


def save_training_state(optimiser: Optimiser, facts: dict[str, Any], folder: Path) -> None:
    """Write the optimiser and a few JSON facts (version, cursor) into one folder."""

    def fill(target: Path) -> None:
        torch.save(optimiser.state(), target / _OPTIMISER_FILE)
        (target / "facts.json").write_text(json.dumps(facts))

    write_folder(folder, fill)


def load_training_state(optimiser: Optimiser, folder: Path) -> dict[str, Any]:
    """Inverse of `save_training_state`; returns the facts.

    Raises:
        CheckpointError: the folder is not there or not whole.
    """
    try:
        facts: dict[str, Any] = json.loads((folder / "facts.json").read_text())
        optimiser.load_state(torch.load(folder / _OPTIMISER_FILE, weights_only=True))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"checkpoint {folder} cannot be read: {error}") from error
    return facts


def load_weights(lm: CausalLM, folder: Path) -> None:
    """Put a folder's weights into a model that is already there (same architecture).

    Raises:
        CheckpointError: the folder holds no such model.
    """
    source = CausalLM(folder, device=torch.device("cpu"))
    try:
        lm.module.load_state_dict(source.module.state_dict())
    except RuntimeError as error:
        raise CheckpointError(f"{folder} holds another architecture: {error}") from error
