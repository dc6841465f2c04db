"""The implicit PRM: its starting point, its losses, its update modes, and independence of how rows are packed."""

import asyncio
import math
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from prime.errors import InvalidInput, TokenizerMismatch, TookTooLong
from prime.ports import PendingCheckpoint
from prime.types import PrmGroup, PrmMetrics
from services.prm.reward import IsWanted, RewardService, ScoredRows
from services.prm.reward_model import ImplicitPrm
from services.prm.settings import PrmSettings
from tests.builders import perturb, tiny_model

GROUPS = [
    PrmGroup(group_id="a", prompt_ids=(5, 6), responses=((3, 4, 1), (9, 1))),
    PrmGroup(group_id="b", prompt_ids=(7,), responses=((30, 31, 32, 1), (1,))),
]
OUTCOMES = [1.0, 0.0, 0.0, 1.0]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return perturb(tiny_model(tmp_path_factory.mktemp("start")), seed=1)


def _prm(start: Path, **changes: Any) -> ImplicitPrm:
    settings = {"lr": 1e-3, "device": "cpu", **changes}
    return ImplicitPrm(PrmSettings(**settings), start=start)


def test_a_fresh_prm_rewards_nothing_and_loses_ln_two(start: Path) -> None:
    prm = _prm(start)
    assert all(reward == 0.0 for row in prm.score(GROUPS).rewards for reward in row)
    metrics = prm.learn(GROUPS, OUTCOMES)
    assert metrics.loss == pytest.approx(math.log(2))
    assert metrics.pair_accuracy == 0.5


def test_rewards_have_a_row_per_sample_and_a_number_per_token(start: Path) -> None:
    prm = _prm(start)
    prm.learn(GROUPS, OUTCOMES)
    assert [len(row) for row in prm.score(GROUPS).rewards] == [3, 2, 4, 1]
    assert any(reward != 0.0 for row in prm.score(GROUPS).rewards for reward in row)


def test_what_nobody_waits_for_is_computed_no_further_than_the_pass_that_is_under_way(start: Path) -> None:
    prm = _prm(start, token_budget=1)  # a pass per row and model
    passes = 0

    def is_wanted() -> bool:
        nonlocal passes
        passes += 1
        return passes <= 2

    for reuse in (False, True):
        passes = 0
        with pytest.raises(TookTooLong):
            prm.score(GROUPS, reuse=reuse, is_wanted=is_wanted)
        assert passes == 3
    # Nothing half done is kept: the next call gives what it always gave.
    assert prm.score(GROUPS).rewards == _prm(start).score(GROUPS).rewards


@pytest.mark.parametrize("loss", ["ce", "dpo", "prefix"])
def test_learning_raises_right_answers_above_wrong_ones(start: Path, loss: str) -> None:
    prm = _prm(start, loss=loss)
    losses = [prm.learn(GROUPS, OUTCOMES).loss for _ in range(15)]
    assert losses[-1] < losses[0]
    totals = [sum(row) for row in prm.score(GROUPS).rewards]
    assert totals[0] > totals[1]
    assert totals[3] > totals[2]
    assert prm.version == 15


@pytest.mark.parametrize("loss", ["ce", "dpo", "prefix"])
def test_packs_change_nothing_about_what_is_learnt(start: Path, loss: str) -> None:
    """The gradient equals the full batch's for any split."""
    scores = []
    for token_budget in (1, 6, 1000):
        prm = _prm(start, loss=loss, token_budget=token_budget)
        for _ in range(2):
            prm.learn(GROUPS, OUTCOMES)
        scores.append([reward for row in prm.score(GROUPS).rewards for reward in row])
    torch.testing.assert_close(torch.tensor(scores[1]), torch.tensor(scores[0]), atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(torch.tensor(scores[2]), torch.tensor(scores[0]), atol=1e-5, rtol=1e-3)


def test_row_order_changes_nothing(start: Path) -> None:
    """Rewards belong to the rows that were asked for, in that order."""
    prm, swapped = _prm(start), _prm(start)
    prm.learn(GROUPS, OUTCOMES)
    swapped.learn(GROUPS[::-1], [*OUTCOMES[2:], *OUTCOMES[:2]])
    ours, theirs = prm.score(GROUPS).rewards, swapped.score(GROUPS[::-1]).rewards
    for mine, other in zip(ours, [*theirs[2:], *theirs[:2]], strict=True):
        torch.testing.assert_close(torch.tensor(mine), torch.tensor(other), atol=1e-5, rtol=1e-3)


def test_what_scoring_computed_serves_learning_and_nothing_after_it(start: Path) -> None:
    scored_first, alone = _prm(start), _prm(start)
    other = [PrmGroup(group_id="c", prompt_ids=(8,), responses=((9, 1), (10, 1)))]
    for _ in range(2):
        scored_first.score(GROUPS)
        assert scored_first.learn(GROUPS, OUTCOMES) == alone.learn(GROUPS, OUTCOMES)
    assert scored_first.score(other) == alone.score(other)
    assert scored_first.score(GROUPS) == alone.score(GROUPS)


def test_mini_batches_take_whole_groups(start: Path) -> None:
    prm = _prm(start, mini_batches=5)
    metrics = prm.learn(GROUPS, OUTCOMES)
    assert metrics.prm_version == 1
    assert math.isfinite(metrics.grad_norm)


def test_the_policy_can_be_the_reference(start: Path) -> None:
    """No reference model is loaded, and the policy's log-probs are used."""
    prm = _prm(start, reference_mode="policy")
    assert prm.reference_id == "policy"
    with pytest.raises(InvalidInput, match="'a' must bring its reference log-probs"):
        prm.score(GROUPS)
    lower = PrmGroup(group_id="a", prompt_ids=(5, 6), responses=((3,),), reference_logprobs=((-100.0,),))
    assert prm.score([lower]).rewards[0][0] > 0


def test_an_outcome_outside_zero_to_one_is_refused(start: Path) -> None:
    with pytest.raises(InvalidInput, match="one outcome in"):
        _prm(start).learn(GROUPS, [1.0, 0.0, 0.0, 1.5])
    with pytest.raises(InvalidInput, match="4 samples need one outcome"):
        _prm(start).learn(GROUPS, [1.0])


def test_a_reference_with_another_tokenizer_is_refused(start: Path, tmp_path: Path) -> None:
    from prime.data.chain import write_fresh_model

    write_fresh_model(tmp_path / "chain", seed=0, hidden=32)
    with pytest.raises(TokenizerMismatch, match="do not share one tokenizer"):
        _prm(start, reference=tmp_path / "chain")


async def test_a_step_is_learnt_once(start: Path, tmp_path: Path) -> None:
    service = RewardService(_prm(start), checkpoints=tmp_path)
    first = await service.learn(1, GROUPS, OUTCOMES)
    assert await service.learn(1, GROUPS, OUTCOMES) == first
    assert (await service.info()).prm_version == 1
    with pytest.raises(InvalidInput, match="restore first"):
        await service.learn(0, GROUPS, OUTCOMES)


@dataclass
class Written:
    folder: Path

    def wait(self) -> None:
        pass


class SlowPrm:
    """Learns in a while, and counts how many learn at once; two scores meet, or wait for each other in vain."""

    scores_side_by_side = True
    version = 0
    beta = 0.05
    reference_id = "r"
    fingerprint = "f"

    def __init__(self) -> None:
        self.at_once = self.most_at_once = 0
        self.meeting = threading.Barrier(2)

    def score(
        self, groups: Sequence[PrmGroup], *, reuse: bool = False, is_wanted: IsWanted | None = None
    ) -> ScoredRows:
        assert self.at_once == 0, "a score while something is learnt"
        if reuse:
            self.meeting.wait(timeout=20)
        return ScoredRows(rewards=[], reference_cached=[])

    def learn(self, groups: Sequence[PrmGroup], outcomes: Sequence[float]) -> PrmMetrics:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(0.2)
        self.at_once -= 1
        self.version += 1
        return PrmMetrics(prm_version=self.version, loss=0.0, grad_norm=0.0, pair_accuracy=0.5, mean_logit=0.0)

    def begin_save(self, folder: Path) -> PendingCheckpoint:
        return Written(folder)

    def restore(self, folder: Path | None) -> None:
        self.version = 0


async def test_scores_of_the_api_are_computed_side_by_side_and_none_while_the_prm_learns(tmp_path: Path) -> None:
    service = RewardService(SlowPrm(), checkpoints=tmp_path)
    learning = asyncio.create_task(service.learn(1, GROUPS, OUTCOMES))
    await asyncio.sleep(0.05)
    scores = await asyncio.gather(*(service.score(GROUPS, reuse=True) for _ in range(2)), service.score(GROUPS))
    assert [each.prm_version for each in scores] == [1, 1, 1]
    await learning


async def test_long_scores_of_the_api_are_computed_at_a_lower_priority_than_short_ones(tmp_path: Path) -> None:
    nice: dict[int, int] = {}

    class Watched(SlowPrm):
        def score(
            self, groups: Sequence[PrmGroup], *, reuse: bool = False, is_wanted: IsWanted | None = None
        ) -> ScoredRows:
            nice[len(groups)] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
            return ScoredRows(rewards=[], reference_cached=[])

    own = os.getpriority(os.PRIO_PROCESS, 0)
    # GROUPS have 13 tokens; the first of them has 7.
    service = RewardService(Watched(), checkpoints=tmp_path, short_tokens=10)
    await service.score(GROUPS, reuse=True)
    await service.score(GROUPS[:1], reuse=True)
    assert nice == {2: min(own + 10, 19), 1: own}
    # A trainer's scores do not give way, whatever their length.
    await service.score(GROUPS)
    assert nice[2] == own


async def test_a_caller_that_goes_away_and_repeats_has_its_step_learnt_once(tmp_path: Path) -> None:
    prm = SlowPrm()
    service = RewardService(prm, checkpoints=tmp_path)
    first = asyncio.create_task(service.learn(1, GROUPS, OUTCOMES))
    await asyncio.sleep(0.05)
    first.cancel()
    assert (await service.learn(1, GROUPS, OUTCOMES)).prm_version == 1
    assert (prm.version, prm.most_at_once) == (1, 1)


async def test_restore_undoes_what_was_learnt_since_the_save(start: Path, tmp_path: Path) -> None:
    service = RewardService(_prm(start), checkpoints=tmp_path)
    await service.learn(1, GROUPS, OUTCOMES)
    saved = await service.score(GROUPS)
    folder = Path(await service.save(1))
    assert (folder / "config.json").is_file()
    second = await service.learn(2, GROUPS, OUTCOMES)
    assert await service.restore(1) == 1
    assert await service.score(GROUPS) == saved
    assert await service.learn(2, GROUPS, OUTCOMES) == second
    assert await service.restore(0) == 0
    assert all(reward == 0.0 for row in (await service.score(GROUPS)).rows for reward in row)
