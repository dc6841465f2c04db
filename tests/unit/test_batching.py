"""The batcher: in turn, together, in bounded numbers; nothing accepted is lost."""

import asyncio
from collections.abc import Sequence

import pytest

from prime.errors import EngineError, InvalidInput, Overloaded
from prime.types import PrmGroup, TokenRewards
from services.prm.batching import BatchedRewards, Batcher, count_tokens


class EchoModel:
    """Rewards a token with its id; refuses a group that is called `bad`. Answers when it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.batches: list[list[str]] = []

    async def score(self, groups: Sequence[PrmGroup], *, reuse: bool = False) -> TokenRewards:
        self.batches.append([group.group_id for group in groups])
        await self.go.wait()
        if any(group.group_id == "bad" for group in groups):
            raise InvalidInput("a bad group")
        rows = tuple(tuple(map(float, response)) for group in groups for response in group.responses)
        return TokenRewards(
            rows=rows,
            prm_version=len(self.batches),
            beta=0.05,
            reference_id="r",
            reference_cached=tuple(reuse for _ in rows),
        )


def _group(name: str, *responses: tuple[int, ...], prompt: int = 2) -> PrmGroup:
    return PrmGroup(group_id=name, prompt_ids=(1,) * prompt, responses=responses or ((3, 4),))


async def _asked(batcher: Batcher, *groups: PrmGroup) -> "asyncio.Task[BatchedRewards]":
    task = asyncio.create_task(batcher.score(groups))
    await asyncio.sleep(0)
    return task


async def test_everybody_gets_the_rows_of_their_own_groups() -> None:
    model = EchoModel()
    batcher = Batcher(model, token_budget=100, max_waiting=10)
    model.go.set()
    answers = await asyncio.gather(
        batcher.score([_group("a", (3,), (4, 5))]),
        batcher.score([_group("b", (6,)), _group("c", (7, 8))]),
        batcher.score([_group("d", (9,))]),
    )
    rows = [answer.rewards.rows for answer in answers]
    assert rows == [((3.0,), (4.0, 5.0)), ((6.0,), (7.0, 8.0)), ((9.0,),)]
    assert [answer.rewards.reference_cached for answer in answers] == [(True, True), (True, True), (True,)]


async def test_what_comes_while_a_batch_is_scored_is_the_next_batch_up_to_the_budget() -> None:
    model = EchoModel()
    batcher = Batcher(model, token_budget=9, max_waiting=10)
    assert count_tokens([_group("x")]) == 4
    tasks = [await _asked(batcher, _group(name)) for name in ("first", "b", "c", "d", "e")]
    await asyncio.sleep(0)
    model.go.set()
    await asyncio.gather(*tasks)
    # The first goes at once; of the others two fit, four tokens each into nine.
    assert [len(batch) for batch in model.batches] == [1, 2, 2]


async def test_a_request_over_the_budget_is_scored_alone() -> None:
    model = EchoModel()
    batcher = Batcher(model, token_budget=5, max_waiting=10)
    model.go.set()
    big = batcher.score([_group("big", (3,) * 50)])
    _, answer = await asyncio.gather(batcher.score([_group("a")]), big)
    assert len(answer.rewards.rows[0]) == 50
    assert model.batches == [["a"], ["big"]]


async def test_beyond_capacity_requests_are_refused_and_those_accepted_are_answered() -> None:
    model = EchoModel()
    batcher = Batcher(model, token_budget=100, max_waiting=3)
    accepted = [await _asked(batcher, _group(str(number))) for number in range(3)]
    for _ in range(20):
        with pytest.raises(Overloaded, match="3 scoring requests wait already"):
            await batcher.score([_group("late")])
    assert batcher.unanswered == 3
    model.go.set()
    assert len(await asyncio.gather(*accepted)) == 3
    assert batcher.unanswered == 0
    assert (await batcher.score([_group("later")])).rewards.rows == ((3.0, 4.0),)


async def test_a_bad_request_costs_its_neighbours_nothing() -> None:
    model = EchoModel()
    batcher = Batcher(model, token_budget=100, max_waiting=10)
    tasks = [await _asked(batcher, _group(name)) for name in ("first", "good", "bad", "better")]
    model.go.set()
    first, good, bad, better = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(bad, InvalidInput)
    for answer in (first, good, better):
        assert isinstance(answer, BatchedRewards)
        assert answer.rewards.rows == ((3.0, 4.0),)


async def test_a_caller_that_left_is_not_scored_and_frees_its_place() -> None:
    model = EchoModel()
    batcher = Batcher(model, token_budget=100, max_waiting=2)
    first = await _asked(batcher, _group("first"))
    await asyncio.sleep(0)
    left = await _asked(batcher, _group("left"))
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    last = await _asked(batcher, _group("last"))
    model.go.set()
    await asyncio.gather(first, last)
    assert model.batches == [["first"], ["last"]]


async def test_a_broken_model_is_told_to_those_who_asked_and_the_next_call_is_served() -> None:
    class Broken(EchoModel):
        async def score(self, groups: Sequence[PrmGroup], *, reuse: bool = False) -> TokenRewards:
            if not self.batches:
                self.batches.append([])
                raise EngineError("out of memory")
            return await super().score(groups, reuse=reuse)

    model = Broken()
    model.go.set()
    batcher = Batcher(model, token_budget=100, max_waiting=2)
    with pytest.raises(EngineError, match="out of memory"):
        await batcher.score([_group("a")])
    assert (await batcher.score([_group("b")])).rewards.rows == ((3.0, 4.0),)
