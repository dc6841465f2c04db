"""The batcher: in turn, together, in bounded numbers; nothing accepted is lost."""

import asyncio
import random
from collections.abc import Sequence

import pytest

from prime.errors import EngineError, InvalidInput, Overloaded
from prime.types import PrmGroup, TokenRewards, TokenSpan
from services.prm.batching import BatchedRewards, Batcher, count_tokens, parts_of
from services.prm.callers import Caller, calling


class EchoModel:
    """Rewards a token with its id; refuses a group that is called `bad`. Answers when it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.batches: list[list[str]] = []
        self.tokens: list[int] = []
        self.version = 1

    async def score(self, groups: Sequence[PrmGroup], *, reuse: bool = False) -> TokenRewards:
        self.batches.append([group.group_id for group in groups])
        self.tokens.append(count_tokens(groups))
        version = self.version
        await self.go.wait()
        if any(group.group_id == "bad" for group in groups):
            raise InvalidInput("a bad group")
        rows = tuple(tuple(map(float, response)) for group in groups for response in group.responses)
        return TokenRewards(
            rows=rows,
            prm_version=version,
            beta=0.05,
            reference_id="r",
            reference_cached=tuple(reuse for _ in rows),
        )


class SlowModel(EchoModel):
    """One whose passes let others run in between."""

    async def score(self, groups: Sequence[PrmGroup], *, reuse: bool = False) -> TokenRewards:
        await asyncio.sleep(0)
        return await super().score(groups, reuse=reuse)


def _group(name: str, *responses: tuple[int, ...], prompt: int = 2) -> PrmGroup:
    return PrmGroup(group_id=name, prompt_ids=(1,) * prompt, responses=responses or ((3, 4),))


async def _asked(batcher: Batcher, *groups: PrmGroup) -> "asyncio.Task[BatchedRewards]":
    task = asyncio.create_task(_score(batcher, *groups))
    await asyncio.sleep(0)
    return task


async def _score(batcher: Batcher, *groups: PrmGroup) -> BatchedRewards:
    with batcher.place():
        return await batcher.score(groups)


async def _asked_by(caller: Caller, batcher: Batcher, *groups: PrmGroup) -> "asyncio.Task[BatchedRewards]":
    with calling(caller):
        return await _asked(batcher, *groups)


def _passes(name: str, count: int) -> PrmGroup:
    """A group that is computed in so many passes of 10 tokens."""
    return _group(name, *[(1,) * 8] * count)


async def test_everybody_gets_the_rows_of_their_own_groups() -> None:
    model = EchoModel()
    batcher = Batcher(model, token_budget=100, max_waiting=10)
    model.go.set()
    answers = await asyncio.gather(
        _score(batcher, _group("a", (3,), (4, 5))),
        _score(batcher, _group("b", (6,)), _group("c", (7, 8))),
        _score(batcher, _group("d", (9,))),
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
    big = _score(batcher, _group("big", (3,) * 50))
    _, answer = await asyncio.gather(_score(batcher, _group("a")), big)
    assert len(answer.rewards.rows[0]) == 50
    assert model.batches == [["a"], ["big"]]


async def test_beyond_capacity_requests_are_refused_and_those_accepted_are_answered() -> None:
    model = EchoModel()
    batcher = Batcher(model, token_budget=100, max_waiting=3)
    accepted = [await _asked(batcher, _group(str(number))) for number in range(3)]
    for _ in range(20):
        with pytest.raises(Overloaded, match="3 scoring requests wait already"):
            await _score(batcher, _group("late"))
    assert batcher.unanswered == 3
    model.go.set()
    assert len(await asyncio.gather(*accepted)) == 3
    assert batcher.unanswered == 0
    assert (await _score(batcher, _group("later"))).rewards.rows == ((3.0, 4.0),)


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
        await _score(batcher, _group("a"))
    assert (await _score(batcher, _group("b"))).rewards.rows == ((3.0, 4.0),)


async def test_a_long_request_is_computed_in_parts_and_a_short_one_waits_for_one_of_them() -> None:
    model = EchoModel()
    batcher = Batcher(model, token_budget=10, max_waiting=10)
    # A prompt of 2 and four responses of 4: two of them to a part.
    long = await _asked(batcher, _group("long", (1,) * 4, (2,) * 4, (3,) * 4, (4,) * 4))
    await asyncio.sleep(0)
    short = await _asked(batcher, _group("short", (9,)))
    model.go.set()
    answers = await asyncio.gather(long, short)
    assert model.batches == [["long"], ["short"], ["long"]]
    assert [row[0] for row in answers[0].rewards.rows] == [1.0, 2.0, 3.0, 4.0]
    assert answers[0].rewards.reference_cached == (True,) * 4
    assert answers[1].rewards.rows == ((9.0,),)


async def test_two_long_requests_take_turns() -> None:
    model = EchoModel()
    batcher = Batcher(model, token_budget=10, max_waiting=10)
    tasks = [await _asked(batcher, _group(name, *[(1,) * 8] * 3)) for name in ("a", "b")]
    model.go.set()
    await asyncio.gather(*tasks)
    assert model.batches == [["a"], ["b"], ["a"], ["b"], ["a"], ["b"]]


async def test_short_requests_that_keep_coming_do_not_hold_up_a_long_one() -> None:
    model = EchoModel()
    model.go.set()
    batcher = Batcher(model, token_budget=10, max_waiting=10)
    long = await _asked(batcher, _group("long", *[(1,) * 8] * 5))
    rounds = 0
    while not long.done():
        rounds += 1
        await asyncio.gather(*(_score(batcher, _group(f"short {number}", (1,) * 8)) for number in range(3)))
    # Of four callers each has one of four passes.
    assert rounds <= 6


async def test_short_requests_that_come_one_by_one_do_not_starve_a_long_one_of_the_same_key() -> None:
    model = SlowModel()
    model.go.set()
    batcher = Batcher(model, token_budget=10, max_waiting=10)
    long = await _asked(batcher, _passes("long", 5))
    asked = 0

    async def keep_asking(delay: int) -> None:
        nonlocal asked
        for _ in range(delay):
            await asyncio.sleep(0)
        while not long.done() and asked < 200:
            asked += 1
            await batcher.score([_passes("short", 1)])

    await asyncio.gather(*map(keep_asking, range(3)))
    # Of four requests that are open each has about a fourth of the passes.
    assert long.done()
    assert asked <= 20


async def test_a_key_with_many_requests_gets_as_much_as_a_key_with_one() -> None:
    model = EchoModel()
    batcher = Batcher(model, token_budget=10, max_waiting=100)
    many = [await _asked_by(Caller(name="many"), batcher, _passes("many", 2)) for _ in range(40)]
    one = await _asked_by(Caller(name="one"), batcher, _passes("one", 10))
    model.go.set()
    await one
    passes = [batch[0] for batch in model.batches]
    # A pass was under way when it came; from then on every second one is its own.
    assert passes[:21] == ["many", *["one", "many"] * 10]
    await asyncio.gather(*many)
    assert len(model.batches) == 90


async def test_twice_the_share_is_twice_the_tokens() -> None:
    model = EchoModel()
    batcher = Batcher(model, token_budget=10, max_waiting=100)
    double, single = Caller(name="double", share=2.0), Caller(name="single")
    tasks = [await _asked_by(caller, batcher, _passes(caller.name, 30)) for caller in (double, single)]
    model.go.set()
    await tasks[0]
    passes = [batch[0] for batch in model.batches]
    for end in (6, 15, 30, 45):
        assert abs(passes[:end].count("double") - 2 * passes[:end].count("single")) <= 2
    await tasks[1]
    assert len(model.batches) == 60


async def test_a_key_has_no_credit_for_the_time_in_which_it_asked_nothing() -> None:
    model = SlowModel()
    batcher = Batcher(model, token_budget=10, max_waiting=100)
    steady, late = Caller(name="steady"), Caller(name="late")
    tasks = [await _asked_by(steady, batcher, _passes("steady", 40))]
    model.go.set()
    while len(model.batches) < 10:
        await asyncio.sleep(0)
    tasks.append(await _asked_by(late, batcher, _passes("late", 20)))
    await asyncio.gather(*tasks)
    after = [batch[0] for batch in model.batches][12:30]
    assert after.count("late") == after.count("steady")


async def test_an_urgent_request_goes_before_all_others_and_does_not_starve_them() -> None:
    model = EchoModel()
    batcher = Batcher(model, token_budget=10, max_waiting=100)
    normal = [await _asked_by(Caller(name=name), batcher, _passes("normal", 10)) for name in "abc"]
    urgent = await _asked_by(Caller(name="u", is_urgent=True), batcher, _passes("urgent", 20))
    model.go.set()
    await asyncio.gather(urgent, *normal)
    passes = [batch[0] for batch in model.batches]
    # After the pass that was under way it is always four urgent ones and a normal one.
    assert passes[:2] == ["normal", "urgent"]
    for start in range(2, 17):
        assert passes[start : start + 5].count("urgent") == 4
    assert passes.count("normal") == 30


async def test_one_key_does_not_fill_the_places_of_another() -> None:
    model = EchoModel()
    batcher = Batcher(model, token_budget=100, max_waiting=2)
    greedy, modest = Caller(name="greedy"), Caller(name="modest")
    tasks = [await _asked_by(greedy, batcher, _group("a")) for _ in range(2)]
    with calling(greedy), pytest.raises(Overloaded, match="2 scoring requests wait already"):
        await _score(batcher, _group("a"))
    tasks.append(await _asked_by(modest, batcher, _group("b")))
    model.go.set()
    assert len(await asyncio.gather(*tasks)) == 3


async def test_short_requests_are_computed_beside_long_ones_and_each_lane_keeps_its_turns() -> None:
    model = EchoModel()
    batcher = Batcher(model, token_budget=10, max_waiting=100, short_tokens=4)
    long = await _asked(batcher, _group("long", (5,) * 8, (6,) * 8))
    short = [await _asked(batcher, _group(name)) for name in ("a", "b", "c")]
    await asyncio.sleep(0.01)
    # Two passes are under way: the first part of the long one, and one short request; two would not fit beside it.
    assert model.batches == [["long"], ["a"]]
    model.go.set()
    assert [len((await each).rewards.rows) for each in (*short, long)] == [1, 1, 1, 2]
    assert ["long", "a"] not in model.batches
    # Without a long one beside them short requests share passes.
    model.go.clear()
    model.batches.clear()
    several = [await _asked(batcher, _group(name)) for name in "abc"]
    await asyncio.sleep(0.01)
    model.go.set()
    await asyncio.gather(*several)
    assert model.batches == [["a"], ["b", "c"]]


async def test_a_caller_that_leaves_half_way_is_computed_no_further() -> None:
    model = EchoModel()
    batcher = Batcher(model, token_budget=10, max_waiting=10)
    long = await _asked(batcher, _group("long", *[(1,) * 8] * 50))
    await asyncio.sleep(0)
    long.cancel()
    await asyncio.gather(long, return_exceptions=True)
    assert batcher.unanswered == 0
    model.go.set()
    await _score(batcher, _group("next"))
    assert model.batches == [["long"], ["next"]]


async def test_all_rows_of_a_request_are_of_one_version_though_the_prm_learns_between_its_parts() -> None:
    class Learning(EchoModel):
        async def score(self, groups: Sequence[PrmGroup], *, reuse: bool = False) -> TokenRewards:
            self.version += 1
            return await super().score(groups, reuse=reuse)

    model = Learning()
    model.go.set()
    batcher = Batcher(model, token_budget=10, max_waiting=10)
    answer = await _score(batcher, _group("long", (1,) * 8, (2,) * 8))
    # Twice for its parts, and once for both.
    assert model.batches == [["long"], ["long"], ["long", "long"]]
    assert answer.rewards.prm_version == 4
    assert [row[0] for row in answer.rewards.rows] == [1.0, 2.0]


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_comes_and_goes_everybody_who_stays_gets_their_rows(seed: int) -> None:
    draw = random.Random(seed)
    model = EchoModel()
    model.go.set()
    batcher = Batcher(model, token_budget=20, max_waiting=100, short_tokens=6 * (seed % 2))

    async def ask() -> None:
        await asyncio.sleep(0.001 * draw.randint(0, 5))
        groups = [
            _group(str(seed), *[(draw.randint(1, 9),) * draw.randint(1, 30) for _ in range(draw.randint(1, 6))])
            for _ in range(draw.randint(1, 3))
        ]
        asked = asyncio.create_task(batcher.score(groups))
        if draw.random() < 0.3:
            await asyncio.sleep(0.001 * draw.random())
            asked.cancel()
        [answer] = await asyncio.gather(asked, return_exceptions=True)
        if isinstance(answer, BatchedRewards):
            expected = tuple(tuple(map(float, response)) for group in groups for response in group.responses)
            assert answer.rewards.rows == expected
        else:
            assert isinstance(answer, asyncio.CancelledError)

    await asyncio.gather(*(ask() for _ in range(40)))
    assert batcher.unanswered == 0
    # Over the budget is only what cannot be cut: one response with its prompt.
    for batch, tokens in zip(model.batches, model.tokens, strict=True):
        assert tokens <= (32 if len(batch) == 1 else 20)


def test_a_group_is_cut_between_responses_with_what_belongs_to_them() -> None:
    group = PrmGroup(
        group_id="a",
        prompt_ids=(1, 2),
        responses=((3,) * 3, (4,) * 3, (5,) * 3),
        reference_logprobs=((0.3,) * 3, (0.4,) * 3, (0.5,) * 3),
        observed=((), (TokenSpan(start=0, length=1),), ()),
    )
    first, second = parts_of(group, token_budget=8)
    assert (first.responses, second.responses) == (group.responses[:2], group.responses[2:])
    assert (first.reference_logprobs, second.reference_logprobs) == (
        group.reference_logprobs[:2],
        group.reference_logprobs[2:],
    )
    assert (first.observed, second.observed) == (group.observed[:2], group.observed[2:])
    assert list(parts_of(group, token_budget=11)) == [group]
