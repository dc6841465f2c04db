"""Weights under the names that they have on the hub.

Transformers fuses the experts of a layer into one tensor when it loads a checkpoint, and pushes carry what it holds.
Others, vLLM among them, read checkpoints, in which every expert has tensors of its own.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

from prime.lm.model import load_module


class HubNames:
    """What transformers did to a model's names and tensors when it loaded them, undone."""

    def __init__(self, folder: Path) -> None:
        """`folder`: of the model; its weights are not read.

        Raises:
            CheckpointError: it holds no model.
        """
        self._module = load_module(folder, dtype=torch.float32, attention=None, empty=True)

    def undo(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same weights as a checkpoint has them: views where they are cut apart, new tensors where put together.

        `named`: all weights of the model, under the names of its state dict.
        """
        found: dict[str, Tensor] = revert_weight_conversion(self._module, dict(named))
        return found
