"""Filling a batch over the in-memory queue: filter, refill, undecided, staleness, order, resume."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from prime.adapters.memory import MemoryBroker, MemoryQueue
from prime.errors import PeerUnavailable
from prime.types import (
    GradedGroup,
    GradeItem,
    VerdictStatus,
)
from services.trainer.collector import CollectorState, GroupCollector, ProblemSequence, Ticket
from services.trainer.settings import TrainerSettings
from services.trainer.timeline import Timeline
from tests.builders import Fleet, IdsTokenizer, Score, ScriptedVerifier, group, problem, request, sample

PROBLEMS = [(problem(number), (10 + number,)) for number in range(12)]


def _collector(
    broker: MemoryBroker,
    score: Callable[[GradeItem], Score],
    *,
    state: CollectorState | None = None,
    prompts: int = 3,
    **changes: Any,
) -> GroupCollector:
    settings = TrainerSettings.model_validate(
        {
            "problems": "x",
            "steps": 1,
            "prompts_per_step": prompts,
            "samples_per_prompt": 2,
            "max_lag": 0,
            "peers": {"stall_seconds": 1.0},
            **changes,
        }
    )
    return GroupCollector(
        queue=MemoryQueue(broker, consumer="trainer"),
        verifier=ScriptedVerifier(score),
        problems=ProblemSequence(PROBLEMS, seed=0),
        tokenizer=IdsTokenizer(),
        settings=settings,
        seed=0,
        state=state or CollectorState(),
    )


def _half(item: GradeItem) -> float:
    """One of the two samples of every group is right."""
    return 1.0 if item.item_id.endswith("/0") else 0.0


def _sometimes(item: GradeItem) -> float:
    """Groups of even tickets are all wrong, the others half right."""
    return 0.0 if int(item.item_id.split(".")[0]) % 2 == 0 else _half(item)


async def _fill(collector: GroupCollector, fleet: Fleet, *, version: int = 0) -> list[GradedGroup]:
    working = asyncio.create_task(fleet.run())
    try:
        return await collector.fill(version)
    finally:
        working.cancel()
        await collector.close()


def _tickets(groups: Sequence[GradedGroup]) -> list[str]:
    return [graded.group.group_id.split("-")[0] for graded in groups]


async def test_only_whole_groups_inside_the_band_make_the_batch_and_the_rest_is_refilled() -> None:
    """Failing prompts never fill the gap."""
    broker = MemoryBroker()
    collector = _collector(broker, _sometimes)
    groups = await _fill(collector, Fleet(broker))
    assert _tickets(groups) == ["1.0", "3.0", "5.0"]
    assert all(len(graded.outcomes) == len(graded.group.samples) == 2 for graded in groups)
    assert collector.counts["too_hard"] >= 3
    assert collector.counts["rounds"] > 1
    assert (await MemoryQueue(broker, consumer="x").depths()).groups == 0


async def test_the_order_of_arrival_changes_nothing() -> None:
    orders = []
    for newest_first in (False, True):
        broker = MemoryBroker()
        groups = await _fill(_collector(broker, _sometimes), Fleet(broker, newest_first=newest_first))
        orders.append([graded.group.group_id for graded in groups])
    assert orders[0] == orders[1]


async def test_rounds_are_bounded_and_a_short_batch_is_what_there_is() -> None:
    broker = MemoryBroker()
    collector = _collector(broker, lambda item: 0.0, filter={"max_rounds": 3})
    assert await _fill(collector, Fleet(broker)) == []
    assert collector.counts["rounds"] == 3


@pytest.mark.parametrize("status", [VerdictStatus.UNDECIDED, VerdictStatus.INFRA_ERROR])
async def test_a_verdict_without_a_score_is_never_a_number_and_its_prompt_is_asked_again(status: VerdictStatus) -> None:
    broker = MemoryBroker()

    def first_attempt_unknown(item: GradeItem) -> Score:
        return status if item.item_id.startswith("0.0-") else _half(item)

    collector = _collector(broker, first_attempt_unknown)
    groups = await _fill(collector, Fleet(broker))
    assert _tickets(groups) == ["0.1", "1.0", "2.0"]
    assert collector.counts[status.value] == 1
    assert collector.scores == [0.5, 0.5, 0.5]


async def test_a_prompt_that_stays_undecided_is_given_up() -> None:
    broker = MemoryBroker()

    def never_known(item: GradeItem) -> Score:
        return VerdictStatus.UNDECIDED if item.item_id.startswith("0.") else _half(item)

    collector = _collector(broker, never_known, filter={"max_attempts": 2})
    groups = await _fill(collector, Fleet(broker))
    assert _tickets(groups) == ["1.0", "2.0", "3.0"]
    assert collector.counts["given_up"] == 1


async def test_a_problem_that_cannot_be_graded_costs_its_own_group_alone() -> None:
    broker = MemoryBroker()

    def unusable_ground_truth(item: GradeItem) -> Score:
        return VerdictStatus.INVALID_REQUEST if item.item_id.startswith("1.0-") else _half(item)

    collector = _collector(broker, unusable_ground_truth)
    groups = await _fill(collector, Fleet(broker))
    assert _tickets(groups) == ["0.0", "2.0", "3.0"]
    assert collector.counts["ungradable"] == 1


@pytest.mark.parametrize("code_score", ["share", "binary"])
async def test_the_score_of_programs_is_asked_for_as_configured(code_score: str) -> None:
    broker = MemoryBroker()
    collector = _collector(broker, _half, code_score=code_score)
    await _fill(collector, Fleet(broker))
    assert isinstance(collector._verifier, ScriptedVerifier)
    assert {item.binary for item in collector._verifier.seen} == {code_score == "binary"}


async def test_a_failed_rollout_is_counted_and_its_prompt_asked_again() -> None:
    broker = MemoryBroker()
    collector = _collector(broker, _half)
    queue = MemoryQueue(broker, consumer="refuser")
    filling = asyncio.create_task(collector.fill(0))
    claims = await queue.claim(1, 2.0)
    await queue.refuse(claims[0], "too long")
    fleet = asyncio.create_task(Fleet(broker).run())
    assert _tickets(await filling) == ["0.1", "1.0", "2.0"]
    assert collector.counts["rollout_failed"] == 1
    fleet.cancel()


async def test_stale_groups_are_dropped_and_their_prompts_asked_again() -> None:
    """Strict mode never mixes policies."""
    broker = MemoryBroker()
    collector, fleet = _collector(broker, _half), Fleet(broker, version=4)
    assert await _fill(collector, fleet, version=5) == []
    assert collector.counts["stale"] == collector.counts["asked"] > 0
    fleet.version = 5
    assert _tickets(await _fill(collector, fleet, version=5)) == ["0.0", "1.0", "2.0"]


async def test_a_group_from_a_version_that_does_not_exist_yet_is_dropped() -> None:
    broker = MemoryBroker()
    collector = _collector(broker, _half, filter={"max_rounds": 1})
    assert await _fill(collector, Fleet(broker, version=9), version=5) == []
    assert collector.counts["stale"] == 3


class Chatterbox(Fleet):
    """Of every group the samples with these numbers reach the token limit."""

    def __init__(self, broker: MemoryBroker, *, cut_off: Sequence[int]) -> None:
        super().__init__(broker)
        self.cut_off = cut_off

    async def run(self) -> None:
        while True:
            for claim in await self.queue.claim(100, 0.05):
                samples = tuple(sample((3 + number, 1), truncated=number in self.cut_off) for number in range(4))
                await self.queue.deliver(claim, replace(group(claim.item.group_id), samples=samples))


@pytest.mark.parametrize(
    ("truncated", "cut_off", "kept"),
    [
        ("keep", (0, 1, 2), 4),
        ("mask", (1,), 3),
        ("mask", (1, 2, 3), 0),
        ("filter", (), 4),
        ("filter", (3,), 0),
    ],
)
async def test_samples_that_were_cut_off_are_kept_left_out_or_cost_their_group(
    truncated: str, cut_off: Sequence[int], kept: int
) -> None:
    """Left out, a sample is neither learnt from nor part of the others' baseline; one alone has no baseline."""
    broker = MemoryBroker()
    collector = _collector(broker, _half, truncated=truncated, samples_per_prompt=4, filter={"max_rounds": 1})
    groups = await _fill(collector, Chatterbox(broker, cut_off=cut_off))
    assert len(groups) == (3 if kept else 0)
    assert collector.counts["truncated"] == (0 if kept else 3)
    for each in groups:
        assert len(each.outcomes) == len(each.group.samples) == kept
        # The first sample of a group is the right one, and its outcome goes with it.
        assert [outcome == 1.0 for outcome in each.outcomes] == [
            entry.response_ids[0] == 3 for entry in each.group.samples
        ]


async def test_one_version_behind_is_used_when_the_lag_allows_it() -> None:
    broker = MemoryBroker()
    collector = _collector(broker, _half, max_lag=1)
    groups = await _fill(collector, Fleet(broker, version=4), version=5)
    assert len(groups) == 3


@pytest.mark.parametrize("max_lag", [1, 2])
async def test_as_much_is_asked_for_as_can_be_used_in_time_and_no_more(max_lag: int) -> None:
    """The staleness budget: the batch at hand, and one more for every version that may pass until it is used."""
    broker = MemoryBroker()
    collector, fleet = _collector(broker, _half, max_lag=max_lag), Fleet(broker)
    assert _tickets(await _fill(collector, fleet)) == ["0.0", "1.0", "2.0"]
    assert collector.counts["asked"] == 3 * (1 + max_lag)
    assert len(collector.state.unfinished) == 3 * max_lag


async def test_results_are_taken_and_graded_while_the_batch_before_is_learnt_from() -> None:
    broker = MemoryBroker()
    collector, fleet = _collector(broker, _half, max_lag=1), Fleet(broker)
    kept: list[str] = []
    await collector.start(lambda graded: kept.append(graded.group.group_id), Timeline())
    working = asyncio.create_task(fleet.run())
    try:
        await collector.fill(0)
        collector.advance(1)
        async with asyncio.timeout(5):
            while len(kept) < 6:
                await asyncio.sleep(0.01)
        async with asyncio.timeout(0.1):
            assert len(await collector.fill(1)) == 3  # nothing has to be waited for
    finally:
        working.cancel()
        await collector.close()


async def test_a_verifier_that_fails_while_nobody_waits_ends_the_next_fill() -> None:
    broker = MemoryBroker()

    def fail(item: GradeItem) -> float:
        raise PeerUnavailable("the verifier is away")

    with pytest.raises(PeerUnavailable, match="the verifier is away"):
        await _fill(_collector(broker, fail, max_lag=1), Fleet(broker))


async def test_every_request_differs_in_seed_and_says_which_version_it_needs() -> None:
    broker = MemoryBroker()
    fleet = Fleet(broker, version=7)
    await _fill(_collector(broker, _half, max_lag=2), fleet, version=7)
    assert len({request.seed for request in fleet.seen}) == len(fleet.seen)
    assert {request.min_version for request in fleet.seen} == {5}


async def test_a_resumed_collector_asks_for_what_the_other_one_would_have() -> None:
    """The checkpoint holds a cursor, not a data loader."""
    broker = MemoryBroker()
    collector, fleet = _collector(broker, _sometimes), Fleet(broker)
    await _fill(collector, fleet)
    state = collector.state
    fleet.version, fleet.seen = 1, []
    await _fill(collector, fleet, version=1)
    went_on = [(request.group_id, request.seed) for request in fleet.seen]

    other_broker = MemoryBroker()
    other_fleet = Fleet(other_broker, version=1)
    await _fill(_collector(other_broker, _sometimes, state=state), other_fleet, version=1)
    assert [(request.group_id, request.seed) for request in other_fleet.seen] == went_on


async def test_nothing_arriving_is_an_error_that_says_what_to_look_at() -> None:
    collector = _collector(MemoryBroker(), _half)
    with pytest.raises(PeerUnavailable, match="3 requests are open and no group arrived for 1 s"):
        await collector.fill(0)


async def test_groups_nobody_asked_for_are_counted_and_forgotten() -> None:
    broker = MemoryBroker()
    queue = MemoryQueue(broker, consumer="x")
    await queue.ask([request("99.0-p")])
    (claim,) = await queue.claim(1, 0.0)
    await queue.deliver(claim, group("99.0-p"))
    collector = _collector(broker, _half)
    await _fill(collector, Fleet(broker))
    assert collector.counts["unexpected"] == 1
    assert (await queue.depths()).groups == 0


def test_an_epoch_holds_every_problem_once_in_an_order_of_its_own() -> None:
    sequence = ProblemSequence(PROBLEMS, seed=0)
    epochs = [[sequence[12 * epoch + place][0].problem_id for place in range(12)] for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(each.problem_id for each, _ in PROBLEMS)
    assert epochs[0] != epochs[1]


async def test_what_was_outside_the_band_rests_for_an_epoch_and_comes_back() -> None:
    """Half of the problems are all wrong. Each batch is filled by another life of the run, from the state before."""
    hard = {each.problem_id for each, _ in PROBLEMS[:6]}
    state = CollectorState()
    seen: list[set[str]] = []
    for _ in range(3):
        broker = MemoryBroker()
        collector = _collector(
            broker,
            lambda item: 0.0 if item.item_id.split("-", 1)[1].split("/")[0] in hard else _half(item),
            state=replace(state, kept_share=1.0, next_number=len(PROBLEMS) * len(seen)),
            prompts=6,
            filter={"rest_epochs": 1, "max_rounds": 2, "max_oversample": 1.0},
        )
        fleet = Fleet(broker)
        await _fill(collector, fleet)
        state = collector.state
        first_round = fleet.seen[:6]
        seen.append({asked.problem_id for asked in first_round})
        assert {asked.group_id.split(".")[0] for asked in first_round} <= {
            str(len(PROBLEMS) * (len(seen) - 1) + place) for place in range(len(PROBLEMS))
        }
    assert seen[0] & hard
    assert not seen[1] & seen[0] & hard
    assert seen[2] & seen[0] & hard


async def test_when_all_problems_rest_something_is_asked_all_the_same() -> None:
    broker = MemoryBroker()
    collector = _collector(broker, lambda item: 0.0, filter={"rest_epochs": 5, "max_rounds": 8})
    fleet = Fleet(broker)
    assert await _fill(collector, fleet) == []
    assert len(fleet.seen) > len(PROBLEMS)


def test_open_and_waiting_tickets_are_part_of_the_state() -> None:
    state = CollectorState(next_number=9, kept_share=0.5, unfinished=[Ticket(number=3, attempt=1)])
    collector = _collector(MemoryBroker(), _half, state=state)
    assert collector.state == state
