"""Weights as transformers holds them, and as a checkpoint on the hub has them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from prime.lm.hub_names import HubNames
from prime.lm.model import load_module
from tests.families import FAMILIES, Family


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.title)
def test_names_and_tensors_are_those_of_the_checkpoint(family: Family, tmp_path: Path) -> None:
    folder = family.write(tmp_path)
    module = load_module(folder, dtype=torch.float32, attention=None)
    head = {"lm_head.weight": module.get_output_embeddings().weight}  # pushes always name it

    undone = HubNames(folder).undo({**module.state_dict(), **head})

    stored = load_file(folder / "model.safetensors")
    assert undone.keys() - head.keys() == stored.keys() - head.keys()
    for name, tensor in stored.items():
        assert torch.equal(undone[name], tensor), name


def test_experts_are_single_matrices(tmp_path: Path) -> None:
    (family,) = [each for each in FAMILIES if each.title == "Qwen3-MoE"]
    folder = family.write(tmp_path)
    module = load_module(folder, dtype=torch.float32, attention=None)
    assert "model.layers.0.mlp.experts.down_proj" in module.state_dict()
    undone = HubNames(folder).undo(module.state_dict())
    assert undone["model.layers.0.mlp.experts.3.down_proj.weight"].shape == (32, 16)
