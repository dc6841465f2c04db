"""The formulas behind the capacity tables, held against small models that are really made."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import DynamicCache

from benchmarks.capacity import (
    CONTEXT,
    cache_bytes,
    queue_bytes,
    rows,
    sequences_in_flight,
    smallest,
)
from benchmarks.prm_pair import Shape, write_model
from benchmarks.training import SHAPES
from prime.lm.model import load_module
from prime.types import FinishReason, RolloutGroup, Sample, VersionSpan
from prime.wire import encode_group

SMALL = Shape(hidden=128, layers=3, heads=4, groups=2, inner=256, vocabulary=2000)
PAGE = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()


@pytest.mark.parametrize("tied", [True, False])
def test_weights_are_what_a_model_has(tmp_path: Path, tied: bool) -> None:
    shape = replace(SMALL, tied=tied)
    module = load_module(write_model(tmp_path, shape, seed=0), dtype=torch.float32, attention="sdpa")
    counted = sum(parameter.numel() for parameter in module.parameters())
    assert shape.parameters == pytest.approx(counted, rel=0.01)


def test_the_cache_is_what_a_model_keeps(tmp_path: Path) -> None:
    module = load_module(write_model(tmp_path, SMALL, seed=0), dtype=torch.bfloat16, attention="sdpa")
    cache = DynamicCache()
    with torch.inference_mode():
        module(input_ids=torch.full((1, 10), 300), past_key_values=cache)
    kept = sum(part.numel() * part.element_size() for layer in cache.layers for part in (layer.keys, layer.values))
    assert kept == 10 * cache_bytes(SMALL)


def test_a_group_takes_in_the_queue_what_is_said() -> None:
    sample = Sample(
        response_ids=(5,) * 3072,
        logprobs=(-0.5,) * 3072,
        spans=(VersionSpan(version=3, length=3072),),
        finish_reason=FinishReason.STOP,
    )
    group = RolloutGroup(
        group_id="g" * 32, problem_id="p" * 32, attempt=0, prompt_ids=(7,) * 1024, samples=(sample,) * 4
    )
    said = queue_bytes(prompt=1024, response=3072, samples=4)
    assert encode_group(group).ByteSize() == pytest.approx(said, rel=0.01)


def test_what_is_in_flight_fits_beside_the_weights() -> None:
    shape = SHAPES["7B"]
    used = 2 * shape.parameters + sequences_in_flight(shape) * CONTEXT * cache_bytes(shape)
    assert 0.89 * 78 < used / 2**30 <= 0.9 * 78


def test_the_page_has_the_table_that_the_formulas_give() -> None:
    assert all(row in PAGE for row in rows())
    assert smallest(SHAPES["7B"], of_prm=False) == 2
