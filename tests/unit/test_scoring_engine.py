"""The scoring engine gives the numbers of a plain reference, whatever else is in the batch and however it is cut."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM, set_seed

from prime.data.tiny import build_byte_tokenizer
from prime.lm.model import CausalLM
from prime.lm.packing import TokenRow, build_pack, plan_packs
from prime.maths.logprobs import Tiles, chosen_logprobs, scored_logprobs
from prime.types import PrmGroup, ReferenceSource
from services.prm.reward_model import ImplicitPrm
from services.prm.settings import PrmSettings
from tests.builders import perturb, tiny_model

BETA = 0.05


def plain_rewards(prm: Path, reference: Path, group: PrmGroup) -> list[list[float]]:
    """`beta * (log pi_prm - log pi_ref)` with nothing clever: one row at a time, full logits, fp32."""

    def logprobs(folder: Path, response: Sequence[int]) -> Tensor:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        ids = torch.tensor([[*group.prompt_ids, *response]])
        with torch.no_grad():
            logits = model(ids).logits[0]
        # The token at position t is predicted at t - 1: the first response token by the last of the prompt.
        predicting = logits[len(group.prompt_ids) - 1 : -1].log_softmax(dim=-1)
        chosen: Tensor = predicting.gather(1, torch.tensor(response)[:, None]).squeeze(1)
        return chosen

    return [(BETA * (logprobs(prm, response) - logprobs(reference, response))).tolist() for response in group.responses]


def write_qwen(folder: Path, *, seed: int) -> Path:
    set_seed(seed)
    tokenizer = build_byte_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A PRM and a reference that differ everywhere."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "llama":
        return perturb(tiny_model(folder / "prm"), seed=1), perturb(tiny_model(folder / "reference"), seed=2)
    return write_qwen(folder / "prm", seed=1), write_qwen(folder / "reference", seed=2)


def _open(pair: tuple[Path, Path], *, token_budget: int = 16384, cache_mib: int = 16) -> ImplicitPrm:
    prm, reference = pair
    settings = PrmSettings(
        reference=reference,
        beta=BETA,
        device="cpu",
        frozen=True,
        token_budget=token_budget,
        reference_cache_mib=cache_mib,
    )
    return ImplicitPrm(settings, start=prm)


def _groups(*, seed: int = 0) -> list[PrmGroup]:
    """Prompts and responses of very different lengths; three prompts have several responses, one has one."""
    draw = torch.Generator().manual_seed(seed)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(2, 200, (length,), generator=draw).tolist())

    shapes = [(5, (7, 1, 30)), (1, (3, 3)), (40, (9,)), (17, (60, 2, 11, 25))]
    return [
        PrmGroup(group_id=str(number), prompt_ids=ids(prompt), responses=tuple(map(ids, responses)))
        for number, (prompt, responses) in enumerate(shapes)
    ]


def _largest_gap(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> float:
    assert [len(row) for row in ours] == [len(row) for row in theirs]
    return max(abs(a - b) for mine, other in zip(ours, theirs, strict=True) for a, b in zip(mine, other, strict=True))


def test_rewards_equal_the_plain_reference(pair: tuple[Path, Path]) -> None:
    groups = _groups()
    plain = [row for group in groups for row in plain_rewards(*pair, group)]
    scored = _open(pair).score(groups, reuse=True)
    assert _largest_gap(scored.rewards, plain) < 1e-5
    assert max(abs(reward) for row in plain for reward in row) > 1e-3, "the pair must differ, or nothing is shown"


@pytest.mark.parametrize("token_budget", [1, 16, 64, 16384])
def test_neither_company_nor_order_nor_the_cut_into_batches_matters(pair: tuple[Path, Path], token_budget: int) -> None:
    groups = _groups()
    together = _open(pair).score(groups).rewards
    prm = _open(pair, token_budget=token_budget)
    assert _largest_gap(prm.score(groups).rewards, together) < 1e-4
    backwards = prm.score(groups[::-1]).rewards
    alone = [row for group in groups[::-1] for row in prm.score([group]).rewards]
    assert _largest_gap(alone, backwards) < 1e-4
    one_by_one = [
        prm.score([PrmGroup(group_id="x", prompt_ids=group.prompt_ids, responses=(response,))]).rewards[0]
        for group in groups
        for response in group.responses
    ]
    assert _largest_gap(one_by_one, together) < 1e-4


def test_the_cache_answers_what_the_model_would_and_says_so(pair: tuple[Path, Path]) -> None:
    prm, groups = _open(pair), _groups()
    first, again = prm.score(groups, reuse=True), prm.score(groups[1:], reuse=True)
    assert not any(first.reference_cached)
    assert all(again.reference_cached)
    assert _largest_gap(again.rewards, first.rewards[3:]) < 1e-4
    longer = PrmGroup(group_id="new", prompt_ids=groups[1].prompt_ids, responses=(*groups[1].responses, (9, 9)))
    mixed = prm.score([longer], reuse=True)
    assert mixed.reference_cached == [True, True, False]
    assert _largest_gap(mixed.rewards[2:], plain_rewards(*pair, longer)[2:]) < 1e-5


def test_the_cache_tells_a_prompt_from_a_response(pair: tuple[Path, Path]) -> None:
    prm = _open(pair)
    for prompt, response in (((5, 6, 7), (8, 9)), ((5, 6), (7, 8, 9)), ((5,), (6, 7, 8, 9))):
        group = PrmGroup(group_id="g", prompt_ids=prompt, responses=(response,))
        assert _largest_gap(prm.score([group], reuse=True).rewards, plain_rewards(*pair, group)) < 1e-5


def test_a_full_cache_drops_the_oldest_and_one_of_no_size_keeps_nothing(pair: tuple[Path, Path]) -> None:
    without = _open(pair, cache_mib=0)
    without.score(_groups(), reuse=True)
    assert not any(without.score(_groups(), reuse=True).reference_cached)


def test_training_does_not_look_into_the_cache(pair: tuple[Path, Path]) -> None:
    """What it would find there depends on what was scored before, and training repeats to the bit."""
    prm, groups = _open(pair), _groups()
    prm.score(groups, reuse=True)
    assert not any(prm.score(groups).reference_cached)


def test_the_reference_may_be_supplied_or_switched_off(pair: tuple[Path, Path]) -> None:
    group = _groups()[0]
    plain = plain_rewards(*pair, group)
    reference = CausalLM(pair[1], device=torch.device("cpu"))
    rows = [TokenRow(prompt_ids=group.prompt_ids, response_ids=response) for response in group.responses]
    known = reference.score_rows(rows, token_budget=1000)
    supplied = PrmGroup(
        group_id="s",
        prompt_ids=group.prompt_ids,
        responses=group.responses,
        reference_logprobs=tuple(tuple(row.tolist()) for row in known),
        reference=ReferenceSource.SUPPLIED,
    )
    off = PrmGroup(group_id="n", prompt_ids=group.prompt_ids, responses=group.responses, reference=ReferenceSource.NONE)
    scored = _open(pair).score([supplied, group, off], reuse=True)
    count = len(group.responses)
    assert _largest_gap(scored.rewards[:count], plain) < 1e-5
    assert _largest_gap(scored.rewards[count : 2 * count], plain) < 1e-5
    without = [[BETA * float(value) for value in row] for row in known]
    added = [
        [mine - theirs for mine, theirs in zip(*rows, strict=True)]
        for rows in zip(scored.rewards[2 * count :], without, strict=True)
    ]
    assert _largest_gap(added, plain) < 1e-5


def test_prm_and_reference_in_bfloat16_stay_within_a_stated_bound(tmp_path: Path) -> None:
    """Rounding of the weights themselves is not counted: both sides hold them in bfloat16."""
    pair = write_qwen(tmp_path / "prm", seed=1), write_qwen(tmp_path / "reference", seed=2)
    for folder in pair:
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    settings = PrmSettings(reference=pair[1], beta=BETA, device="cpu", frozen=True, dtype="bfloat16")
    prm, groups = ImplicitPrm(settings, start=pair[0]), _groups()
    ours = prm.score(groups).rewards
    plain = [row for group in groups for row in plain_rewards(*pair, group)]
    assert _largest_gap(ours, plain) < BETA * 0.1
    for group in groups:
        totals = [sum(row) for row in plain_rewards(*pair, group)]
        scored = [sum(row) for row in prm.score([group]).rewards]
        assert scored.index(max(scored)) == totals.index(max(totals))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), min_size=1, max_size=9),
    st.integers(1, 40),
)
@settings(max_examples=60, deadline=None)
def test_plans_hold_every_row_once_within_the_budget(shapes: list[tuple[int, int]], token_budget: int) -> None:
    rows = [TokenRow(prompt_ids=(7,) * (prompt + 1), response_ids=(9,) * length) for prompt, length in shapes]
    plans = plan_packs(rows, token_budget=token_budget)
    assert sorted(number for numbers in plans for number in numbers) == list(range(len(rows)))
    for numbers in plans:
        pack = build_pack(rows, numbers)
        assert len(pack.ids_N) <= token_budget or len(numbers) == 1
        assert sorted(pack.places_N.tolist()) == sorted(set(pack.places_N.tolist()))
        assert len(pack.places_N) == len(pack.ids_N)


def test_a_shared_prompt_lies_in_a_pack_once() -> None:
    """The second worked example of `Pack`."""
    rows = [TokenRow(prompt_ids=(7, 8), response_ids=(9,)), TokenRow(prompt_ids=(7, 8), response_ids=(6, 4))]
    pack = build_pack(rows, (0, 1))
    assert pack.ids_N.tolist() == [7, 8, 9, 6, 4]
    assert pack.positions_N.tolist() == [0, 1, 2, 2, 3]
    assert pack.slots_SL.tolist() == [[0, 1]]
    assert pack.predictors_R.tolist() == [1, 1, 3]
    assert pack.chosen_R.tolist() == [9, 6, 4]
    assert pack.branches is not None
    assert pack.branches.queries_BQ.tolist() == [[2, 2], [3, 4]]
    assert pack.longest == 4


@pytest.mark.parametrize("token_tile", [1, 3, 100])
@pytest.mark.parametrize("vocab_tile", [1, 7, 64, 1000])
def test_tiles_change_nothing_about_a_logprob(token_tile: int, vocab_tile: int) -> None:
    draw = torch.Generator().manual_seed(0)
    hidden_ND, head_VD = 20 * torch.randn(10, 8, generator=draw), torch.randn(97, 8, generator=draw)
    chosen_N = torch.randint(0, 97, (10,), generator=draw)
    tiles = Tiles(tokens=token_tile, vocab=vocab_tile)
    tiled_N = scored_logprobs(hidden_ND, head_VD, chosen_N, temperature=0.7, tiles=tiles)
    whole_N = chosen_logprobs(hidden_ND, head_VD, chosen_N, temperature=0.7).logprobs_N
    torch.testing.assert_close(tiled_N, whole_N, atol=2e-5, rtol=1e-5)
    assert tiled_N.max() <= 0


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers how many numbers the largest tensor had that any operation gave back."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.numbers = max(self.numbers, out.numel())
        return out


def test_no_tensor_grows_with_vocabulary_times_tokens() -> None:
    hidden_ND, head_VD = torch.randn(300, 8), torch.randn(2000, 8)
    chosen_N, tiles = torch.zeros(300, dtype=torch.long), Tiles(tokens=16, vocab=32)
    with LargestTensor() as largest:  # type: ignore[no-untyped-call]
        scored_logprobs(hidden_ND, head_VD, chosen_N, tiles=tiles)
        factors = hidden_ND.requires_grad_(), head_VD.requires_grad_()
        chosen_logprobs(*factors, chosen_N, tiles=tiles).logprobs_N.sum().backward()  # type: ignore[no-untyped-call]
    assert largest.numbers <= max(16 * 32, 2000 * 8)


def test_scored_logprobs_are_those_that_learning_starts_from_to_the_bit() -> None:
    hidden_ND, head_VD = torch.randn(50, 8).bfloat16(), torch.randn(300, 8).bfloat16()
    chosen_N, tiles = torch.randint(0, 300, (50,)), Tiles(tokens=16, vocab=64)
    learning_N = chosen_logprobs(hidden_ND, head_VD, chosen_N, tiles=tiles).logprobs_N
    assert torch.equal(scored_logprobs(hidden_ND, head_VD, chosen_N, tiles=tiles), learning_N)


def test_a_head_that_does_not_learn_gets_no_gradient() -> None:
    hidden_ND, head_VD = torch.randn(5, 8, requires_grad=True), torch.randn(30, 8)
    chosen_logprobs(hidden_ND, head_VD, torch.arange(5)).logprobs_N.sum().backward()  # type: ignore[no-untyped-call]
    assert hidden_ND.grad is not None
    assert head_VD.grad is None
