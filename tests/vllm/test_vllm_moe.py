"""A mixture of experts on vLLM: what transformers holds fused arrives under the names that vLLM reads."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
import torch
from torch import Tensor

from prime.errors import WeightPushError
from prime.lm.model import load_module, tensor_bytes
from prime.lm.plain import plain_logprobs
from prime.maths.agreement import mean_gap, tells_old_from_new
from prime.types import TensorSpec
from tests.builders import with_tokenizer
from tests.families import FAMILIES

pytest.importorskip("vllm")

from services.rollout.vllm_engine import Room, VllmEngine

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.filterwarnings("ignore"),  # vLLM's own
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
]

PROBE = (5, 17, 33, 2, 9, 64, 41, 7, 80, 23, 11, 50)
SHAPE = {
    "vocab_size": 258,  # of the byte tokenizer
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,  # vLLM's CPU attention has no smaller heads
    "num_experts": 4,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (family,) = [each for each in FAMILIES if each.title == "Qwen3-MoE"]
    return with_tokenizer(replace(family, config={**family.config, **SHAPE}).write(tmp_path_factory.mktemp("moe")))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(folder: Path) -> AsyncIterator[VllmEngine]:
    served = VllmEngine(model=folder, max_context=256, max_groups=2, room=Room(kv_cache_gib=0.25))
    await served.start()
    yield served
    await served.close()


def weights(folder: Path, seed: int) -> dict[str, Tensor]:
    """Those of the folder, moved a little."""
    torch.manual_seed(seed)
    module = load_module(folder, dtype=torch.float32, attention=None)
    named = {**module.state_dict(), "lm_head.weight": module.get_output_embeddings().weight}
    return {name: tensor.detach() + 0.05 * torch.randn_like(tensor) for name, tensor in named.items()}


def pushed(named: dict[str, Tensor]) -> Sequence[tuple[TensorSpec, memoryview]]:
    return [
        (TensorSpec(name=name, dtype="float32", shape=tuple(tensor.shape)), tensor_bytes(tensor.contiguous()))
        for name, tensor in sorted(named.items())
    ]


async def test_every_push_is_what_answers_and_old_weights_are_told_apart(engine: VllmEngine, folder: Path) -> None:
    first, second = weights(folder, 1), weights(folder, 2)
    assert any("experts.gate_up_proj" in name for name in first)
    for version, named in ((1, first), (2, second), (3, first)):
        await engine.load_weights(version, pushed(named))
        assert mean_gap(await engine.logprobs(PROBE), plain_logprobs(folder, named, PROBE)) < 1e-4
    await engine.load_weights(4, pushed(second))
    old, new = (plain_logprobs(folder, named, PROBE) for named in (first, second))
    assert tells_old_from_new(old, new, noise=1e-5)
    answer = await engine.logprobs(PROBE)
    assert mean_gap(answer, new) < mean_gap(answer, old) / 10


async def test_one_expert_alone_is_not_lost(engine: VllmEngine, folder: Path) -> None:
    before = weights(folder, 3)
    name = "model.layers.1.mlp.experts.down_proj"
    after = {**before, name: before[name] * torch.tensor([1.0, 1.0, 1.0, -1.0])[:, None, None]}
    await engine.load_weights(5, pushed(before))
    await engine.load_weights(6, pushed(after))
    answer = await engine.logprobs(PROBE)
    assert mean_gap(answer, plain_logprobs(folder, after, PROBE)) < 1e-4
    assert mean_gap(answer, plain_logprobs(folder, before, PROBE)) > 1e-3


async def test_a_push_without_an_expert_changes_nothing(engine: VllmEngine, folder: Path) -> None:
    named = weights(folder, 4)
    await engine.load_weights(7, pushed(named))
    short = {name: tensor for name, tensor in weights(folder, 5).items() if "layers.1.mlp.experts.down" not in name}
    with pytest.raises(WeightPushError, match=r"experts\.down_proj"):
        await engine.load_weights(8, pushed(short))
    assert mean_gap(await engine.logprobs(PROBE), plain_logprobs(folder, named, PROBE)) < 1e-4
