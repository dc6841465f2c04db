"""The small Protocols through which services reach each other. In-memory twins ship in `prime.adapters.memory`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from prime.chat import ChatSamples
from prime.scoring import ScorerInfo, ScoringReply, ScoringRequest
from prime.tracking import Outcome, TrackedRun
from prime.types import (
    AnswerClasses,
    GradeItem,
    PrmGroup,
    PrmInfo,
    PrmMetrics,
    PushManifest,
    PushReceipt,
    RolloutFailure,
    RolloutGroup,
    RolloutRequest,
    RolloutStatus,
    TokenRewards,
    Verdict,
    VerifierInfo,
)

ItemT_co = TypeVar("ItemT_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(Generic[ItemT_co]):
    """An item held under a lease: `Claim(entry_id="171-0", item=request, deliveries=1)`.

    The holder renews it while it works; when it lapses, another consumer may take the item over.
    """

    entry_id: str
    item: ItemT_co
    deliveries: int
    trace: str = ""
    """Traceparent of whoever put the item there (see `prime.tracing`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDepths:
    """Entries not yet acknowledged, per stream."""

    requests: int
    groups: int
    dead: int


class RolloutQueue(Protocol):
    """The trainer's side of the queue: ask for groups, take the results."""

    async def ask(self, requests: Sequence[RolloutRequest]) -> None:
        """Append all requests in one transaction, so that a worker sees all of them or none."""

    async def take(self, limit: int, timeout_s: float) -> list[Claim[RolloutGroup | RolloutFailure]]:
        """Up to `limit` results, after waiting at most `timeout_s`; an empty list when none came."""

    async def acknowledge(self, claims: Sequence[Claim[RolloutGroup | RolloutFailure]]) -> None:
        """Forget results for good: judged and taken over, or dropped on purpose (see ADR 6)."""

    async def discard_all(self) -> int:
        """Drop every request and result of an earlier life of this run; returns how many."""

    async def depths(self) -> QueueDepths:
        """How much lies in each stream."""


class RequestQueue(Protocol):
    """The rollout worker's side of the queue: claim requests, deliver groups."""

    async def claim(self, limit: int, timeout_s: float) -> list[Claim[RolloutRequest]]:
        """Up to `limit` requests in order, lapsed leases of others first; an empty list when none came.

        A request claimed more often than the delivery limit goes to the dead-letter stream instead, and its
        `RolloutFailure` to the results.
        """

    async def renew(self, claims: Sequence[Claim[RolloutRequest]]) -> None:
        """Start the leases anew."""

    async def deliver(self, claim: Claim[RolloutRequest], group: RolloutGroup) -> bool:
        """Acknowledge the request and append its group in one transaction.

        False, and nothing appended, when another worker had already answered it.
        """

    async def refuse(self, claim: Claim[RolloutRequest], reason: str) -> None:
        """Give a request up for good: to the dead-letter stream, and its `RolloutFailure` to the results."""

    async def give_back(self, claims: Sequence[Claim[RolloutRequest]]) -> None:
        """Let the leases lapse now, for another worker to take; the delivery that was not used is not counted."""

    async def give_back_all(self) -> int:
        """The same with all leases of this consumer, whose deliveries count; returns how many.

        For whoever knows that the consumer is dead, so that nobody waits for its leases.
        """


class Verifier(Protocol):
    """Grades answers."""

    async def grade(self, items: Sequence[GradeItem]) -> list[Verdict]:
        """One verdict per item, in order."""

    async def info(self) -> VerifierInfo:
        """What it can grade and how it isolates."""


class ChatModel(Protocol):
    """A model that batch jobs ask; `prime.adapters.endpoint` has one."""

    async def ask(self, messages: Sequence[Mapping[str, str]], *, attempt: int = 0) -> str:
        """The text of one answer. Attempts are numbered: another number may be answered otherwise."""


class AnswerGrouper(Protocol):
    """Tells which answers are equal; the verifier, seen by those who vote."""

    async def group_answers(self, responses: Sequence[str]) -> AnswerClasses:
        """The final answer of every response, and classes of mathematically equal ones.

        Raises:
            InvalidInput: too many responses in one call.
        """


class GroupingVerifier(Verifier, AnswerGrouper, Protocol):
    """Grades answers, and tells which are equal."""


class RewardModel(Protocol):
    """The implicit PRM."""

    async def score(self, groups: Sequence[PrmGroup]) -> TokenRewards:
        """Token rewards of every sample, all from one PRM version."""

    async def learn(self, step: int, groups: Sequence[PrmGroup], outcomes: Sequence[float]) -> PrmMetrics:
        """Learn the outcomes (one per sample, groups in order) once for this step number."""

    async def save(self, step: int) -> str:
        """Write weights and optimiser for `step`; returns the Hugging Face folder."""

    async def restore(self, step: int) -> int:
        """Go back to what was saved for `step` (0: the start); returns the PRM version."""

    async def info(self) -> PrmInfo:
        """Version, scale, reference and tokenizer."""


class Scorer(Protocol):
    """Scores candidates of a prompt, as text or token ids, with a PRM."""

    async def score(self, request: ScoringRequest) -> ScoringReply:
        """A score per candidate, all from one PRM version; raises as `score_all` does."""

    async def score_all(self, requests: Sequence[ScoringRequest]) -> list[ScoringReply]:
        """A score per candidate of every request, all from one PRM version; what is wrong with one fails all.

        Raises:
            InvalidInput: the request breaks its contract (EmptyInput, InputTooLong, BatchTooLarge among them).
            VersionConflict: `require_version` is not the version that answers.
            Overloaded: too many requests wait already.
        """

    async def info(self) -> ScorerInfo:
        """Which PRM answers, and its limits."""


class CheckingScorer(Scorer, Protocol):
    """A scorer that says beforehand whether it could score, before a candidate is paid for."""

    async def check(self, request: ScoringRequest) -> None:
        """Whether a request could be scored, but for the length of its candidates and a busy moment.

        Raises:
            InvalidInput: as `score` would.
        """


class PendingCheckpoint(Protocol):
    """A checkpoint that was copied and is being written while training goes on."""

    folder: Path
    """Its Hugging Face folder."""

    def wait(self) -> None:
        """Until it is written; blocks.

        Raises:
            CheckpointError: it could not be.
        """


class Rollout(Protocol):
    """One rollout replica, reached directly."""

    async def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        """Sample at once, past the queue; groups in the order of the requests."""

    async def push(
        self, manifest: PushManifest, chunks: AsyncIterator[bytes | memoryview], digest: Callable[[], Awaitable[bytes]]
    ) -> PushReceipt:
        """Replace the weights; requests in flight go on with the new ones. `digest` is asked for after the last chunk.

        Raises:
            StaleBase: the manifest is of a delta, and the replica does not hold its base.
            WeightPushError: what arrived is not what was sent, or other weights answer.
        """

    async def status(self) -> RolloutStatus:
        """Where it stands."""


class Generator(Protocol):
    """An engine that samples chat completions."""

    async def sample(self, request: Mapping[str, Any], n: int) -> ChatSamples:
        """`n` candidates for a request in the form of OpenAI's chat completions, whose fields are passed on.

        Raises:
            InvalidInput: the engine refuses the request; carries its words.
            Overloaded: the engine is at its limit.
            PeerUnavailable: it cannot be reached, or broke.
        """

    async def models(self) -> Sequence[str]:
        """The names that a request may carry as `model`."""


class Tracker(Protocol):
    """Keeps a run's figures where people look at curves. Methods block; one thread calls them, in this order.

    A resumed run tells the steps before `run.first_step` again, and then takes later ones again. However often, a
    tracker holds each step once. Every method raises TrackerError when the tracker
    cannot take what it is given.
    """

    name: str

    def start(self, run: TrackedRun) -> str:
        """Begin the run, or go on with it if `run.folder` says that it is known; returns where it can be looked at."""

    def log_step(self, row: Mapping[str, float]) -> None:
        """Take the figures of one step: a line of `metrics.jsonl`, its `step` included."""

    def log_evaluation(self, row: Mapping[str, Any]) -> None:
        """Take one evaluation: a line of `evaluation.jsonl`, its `version` included."""

    def finish(self, outcome: Outcome) -> None:
        """Write out what is still held back, and say how the run ended."""
