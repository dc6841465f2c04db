"""Long answers are learnt from as often as short ones: the real collector on a clock that does not wait.

64 prompts a step, 4 samples each, lengths log-normal, 50 tokens a second and sample, 15 s for an update: what a review
measured with 20 to 35 % of the groups dropped, and three quarters of the longest tenth learnt from.
"""

import asyncio
import heapq
import itertools
import random
import selectors
from collections.abc import Sequence
from typing import Any

import pytest

from prime.ports import Claim, QueueDepths
from prime.types import FinishReason, RolloutFailure, RolloutGroup, RolloutRequest, Sample, VersionSpan
from services.trainer.collector import CollectorState, GroupCollector, ProblemSequence
from services.trainer.settings import TrainerSettings
from services.trainer.timeline import Timeline
from tests.builders import IdsTokenizer, ScriptedVerifier, problem

STEPS, PROMPTS, SAMPLES = 40, 64, 4
TOKENS_PER_SECOND, UPDATE_SECONDS = 50.0, 15.0


class _Instant(selectors.DefaultSelector):
    """Where others would sleep, the clock is set forward."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0 if timeout is None or timeout > 0 else timeout)
        if not found and timeout:
            self.now += timeout
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time passes only while everybody waits."""

    def __init__(self) -> None:
        self._instant = _Instant()
        super().__init__(self._instant)

    def time(self) -> float:
        return self._instant.now


class Sampler:
    """A queue and its replicas: every group is ready when its longest sample is, and new weights are used at once."""

    def __init__(self, *, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._flying: list[tuple[float, int, RolloutRequest, list[int], float]] = []
        """When a group will be ready, its number, what was asked, how long the samples are, when they began."""
        self._order = itertools.count()
        self._changes: list[float] = []
        """When each version after 0 came."""
        self.lengths: dict[int, int] = {}
        """Longest sample by ticket."""

    def new_weights(self) -> None:
        self._changes.append(asyncio.get_running_loop().time())

    async def ask(self, requests: Sequence[RolloutRequest]) -> None:
        for request in requests:
            ticket = int(request.group_id.split(".")[0])
            draw = random.Random(request.seed)
            lengths = [
                min(self._max_tokens, 1 + int(draw.lognormvariate(6.3, 1.0) * self._max_tokens / 3072))
                for _ in range(SAMPLES)
            ]
            self.lengths[ticket] = max(lengths)
            start = asyncio.get_running_loop().time()
            done = start + max(lengths) / TOKENS_PER_SECOND
            heapq.heappush(self._flying, (done, next(self._order), request, lengths, start))

    async def take(self, limit: int, timeout_s: float) -> list[Claim[RolloutGroup | RolloutFailure]]:
        loop = asyncio.get_running_loop()
        next_done = self._flying[0][0] if self._flying else loop.time() + timeout_s
        await asyncio.sleep(max(0.0, min(next_done - loop.time(), timeout_s)))
        claims: list[Claim[RolloutGroup | RolloutFailure]] = []
        while self._flying and self._flying[0][0] <= loop.time() and len(claims) < limit:
            _, number, request, lengths, start = heapq.heappop(self._flying)
            claims.append(Claim(entry_id=str(number), item=self._group(request, lengths, start), deliveries=1))
        return claims

    def _group(self, request: RolloutRequest, lengths: Sequence[int], start: float) -> RolloutGroup:
        return RolloutGroup(
            group_id=request.group_id,
            problem_id=request.problem_id,
            attempt=request.attempt,
            prompt_ids=request.prompt_ids,
            samples=tuple(self._sample(length, start) for length in lengths),
        )

    def _sample(self, length: int, start: float) -> Sample:
        """Its first token is of the version that it began with, the others of the one that it ended with."""
        first, last = (
            sum(change <= start + tokens / TOKENS_PER_SECOND for change in self._changes) for tokens in (0, length)
        )
        spans = (VersionSpan(version=first, length=1), VersionSpan(version=last, length=length - 1))
        return Sample(
            response_ids=(7,) * length,
            logprobs=(-1.0,) * length,
            spans=spans if length > 1 else spans[:1],
            finish_reason=FinishReason.STOP,
        )

    async def acknowledge(self, claims: Sequence[Claim[RolloutGroup | RolloutFailure]]) -> None:
        pass

    async def discard_all(self) -> int:
        return 0

    async def depths(self) -> QueueDepths:
        raise NotImplementedError


async def _train(sampler: Sampler, *, max_lag: int) -> tuple[list[int], float]:
    """Tickets learnt from, and how many groups were dropped per group used."""
    settings = {
        "problems": "x",
        "steps": 1,
        "prompts_per_step": PROMPTS,
        "samples_per_prompt": SAMPLES,
        "max_lag": max_lag,
        "filter": {"low": 0.0, "high": 1.0},
    }
    collector = GroupCollector(
        queue=sampler,
        verifier=ScriptedVerifier(lambda item: 1.0 if item.item_id.endswith("/0") else 0.0),
        problems=ProblemSequence([(problem(number), (10,)) for number in range(1000)], seed=0),
        tokenizer=IdsTokenizer(),
        settings=TrainerSettings.model_validate(settings),
        seed=0,
        state=CollectorState(),
    )
    await collector.start(lambda graded: None, Timeline())
    used, stale = [], 0
    for version in range(STEPS):
        batch = await collector.fill(version)
        assert len(batch) == PROMPTS
        used += [int(graded.group.group_id.split(".")[0]) for graded in batch]
        await asyncio.sleep(UPDATE_SECONDS)
        collector.advance(version + 1)
        sampler.new_weights()
        stale += int(collector.counts["stale"])
        collector.take_figures()
    await collector.close()
    return used, stale / len(used)


@pytest.mark.parametrize("max_tokens", [3072, 8192])
@pytest.mark.parametrize("max_lag", [1, 2])
def test_long_answers_are_learnt_from_as_often_as_short_ones(max_lag: int, max_tokens: int) -> None:
    sampler = Sampler(max_tokens=max_tokens)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        used, dropped = runner.run(_train(sampler, max_lag=max_lag))
    assert dropped < 0.01
    assert len(used) == len(set(used)), "no ticket is used twice"
    # Those that were asked for so early that even the longest had time to end.
    settled = [ticket for ticket in sampler.lengths if ticket < len(used) - (max_lag + 12) * PROMPTS]
    by_length = sorted(settled, key=lambda ticket: sampler.lengths[ticket])
    longest = by_length[-len(by_length) // 10 :]
    learnt = set(used)
    share_of_longest = sum(ticket in learnt for ticket in longest) / len(longest)
    share_of_all = sum(ticket in learnt for ticket in settled) / len(settled)
    assert share_of_longest == share_of_all == 1.0
