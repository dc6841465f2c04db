"""Shares the model between callers: requests are cut into parts of a forward pass, and take turns.

Between the scoring use case, which asks for one prompt's candidates at a time, and the reward model, which takes
groups as they come. Short requests have a lane of their own: their passes run beside those of the long ones, where the
reward model computes two at a time.

Turns are those of start-time fair queueing (Goyal et al., SIGCOMM 1996) on three levels: urgent requests and others, in
each the keys, of each key its requests. On every level a line is stamped with the tokens that it was given, divided by
its share, and the smallest stamp is next. A line that comes, or comes again, is stamped no earlier than its level's
clock, so nothing is saved up while idle. Hence

* a request waits for the pass of its lane that is under way and not for the queue, and a long one goes on between
  others;
* a key with 40 requests gets as much as one with a single request, each by its share;
* while both kinds wait, four of five tokens are of urgent requests, and the fifth is not.

What a client that has gone was waiting for is not computed further than the pass that is under way.
"""

import asyncio
import itertools
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from prime.errors import Overloaded, PrimeError
from prime.types import PrmGroup, TokenRewards
from services.prm.callers import Caller, current_caller

_URGENT_SHARE = 4.0
"""Of an urgent request's tokens to those of others, while both wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchedRewards:
    """One caller's rewards: `BatchedRewards(rewards=..., queue_seconds=0.004, inference_seconds=0.11)`."""

    rewards: TokenRewards
    queue_seconds: float
    """In which nothing of the request was computed."""
    inference_seconds: float


class TokenScorer(Protocol):
    """Token rewards for groups, in turn with everybody else's."""

    def place(self) -> AbstractContextManager[None]:
        """A place for a request, from before it is encoded until it is answered.

        Raises:
            Overloaded: too many requests of this caller have one already.
        """

    async def score(self, groups: Sequence[PrmGroup]) -> BatchedRewards:
        """Rows of all groups in order, from one PRM version."""


class RewardScorer(Protocol):
    """The part of `ports.RewardModel` that a batcher needs."""

    async def score(self, groups: Sequence[PrmGroup], *, reuse: bool = False) -> TokenRewards:
        """Token rewards of every sample, all from one PRM version; with `reuse`, from kept reference log-probs."""


@dataclass(eq=False, slots=True, kw_only=True)
class _Line:
    """One of several that take turns, and the clock of those that take turns inside it.

    Example: of the lines with stamps 10 and 20 the first is next; after 30 tokens with a share of 2 it is at 25.
    """

    number: int
    """Of equal stamps the smaller number is first."""
    share: float = 1.0
    stamp: float = 0.0
    """Tokens given, divided by the share."""
    clock: float = 0.0
    """The earliest stamp of whoever comes."""

    @property
    def turn(self) -> tuple[float, int]:
        """Who has the smallest is next."""
        return self.stamp, self.number

    def join(self, level: "_Line") -> None:
        """Take part in the turns of a level; what was not used before is not made up for."""
        self.stamp = max(self.stamp, level.clock)

    def take(self, tokens: int, level: "_Line") -> None:
        """Be served."""
        level.clock = max(level.clock, self.stamp)
        self.stamp += tokens / self.share


@dataclass(eq=False, slots=True, kw_only=True)
class _Request:
    """What one caller waits for, and how far it is."""

    parts: Sequence[PrmGroup]
    answer: "asyncio.Future[BatchedRewards]"
    lines: tuple[_Line, _Line, _Line, _Line]
    """The root, the urgency, the key, and its own."""
    is_short: bool
    since: float = field(default_factory=time.perf_counter)
    missing: deque[int] = field(default_factory=deque)
    """Parts without rewards, by number."""
    found: dict[int, TokenRewards] = field(default_factory=dict)
    at_once: bool = False
    """Whether all parts are of one call: the PRM learnt something between two parts before."""
    inference_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.missing.extend(range(len(self.parts)))

    @property
    def is_waiting(self) -> bool:
        """Whether there is something to compute for it."""
        return bool(self.missing) and not self.answer.done()

    @property
    def key(self) -> _Line:
        """The line of its key."""
        return self.lines[2]

    @property
    def turn(self) -> list[tuple[float, int]]:
        """Who has the smallest is next: numbers are unique on a level, so the first level decides first."""
        return [line.turn for line in self.lines[1:]]

    def take(self, tokens: int) -> None:
        """Be served, on all levels."""
        for level, line in itertools.pairwise(self.lines):
            line.take(tokens, level)

    def next_parts(self) -> list[int]:
        """What is to be computed in its next turn."""
        return list(self.missing) if self.at_once else [self.missing[0]]

    def start_again(self) -> None:
        """All parts anew, and in one call, between whose parts nothing is learnt."""
        self.found, self.at_once = {}, True
        self.missing.extend(range(len(self.parts)))

    def rewards(self) -> TokenRewards:
        """Of all parts, in order."""
        parts = [self.found[part] for part in range(len(self.parts))]
        return replace(
            parts[0],
            rows=tuple(itertools.chain.from_iterable(part.rows for part in parts)),
            reference_cached=tuple(itertools.chain.from_iterable(part.reference_cached for part in parts)),
        )


_Turn = tuple[_Request, int]
"""A request, and the number of one of its parts."""


class Batcher:
    """A `TokenScorer` over a reward model: in turns of `token_budget` tokens.

    Nobody waits for company: a pass takes whatever came while the one before was computed.
    """

    def __init__(
        self, reward_model: RewardScorer, *, token_budget: int, max_waiting: int, short_tokens: int = 0
    ) -> None:
        """`short_tokens`: of a request that goes into the lane of the short ones; 0: there is one lane."""
        self._reward_model = reward_model
        self._token_budget = token_budget
        self._max_waiting = max_waiting
        self._short_tokens = min(short_tokens, token_budget)
        self._places: Counter[str] = Counter()
        """Taken, by caller."""
        self._open: list[_Request] = []
        self._numbers = itertools.count()
        self._root = _Line(number=0)
        self._lines: dict[tuple[bool, str], _Line] = {}
        """By urgency and key; those of the urgencies themselves have no key."""
        self._workers: dict[bool, asyncio.Task[None]] = {}
        """Of the lanes in which something is computed: of the short requests (True) and of the others."""

    @property
    def unanswered(self) -> int:
        """Requests accepted and not yet answered."""
        return self._places.total()

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of `max_waiting` places that a caller has.

        Raises:
            Overloaded: all of them are taken by requests that are accepted and not yet answered.
        """
        name = current_caller().name
        waiting = self._places[name]
        if waiting >= self._max_waiting:
            raise Overloaded(
                f"{waiting} scoring requests wait already (setting `prm.api.max_waiting`, per key); try again later"
            )
        self._places[name] += 1
        try:
            yield
        finally:
            self._places[name] -= 1

    async def score(self, groups: Sequence[PrmGroup]) -> BatchedRewards:
        """Rows of all groups in order, from one PRM version."""
        caller = current_caller()
        request = _Request(
            parts=[part for group in groups for part in parts_of(group, token_budget=self._token_budget)],
            answer=asyncio.get_running_loop().create_future(),
            lines=self._lines_of(caller),
            is_short=count_tokens(groups) <= self._short_tokens,
        )
        self._open.append(request)
        if request.is_short not in self._workers:
            self._workers[request.is_short] = asyncio.create_task(self._work(request.is_short))
        try:
            return await request.answer
        finally:
            # Answered, or its caller has gone.
            self._open.remove(request)

    def _lines_of(self, caller: Caller) -> tuple[_Line, _Line, _Line, _Line]:
        """Where a request of this caller waits."""
        share = _URGENT_SHARE if caller.is_urgent else 1.0
        urgency = self._lines.setdefault(
            (caller.is_urgent, ""), _Line(number=0 if caller.is_urgent else 1, share=share)
        )
        key = self._lines.setdefault((caller.is_urgent, caller.name), _Line(number=next(self._numbers)))
        key.share = caller.share
        lines = self._root, urgency, key, _Line(number=next(self._numbers))
        for level, line in itertools.pairwise(lines):
            line.join(level)
        return lines

    async def _work(self, is_short: bool) -> None:
        """Compute what waits in a lane, until nothing does."""
        try:
            while turns := self._next_turns(is_short):
                await self._serve(turns)
                self._move_clocks(turns)
        finally:
            del self._workers[is_short]
            if not self._workers:
                # Nobody waits: whoever comes next begins level with the others.
                self._root = _Line(number=0)
                self._lines.clear()

    def _move_clocks(self, turns: Sequence[_Turn]) -> None:
        """What a key was given has passed for all of its requests: were each new one stamped as the one served last,
        new ones would go before old ones for ever. Keys need no such clock: their lines stay.
        """
        for request, part in turns:
            open_ones = sum(each.key is request.key for each in self._open)
            request.key.clock += count_tokens([request.parts[part]]) / max(open_ones, 1)

    def _next_turns(self, is_short: bool) -> list[_Turn]:
        """Parts of one pass of a lane, the smallest stamps first."""
        turns: list[_Turn] = []
        used = 0
        # Beside a long pass a short one stays short; alone it may be as large as any.
        budget = self._short_tokens if is_short and len(self._workers) > 1 else self._token_budget
        while waiting := [each for each in self._open if each.is_short is is_short and each.is_waiting]:
            request = min(waiting, key=lambda each: each.turn)
            parts = request.next_parts()
            tokens = count_tokens([request.parts[part] for part in parts])
            if turns and used + tokens > budget:
                break
            for part in parts:
                request.missing.remove(part)
                turns.append((request, part))
            used += tokens
            request.take(tokens)
        return turns

    async def _serve(self, turns: Sequence[_Turn]) -> None:
        started = time.perf_counter()
        try:
            rewards = await self._reward_model.score([request.parts[part] for request, part in turns], reuse=True)
        except Exception as error:  # noqa: BLE001  whatever it is belongs to those who asked, not to this task
            await self._serve_each(turns, error)
            return
        seconds = time.perf_counter() - started
        for request in {id(request): request for request, _ in turns}.values():
            request.inference_seconds += seconds
        for (request, part), own in zip(turns, _own_rows(rewards, turns), strict=True):
            request.found[part] = own
        for request, _ in turns:
            if not request.missing and not request.answer.done():
                _finish(request)

    async def _serve_each(self, turns: Sequence[_Turn], error: Exception) -> None:
        """One request's fault is not its neighbours': each part is asked for alone."""
        if len(turns) > 1 and isinstance(error, PrimeError) and not error.retryable:
            for turn in turns:
                await self._serve([turn])
            return
        for request, _ in turns:
            if not request.answer.done():
                request.answer.set_exception(error)


def _finish(request: _Request) -> None:
    if len({rewards.prm_version for rewards in request.found.values()}) > 1:
        request.start_again()
        return
    waited = time.perf_counter() - request.since - request.inference_seconds
    request.answer.set_result(
        BatchedRewards(
            rewards=request.rewards(), queue_seconds=max(waited, 0.0), inference_seconds=request.inference_seconds
        )
    )


def parts_of(group: PrmGroup, *, token_budget: int) -> Iterator[PrmGroup]:
    """A group in parts of at most so many tokens, each with the prompt; a response that is longer has one of its own.

    Example: a prompt of 2 tokens and responses of 3, 3 and 3 with a budget of 8 are the first two, and the third.
    """
    start, used = 0, len(group.prompt_ids)
    for number, response in enumerate(group.responses):
        if number > start and used + len(response) > token_budget:
            yield _part(group, start, number)
            start, used = number, len(group.prompt_ids)
        used += len(response)
    yield _part(group, start, len(group.responses))


def _part(group: PrmGroup, start: int, end: int) -> PrmGroup:
    if start == 0 and end == len(group.responses):
        return group
    return replace(
        group,
        responses=group.responses[start:end],
        reference_logprobs=group.reference_logprobs[start:end],
        observed=group.observed[start:end],
    )


def count_tokens(groups: Sequence[PrmGroup]) -> int:
    """What has to be computed: every prompt once, and all responses."""
    return sum(group.num_tokens for group in groups)


def _own_rows(rewards: TokenRewards, turns: Sequence[_Turn]) -> Iterator[TokenRewards]:
    start = 0
    for request, part in turns:
        end = start + len(request.parts[part].responses)
        yield replace(rewards, rows=rewards.rows[start:end], reference_cached=rewards.reference_cached[start:end])
        start = end
