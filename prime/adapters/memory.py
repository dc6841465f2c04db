"""In-memory twins of the ports: for tests, for one-process runs, and as the shortest description of each contract."""

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prime import tracing
from prime.ports import Claim, QueueDepths
from prime.tracking import Outcome, TrackedRun, evaluation_figures, step_figures
from prime.types import RolloutFailure, RolloutGroup, RolloutRequest


@dataclass
class _Held:
    request: RolloutRequest
    trace: str
    holder: str | None = None
    lapses_at: float = 0.0
    deliveries: int = 0


@dataclass
class _Result:
    item: RolloutGroup | RolloutFailure
    trace: str
    taken: bool = False


class MemoryBroker:
    """What Redis holds for one run: requests under leases, results, dead letters. Queues of one run share it."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.requests: dict[str, _Held] = {}
        self.results: dict[str, _Result] = {}
        self.dead: list[tuple[RolloutRequest, str]] = []
        self.numbers = itertools.count(1)


class MemoryQueue:
    """`ports.RolloutQueue` and `ports.RequestQueue` over a `MemoryBroker`; the twin of `RedisQueue`."""

    def __init__(
        self, broker: MemoryBroker, *, consumer: str, lease_seconds: float = 30.0, delivery_limit: int = 5
    ) -> None:
        self._broker = broker
        self._consumer = consumer
        self._lease_s = lease_seconds
        self._delivery_limit = delivery_limit

    async def ask(self, requests: Sequence[RolloutRequest]) -> None:
        """Append all requests."""
        for request in requests:
            self._broker.requests[f"{next(self._broker.numbers)}-0"] = _Held(request, tracing.current())

    async def take(self, limit: int, timeout_s: float) -> list[Claim[RolloutGroup | RolloutFailure]]:
        """Up to `limit` results nobody took yet."""

        def fresh() -> list[str]:
            return [entry_id for entry_id, result in self._broker.results.items() if not result.taken][:limit]

        await self._wait_for(fresh, timeout_s)
        claims = []
        for entry_id in fresh():
            result = self._broker.results[entry_id]
            result.taken = True
            claims.append(Claim(entry_id=entry_id, item=result.item, deliveries=1, trace=result.trace))
        return claims

    async def acknowledge(self, claims: Sequence[Claim[RolloutGroup | RolloutFailure]]) -> None:
        """Forget results."""
        for claim in claims:
            self._broker.results.pop(claim.entry_id, None)

    async def discard_all(self) -> int:
        """Drop everything but the dead letters."""
        dropped = len(self._broker.requests) + len(self._broker.results)
        self._broker.requests.clear()
        self._broker.results.clear()
        return dropped

    async def depths(self) -> QueueDepths:
        """How much lies where."""
        return QueueDepths(
            requests=len(self._broker.requests), groups=len(self._broker.results), dead=len(self._broker.dead)
        )

    async def claim(self, limit: int, timeout_s: float) -> list[Claim[RolloutRequest]]:
        """Lapsed leases first, then requests nobody held."""

        def free() -> list[str]:
            now = self._broker.clock()
            held = self._broker.requests.items()
            lapsed = [entry_id for entry_id, entry in held if entry.holder is not None and entry.lapses_at <= now]
            return (lapsed + [entry_id for entry_id, entry in held if entry.holder is None])[:limit]

        await self._wait_for(free, timeout_s)
        claims = []
        for entry_id in free():
            entry = self._broker.requests[entry_id]
            entry.holder = self._consumer
            entry.lapses_at = self._broker.clock() + self._lease_s
            entry.deliveries += 1
            claim = Claim(entry_id=entry_id, item=entry.request, deliveries=entry.deliveries, trace=entry.trace)
            if entry.deliveries > self._delivery_limit:
                await self.refuse(claim, f"given up after {self._delivery_limit} deliveries without an answer")
                continue
            claims.append(claim)
        return claims

    async def renew(self, claims: Sequence[Claim[RolloutRequest]]) -> None:
        """Start the leases anew."""
        for claim in claims:
            if claim.entry_id in self._broker.requests:
                self._broker.requests[claim.entry_id].lapses_at = self._broker.clock() + self._lease_s

    async def deliver(self, claim: Claim[RolloutRequest], group: RolloutGroup) -> bool:
        """Answer a request, unless it was answered."""
        if self._broker.requests.pop(claim.entry_id, None) is None:
            return False
        self._broker.results[f"{next(self._broker.numbers)}-0"] = _Result(group, tracing.current())
        return True

    async def refuse(self, claim: Claim[RolloutRequest], reason: str) -> None:
        """Give a request up for good."""
        if self._broker.requests.pop(claim.entry_id, None) is None:
            return
        self._broker.dead.append((claim.item, reason))
        failure = RolloutFailure(group_id=claim.item.group_id, problem_id=claim.item.problem_id, reason=reason)
        self._broker.results[f"{next(self._broker.numbers)}-0"] = _Result(failure, tracing.current())

    async def give_back(self, claims: Sequence[Claim[RolloutRequest]]) -> None:
        """Let the leases lapse now."""
        for claim in claims:
            if claim.entry_id in self._broker.requests:
                entry = self._broker.requests[claim.entry_id]
                entry.lapses_at = self._broker.clock()
                entry.deliveries = claim.deliveries - 1

    async def give_back_all(self) -> int:
        """Let all leases of this consumer lapse now; their deliveries count."""
        held = [entry for entry in self._broker.requests.values() if entry.holder == self._consumer]
        for entry in held:
            entry.lapses_at = self._broker.clock()
        return len(held)

    async def _wait_for(self, found: Callable[[], list[str]], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not found() and time.monotonic() < deadline:
            await asyncio.sleep(0.005)


class MemoryTracker:
    """A tracker that keeps everything: figures by step, and those of evaluations by the evaluated version."""

    def __init__(self, name: str = "memory") -> None:
        self.name = name
        self.runs: list[TrackedRun] = []
        """One per start."""
        self.steps: dict[int, dict[str, float]] = {}
        self.evaluations: dict[int, dict[str, float]] = {}
        self.outcome: Outcome | None = None

    def start(self, run: TrackedRun) -> str:
        """Forget what the run takes again."""
        self.runs.append(run)
        self.steps = {step: row for step, row in self.steps.items() if step < run.first_step}
        self.evaluations = {step: row for step, row in self.evaluations.items() if step < run.first_step}
        return "memory"

    def log_step(self, row: Mapping[str, float]) -> None:
        """Keep a step."""
        self.steps[int(row["step"])] = step_figures(row)

    def log_evaluation(self, row: Mapping[str, Any]) -> None:
        """Keep an evaluation."""
        self.evaluations[int(row["version"])] = evaluation_figures(row)

    def finish(self, outcome: Outcome) -> None:
        """Keep how it ended."""
        self.outcome = outcome
