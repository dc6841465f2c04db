"""Scoring before a batch is due: what is scored when, and that a batch never mixes two PRM versions."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from prime.errors import PeerUnavailable, VersionConflict
from prime.types import GradedGroup, PrmGroup, TokenRewards, prm_view
from services.trainer.rewards_ahead import RewardsAhead
from services.trainer.timeline import Timeline
from tests.builders import graded

BATCH = [graded((1.0, 0.0), ((3, 4, 1), (9, 1)), f"{number}.0-p") for number in range(3)]


class CountingPrm:
    """Rewards every token with its version; writes down what it was asked to score."""

    def __init__(self) -> None:
        self.version = 0
        self.asked: list[str] = []
        self.error: PeerUnavailable | None = None

    async def score(self, groups: Sequence[PrmGroup]) -> TokenRewards:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.asked += [group.group_id.partition(".")[0] for group in groups]
        rows = tuple((float(self.version),) * len(response) for group in groups for response in group.responses)
        return TokenRewards(rows=rows, prm_version=self.version, beta=0.05, reference_id="r")


def _ahead(prm: Any, *, max_lag: int = 0, batch_size: int = 2) -> RewardsAhead:
    rewards = RewardsAhead(prm, max_lag=max_lag, batch_size=batch_size, timeline=Timeline())
    rewards.is_open = True
    return rewards


async def _offer(rewards: RewardsAhead, groups: Sequence[GradedGroup]) -> None:
    for each in groups:
        rewards.offer(each)
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_batch_that_was_offered_is_scored_once_and_early() -> None:
    prm = CountingPrm()
    rewards = _ahead(prm)
    await _offer(rewards, BATCH[:2])
    assert prm.asked == ["0", "1"]
    found = await rewards.of(prm_view(BATCH[1::-1]), prm_version=0)
    assert prm.asked == ["0", "1"]
    assert [len(row) for row in found.rows] == [3, 2, 3, 2]
    assert (found.prm_version, found.beta, found.reference_id) == (0, 0.05, "r")


async def test_no_more_than_a_batch_is_scored_early_for_the_prm_learns_in_between() -> None:
    prm = CountingPrm()
    rewards = _ahead(prm)
    await _offer(rewards, BATCH)
    assert prm.asked == ["0", "1"]
    await rewards.of(prm_view(BATCH[:2]), prm_version=0)
    prm.version = 1
    rewards.go_on()
    found = await rewards.of(prm_view(BATCH[2:]), prm_version=1)
    assert prm.asked == ["0", "1", "2"]
    assert found.prm_version == 1


async def test_what_an_older_prm_scored_is_scored_again() -> None:
    prm = CountingPrm()
    rewards = _ahead(prm)
    await _offer(rewards, BATCH[:2])
    prm.version = 1
    found = await rewards.of(prm_view(BATCH[:2]), prm_version=1)
    assert prm.asked == ["0", "1", "0", "1"]
    assert {value for row in found.rows for value in row} == {1.0}


async def test_a_lag_that_is_allowed_spares_the_second_pass_when_the_whole_batch_agrees() -> None:
    prm = CountingPrm()
    rewards = _ahead(prm, max_lag=1)
    await _offer(rewards, BATCH[:2])
    prm.version = 1
    found = await rewards.of(prm_view(BATCH[:2]), prm_version=1)
    assert prm.asked == ["0", "1"]
    assert found.prm_version == 0


@pytest.mark.parametrize("offered", [BATCH[:1], BATCH[:2]])
async def test_a_batch_never_mixes_two_prm_versions(offered: list[GradedGroup]) -> None:
    """One that lags may be used, but not beside one that does not."""
    prm = CountingPrm()
    rewards = _ahead(prm, max_lag=1, batch_size=3)
    await _offer(rewards, offered)
    prm.version = 1
    found = await rewards.of(prm_view(BATCH), prm_version=1)
    assert {value for row in found.rows for value in row} == {1.0}


async def test_a_prm_that_answers_with_another_version_is_a_conflict() -> None:
    prm = CountingPrm()
    prm.version = 3
    with pytest.raises(VersionConflict, match="answered with version 3, this run expects 1"):
        await _ahead(prm).of(prm_view(BATCH), prm_version=1)


async def test_a_prompt_that_was_asked_again_is_not_given_the_rewards_of_its_stale_group() -> None:
    """Its id is the same; its responses, of a newer policy, are not."""
    prm = CountingPrm()
    rewards = _ahead(prm)
    await _offer(rewards, BATCH[:1])
    again = graded((1.0, 0.0), ((8, 8, 8, 8, 1), (7, 1)), BATCH[0].group.group_id)
    found = await rewards.of(prm_view([again]), prm_version=0)
    assert prm.asked == ["0", "0"]
    assert [len(row) for row in found.rows] == [5, 2]


async def test_what_was_scored_and_went_unused_takes_nobodys_place() -> None:
    prm = CountingPrm()
    rewards = _ahead(prm)
    await _offer(rewards, BATCH[:2])
    prm.version = 1
    await rewards.of(prm_view(BATCH[2:]), prm_version=1)
    await _offer(rewards, BATCH[:2])
    assert prm.asked == ["0", "1", "2", "0", "1"]


async def test_an_error_while_nobody_waits_shows_when_the_batch_is_due() -> None:
    prm = CountingPrm()
    rewards = _ahead(prm)
    prm.error = PeerUnavailable("down")
    await _offer(rewards, BATCH[:2])
    with pytest.raises(PeerUnavailable):
        await rewards.of(prm_view(BATCH[:2]), prm_version=0)
    prm.error = None
    assert len((await rewards.of(prm_view(BATCH[:2]), prm_version=0)).rows) == 4


async def test_closed_it_scores_only_what_is_due_and_groups_that_go_unused_are_forgotten() -> None:
    prm = CountingPrm()
    rewards = _ahead(prm)
    rewards.is_open = False
    await _offer(rewards, BATCH[:2])
    assert prm.asked == []
    rewards.is_open = True
    await _offer(rewards, BATCH[:2])
    rewards.forget([BATCH[0].group.group_id])
    await rewards.of(prm_view(BATCH[:2]), prm_version=0)
    assert prm.asked == ["0", "1", "0"]
