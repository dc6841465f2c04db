"""Fills a batch: asks for groups, takes them, grades them, and keeps those that carry signal.

Every request is derived from its ticket, a running number: which problem, which attempt, which seed. So the state to
checkpoint is the next ticket and the open ones, and a resumed run asks for exactly what an uninterrupted one would.
"""

import asyncio
import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import structlog

from prime import tracing
from prime.data.episodes import actions_of
from prime.data.prompts import response_text
from prime.environments.registry import ABILITY, task_of
from prime.errors import PeerUnavailable
from prime.maths.filtering import in_band
from prime.patience import patiently
from prime.ports import Claim, RolloutQueue, Verifier
from prime.seeds import stable_hash
from prime.types import (
    FinishReason,
    GradedGroup,
    GradeItem,
    Problem,
    RolloutFailure,
    RolloutGroup,
    RolloutRequest,
    Sample,
    SamplingParams,
    Verdict,
    VerdictStatus,
)
from services.trainer.settings import TrainerSettings
from services.trainer.timeline import Timeline

_log = structlog.get_logger()
_POLL_S = 0.5
_TAKE_LIMIT = 64
_FEWEST_SAMPLES = 2  # the baseline of one is the mean of the others
# How fast the estimate of the kept share follows: it only sets how many prompts a round asks for.
_KEPT_SHARE_MEMORY = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A running number and how often its problem was asked under it: `Ticket(number=12, attempt=0)`."""

    number: int
    attempt: int


@dataclass(slots=True, kw_only=True)
class CollectorState:
    """What a checkpoint keeps."""

    next_number: int = 0
    kept_share: float = 1.0
    unfinished: list[Ticket] = field(default_factory=list)
    """Asked for and neither used nor dropped; asked again first after a resume."""
    resting: dict[int, int] = field(default_factory=dict)
    """Problems that are left out, by their place in the file, and the last epoch in which they are."""


class ProblemSequence:
    """All problems in a fresh random order per epoch, addressed by ticket number; no state but the seed."""

    def __init__(self, problems: Sequence[tuple[Problem, tuple[int, ...]]], *, seed: int) -> None:
        self._problems = problems
        self._seed = seed
        self._orders: dict[int, list[int]] = {}

    def __len__(self) -> int:
        """Of one epoch."""
        return len(self._problems)

    def __getitem__(self, number: int) -> tuple[Problem, tuple[int, ...]]:
        """The problem of a ticket and its prompt ids."""
        return self._problems[self.place(number)[1]]

    def place(self, number: int) -> tuple[int, int]:
        """The epoch of a ticket, and the place of its problem in the file."""
        epoch, place = divmod(number, len(self._problems))
        if epoch not in self._orders:
            # Around an epoch's end tickets of two epochs are open at once; older orders are not needed any more.
            self._orders = {each: order for each, order in self._orders.items() if each == epoch - 1}
            self._orders[epoch] = sorted(
                range(len(self._problems)), key=lambda index: stable_hash(self._seed, "order", epoch, index)
            )
        return epoch, self._orders[epoch][place]


class GroupCollector:
    """Owns everything between "we need a batch" and "here are graded groups"."""

    def __init__(
        self,
        *,
        queue: RolloutQueue,
        verifier: Verifier,
        problems: ProblemSequence,
        tokenizer: Any,
        settings: TrainerSettings,
        seed: int,
        state: CollectorState,
    ) -> None:
        self._timeline = Timeline()
        self._queue = queue
        self._verifier = verifier
        self._problems = problems
        self._tokenizer = tokenizer
        self._sampling = SamplingParams(**settings.sampling.model_dump())
        self._batch_size = settings.prompts_per_step
        self._num_samples = settings.samples_per_prompt
        self._filter = settings.filter
        self._max_lag = settings.max_lag
        self._truncated = settings.truncated
        self._binary = settings.code_score == "binary"
        self._stall_s = settings.peers.stall_seconds
        self._patience_s = settings.peers.patience_seconds
        self._seed = seed
        self._next_number = state.next_number
        self._kept_share = state.kept_share
        self._to_ask_again = list(state.unfinished)
        self._resting = dict(state.resting)
        self._open: dict[str, Ticket] = {}
        self._ready: dict[Ticket, GradedGroup] = {}
        self._used: dict[str, Ticket] = {}
        self._version = 0
        self._on_kept: Callable[[GradedGroup], None] = lambda graded: None
        self._intake: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()
        self.counts: Counter[str] = Counter()
        """What happened since `take_figures`."""
        self.scores: list[float] = []
        """Mean score of every group graded since `take_figures`, kept or not."""

    @property
    def state(self) -> CollectorState:
        """For a checkpoint taken between two steps."""
        unfinished = [*self._to_ask_again, *self._open.values(), *self._ready]
        return CollectorState(
            next_number=self._next_number,
            kept_share=self._kept_share,
            unfinished=sorted(unfinished, key=_ticket_order),
            resting=dict(self._resting),
        )

    def take_figures(self) -> dict[str, float]:
        """Counts, and the mean score, of what came since this was asked last."""
        return take_figures(self.counts, self.scores)

    async def start(self, on_kept: Callable[[GradedGroup], None], timeline: Timeline) -> int:
        """See that the verifier answers, and drop what an earlier life of this run left in the queue; how much it was.

        The checkpoint's tickets ask for it again. `on_kept` hears of every group that passed the filter.
        """
        self._on_kept, self._timeline = on_kept, timeline
        await self._verifier.info()
        return await self._queue.discard_all()

    async def close(self) -> None:
        """Stop taking results."""
        if self._intake is not None:
            self._intake.cancel()
            await asyncio.gather(self._intake, return_exceptions=True)

    def advance(self, version: int) -> None:
        """The policy is at this version from now on; staleness counts from it."""
        self._version = version

    async def fill(self, version: int) -> list[GradedGroup]:
        """A batch of `prompts_per_step` kept groups in ticket order, or fewer after `max_rounds` rounds.

        In strict mode (`max_lag` 0) every round is waited for to its end, so that which groups make the batch does
        not depend on the order of arrival. Otherwise results are taken and graded all the time, also while the batch
        before is learnt from, and as much is asked for as can be used before it is too old.

        Raises:
            PeerUnavailable: requests are open and nothing arrived for `stall_seconds`.
        """
        self.advance(version)
        self._drop_stale(version)
        if self._max_lag:
            await self._wait_for_batch()
            chosen = self._use_oldest()
            await self._ask_ahead(batches=self._max_lag)
            return chosen
        for _ in range(self._filter.max_rounds):
            missing = self._batch_size - len(self._ready)
            if missing <= 0:
                break
            await self._ask(self._round_size(missing) - len(self._open))
            await self._take_all()
            self.counts["rounds"] += 1
        return self._use_oldest()

    async def _wait_for_batch(self) -> None:
        if self._intake is None:
            self._intake = asyncio.create_task(self._take_for_ever())
        most = self._filter.max_rounds * self._round_size(self._batch_size)
        asked_before = self.counts["asked"]
        while len(self._ready) < self._batch_size:
            if self.counts["asked"] - asked_before < most:
                await self._ask_ahead(batches=self._max_lag + 1)
            if not self._open:
                return
            self._arrived.clear()
            arrival = asyncio.ensure_future(self._arrived.wait())
            await asyncio.wait({arrival, self._intake}, timeout=self._stall_s, return_when=asyncio.FIRST_COMPLETED)
            if self._intake.done():
                self._intake.result()
            if not arrival.done():
                arrival.cancel()
                raise self._stalled()

    async def _take_for_ever(self) -> None:
        while True:
            if await self._take_some():
                self._arrived.set()

    async def _ask_ahead(self, *, batches: int) -> None:
        """Ask for what is missing to so many batches."""
        missing = batches * self._batch_size - len(self._ready)
        await self._ask(self._round_size(max(missing, 0)) - len(self._open))

    def take_back(self, groups: Sequence[GradedGroup]) -> None:
        """Groups of the last batch that were not used after all: their prompts are asked again."""
        self._to_ask_again += [self._used[graded.group.group_id] for graded in groups]

    def _round_size(self, missing: int) -> int:
        share = max(self._kept_share, 1.0 / self._filter.max_oversample)
        return math.ceil(missing / share)

    async def _ask(self, count: int) -> None:
        if count <= 0:
            return
        waiting = sorted(self._to_ask_again, key=_ticket_order)
        tickets, self._to_ask_again = waiting[:count], waiting[count:]
        while len(tickets) < count:
            tickets.append(Ticket(number=self._next_awake(), attempt=0))
        requests = [self._request(ticket) for ticket in tickets]
        self._open |= {request.group_id: ticket for request, ticket in zip(requests, tickets, strict=True)}
        self.counts["asked"] += len(requests)
        # Asked twice, should the answer get lost: the second group of a ticket is unexpected, and dropped.
        await patiently(partial(self._queue.ask, requests), seconds=self._patience_s)

    def _next_awake(self) -> int:
        """The next ticket whose problem does not rest; when a whole epoch does, its last is asked all the same."""
        for _ in range(len(self._problems)):
            number, self._next_number = self._next_number, self._next_number + 1
            epoch, place = self._problems.place(number)
            if epoch > self._resting.get(place, -1):
                return number
            self.counts["rested"] += 1
        return number

    def _lay_to_rest(self, ticket: Ticket) -> None:
        if self._filter.rest_epochs:
            epoch, place = self._problems.place(ticket.number)
            self._resting[place] = epoch + self._filter.rest_epochs

    def _request(self, ticket: Ticket) -> RolloutRequest:
        problem, prompt_ids = self._problems[ticket.number]
        return RolloutRequest(
            group_id=f"{ticket.number}.{ticket.attempt}-{problem.problem_id}",
            problem_id=problem.problem_id,
            attempt=ticket.attempt,
            prompt_ids=prompt_ids,
            num_samples=self._num_samples,
            sampling=self._sampling,
            seed=stable_hash(self._seed, "sample", ticket.number, ticket.attempt),
            min_version=max(0, self._version - self._max_lag),
            environment=task_of(problem),
        )

    async def _take_all(self) -> None:
        last_arrival = time.monotonic()
        while self._open:
            if await self._take_some():
                last_arrival = time.monotonic()
            elif time.monotonic() - last_arrival > self._stall_s:
                raise self._stalled()

    async def _take_some(self) -> bool:
        """Whether anything came."""
        claims = await patiently(partial(self._queue.take, _TAKE_LIMIT, _POLL_S), seconds=self._patience_s)
        if claims:
            # What was sampled for one step may be taken in the next: it is traced where it was asked for.
            with tracing.span("grade", parent=claims[0].trace):
                tracing.link(claim.trace for claim in claims)
                await self._receive(claims)
            # Settled either way; what a crash loses is asked for again from the checkpoint's tickets.
            await patiently(partial(self._queue.acknowledge, claims), seconds=self._patience_s)
        return bool(claims)

    def _stalled(self) -> PeerUnavailable:
        return PeerUnavailable(
            f"{len(self._open)} requests are open and no group arrived for {self._stall_s:.0f} s "
            f"(trainer.peers.stall_seconds); is a rollout replica running and ready?"
        )

    async def _receive(self, claims: Sequence[Claim[RolloutGroup | RolloutFailure]]) -> None:
        groups: list[RolloutGroup] = []
        traces = {claim.item.group_id: claim.trace for claim in claims}
        for result in (claim.item for claim in claims):
            if result.group_id not in self._open or any(result.group_id == each.group_id for each in groups):
                self.counts["unexpected"] += 1
            elif isinstance(result, RolloutFailure):
                self.counts["rollout_failed"] += 1
                self._ask_again(self._open.pop(result.group_id), result.reason)
            else:
                groups.append(result)
        for group, verdicts in zip(groups, await self._grade(groups), strict=True):
            self._judge(self._open.pop(group.group_id), group, verdicts, traces[group.group_id])

    async def _grade(self, groups: Sequence[RolloutGroup]) -> list[list[Verdict]]:
        items = []
        for group in groups:
            problem, _ = self._problems[self._open[group.group_id].number]
            for number, sample in enumerate(group.samples):
                item = grade_item(f"{group.group_id}/{number}", problem, sample, self._tokenizer)
                items.append(replace(item, binary=self._binary))
        if not items:
            return []
        with self._timeline.working("verifier"):
            verdicts = iter(await self._verifier.grade(items))
        return [[next(verdicts) for _ in group.samples] for group in groups]

    def _judge(self, ticket: Ticket, group: RolloutGroup, verdicts: Sequence[Verdict], trace: str) -> None:
        """Keep the group, or say why not. What has no score is never a number, and costs its group alone."""
        unscored = [verdict for verdict in verdicts if verdict.score is None]
        ungradable = [verdict for verdict in unscored if verdict.status is VerdictStatus.INVALID_REQUEST]
        if ungradable:
            self.counts["ungradable"] += 1
            _log.warning(
                "problem cannot be graded",
                problem_id=group.problem_id,
                ticket=ticket.number,
                reason=ungradable[0].reason,
            )
            return
        if unscored:
            self.counts[unscored[0].status.value] += 1
            self._ask_again(ticket, f"{unscored[0].status.value}: {unscored[0].reason}")
            return
        if self._is_stale(group, self._version):
            self._drop_as_stale(ticket, group)
            return
        outcomes = tuple(verdict.score for verdict in verdicts if verdict.score is not None)
        whole = [sample.finish_reason is not FinishReason.LENGTH for sample in group.samples]
        if self._truncated != "keep" and not all(whole):
            if self._truncated == "filter" or sum(whole) < _FEWEST_SAMPLES:
                self.counts["truncated"] += 1
                return
            group = replace(group, samples=tuple(itertools.compress(group.samples, whole)))
            outcomes = tuple(itertools.compress(outcomes, whole))
        self.scores.append(sum(outcomes) / len(outcomes))
        self.counts["graded"] += 1
        if in_band(outcomes, low=self._filter.low, high=self._filter.high):
            self.counts["kept"] += 1
            self._ready[ticket] = GradedGroup(group=group, outcomes=outcomes, trace=trace)
            self._on_kept(self._ready[ticket])
        else:
            self.counts["too_easy" if self.scores[-1] > self._filter.high else "too_hard"] += 1
            self._lay_to_rest(ticket)

    def _ask_again(self, ticket: Ticket, reason: str) -> None:
        if ticket.attempt + 1 < self._filter.max_attempts:
            self._to_ask_again.append(Ticket(number=ticket.number, attempt=ticket.attempt + 1))
        else:
            self.counts["given_up"] += 1
            _log.warning("prompt given up", ticket=ticket.number, attempts=ticket.attempt + 1, reason=reason)

    def _is_stale(self, group: RolloutGroup, version: int) -> bool:
        """Finished too long ago, or in a future that a restart has undone.

        How long it took to sample is no reason: long answers would be dropped again and again, and never learnt from.
        What may start is bounded by what is open (`_ask_ahead`), and every token knows its version.
        """
        return not 0 <= version - group.newest_version <= self._max_lag

    def _drop_stale(self, version: int) -> None:
        """What an earlier step left over and is now too old goes; its prompts are asked again with the new policy."""
        stale = [ticket for ticket, graded in self._ready.items() if self._is_stale(graded.group, version)]
        for ticket in stale:
            self._drop_as_stale(ticket, self._ready.pop(ticket).group)

    def _drop_as_stale(self, ticket: Ticket, group: RolloutGroup) -> None:
        self.counts["stale"] += 1
        self.counts["stale_tokens"] += group.num_response_tokens
        self._to_ask_again.append(ticket)

    def _use_oldest(self) -> list[GradedGroup]:
        if self.counts["graded"]:
            share = self.counts["kept"] / self.counts["graded"]
            self._kept_share += _KEPT_SHARE_MEMORY * (share - self._kept_share)
        chosen = sorted(self._ready, key=_ticket_order)[: self._batch_size]
        self._used = {self._ready[ticket].group.group_id: ticket for ticket in chosen}
        return [self._ready.pop(ticket) for ticket in chosen]


def take_figures(counts: Counter[str], scores: list[float]) -> dict[str, float]:
    """As figures of a step; both begin anew."""
    figures = {f"collect/{name}": float(count) for name, count in sorted(counts.items())}
    if scores:
        figures["collect/mean_score"] = math.fsum(scores) / len(scores)
    counts.clear()
    scores.clear()
    return figures


def grade_item(item_id: str, problem: Problem, sample: Sample, tokenizer: Any) -> GradeItem:
    """A sample as the verifier sees it: text, or the actions of an episode, beside the problem's ground truth."""
    played = problem.ability == ABILITY
    return GradeItem(
        item_id=item_id,
        data_source=problem.data_source,
        ability=problem.ability,
        response=actions_of(tokenizer, sample) if played else response_text(tokenizer, sample.response_ids),
        ground_truth=problem.ground_truth,
    )


def _ticket_order(ticket: Ticket) -> tuple[int, int]:
    return (ticket.number, ticket.attempt)
