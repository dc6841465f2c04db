"""Lets many callers share forward passes: requests that wait together are scored together, in bounded numbers.

Between the scoring use case, which asks for one prompt's candidates at a time, and the reward model, which takes
groups as they come and lets one call in at a time.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from prime.errors import Overloaded, PrimeError
from prime.types import PrmGroup, TokenRewards


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchedRewards:
    """One caller's share of a batch: `BatchedRewards(rewards=..., queue_seconds=0.004, inference_seconds=0.11)`."""

    rewards: TokenRewards
    queue_seconds: float
    inference_seconds: float


class TokenScorer(Protocol):
    """Token rewards for groups, in turn with everybody else's."""

    async def score(self, groups: Sequence[PrmGroup]) -> BatchedRewards:
        """Rows of all groups in order, from one PRM version.

        Raises:
            Overloaded: too many requests wait already.
        """


class RewardScorer(Protocol):
    """The part of `ports.RewardModel` that a batcher needs."""

    async def score(self, groups: Sequence[PrmGroup], *, reuse: bool = False) -> TokenRewards:
        """Token rewards of every sample, all from one PRM version; with `reuse`, from kept reference log-probs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    """One caller's groups."""

    groups: Sequence[PrmGroup]
    num_tokens: int
    answer: "asyncio.Future[BatchedRewards]"
    since: float = field(default_factory=time.perf_counter)


class Batcher:
    """A `TokenScorer` over a reward model: first come, first served, up to `token_budget` tokens a batch.

    Nobody waits for company: a batch is whatever came while the one before was scored.
    """

    def __init__(self, reward_model: RewardScorer, *, token_budget: int, max_waiting: int) -> None:
        self._reward_model = reward_model
        self._token_budget = token_budget
        self._max_waiting = max_waiting
        self._queue: deque[_Waiting] = deque()
        self._worker: asyncio.Task[None] | None = None
        self.unanswered = 0
        """Requests accepted and not yet answered."""

    async def score(self, groups: Sequence[PrmGroup]) -> BatchedRewards:
        """Rows of all groups in order, from one PRM version.

        Raises:
            Overloaded: `max_waiting` requests are accepted and not yet answered.
        """
        if self.unanswered >= self._max_waiting:
            raise Overloaded(
                f"{self.unanswered} scoring requests wait already (setting `prm.api.max_waiting`); try again later"
            )
        waiting = _Waiting(
            groups=groups, num_tokens=count_tokens(groups), answer=asyncio.get_running_loop().create_future()
        )
        self._queue.append(waiting)
        self.unanswered += 1
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        try:
            return await waiting.answer
        finally:
            self.unanswered -= 1

    async def _work(self) -> None:
        try:
            while batch := self._next_batch():
                await self._answer(batch)
        finally:
            self._worker = None

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        used = 0
        while self._queue:
            if batch and used + self._queue[0].num_tokens > self._token_budget:
                break
            waiting = self._queue.popleft()
            if waiting.answer.done():  # whoever asked has gone
                continue
            batch.append(waiting)
            used += waiting.num_tokens
        return batch

    async def _answer(self, batch: Sequence[_Waiting]) -> None:
        started = time.perf_counter()
        try:
            groups = [group for waiting in batch for group in waiting.groups]
            rewards = await self._reward_model.score(groups, reuse=True)
        except Exception as error:  # noqa: BLE001  whatever it is belongs to those who asked, not to this task
            await self._answer_each(batch, error)
            return
        seconds = time.perf_counter() - started
        for waiting, part in zip(batch, _parts(rewards, batch), strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(
                    BatchedRewards(rewards=part, queue_seconds=started - waiting.since, inference_seconds=seconds)
                )

    async def _answer_each(self, batch: Sequence[_Waiting], error: Exception) -> None:
        """One request's fault is not its neighbours': each is asked for alone."""
        if len(batch) > 1 and isinstance(error, PrimeError) and not error.retryable:
            for waiting in batch:
                await self._answer([waiting])
            return
        for waiting in batch:
            if not waiting.answer.done():
                waiting.answer.set_exception(error)


def count_tokens(groups: Sequence[PrmGroup]) -> int:
    """What has to be computed: every prompt once, and all responses."""
    return sum(len(group.prompt_ids) + sum(map(len, group.responses)) for group in groups)


def _parts(rewards: TokenRewards, batch: Sequence[_Waiting]) -> Iterator[TokenRewards]:
    start = 0
    for waiting in batch:
        end = start + sum(len(group.responses) for group in waiting.groups)
        yield TokenRewards(
            rows=rewards.rows[start:end],
            prm_version=rewards.prm_version,
            beta=rewards.beta,
            reference_id=rewards.reference_id,
            reference_cached=rewards.reference_cached[start:end],
        )
        start = end
