"""The records that travel between the services: frozen, made of plain Python values, no torch.

One story runs through the examples: problem `sum-7` ("3+5+8=", answer 6) is asked with K = 2 samples of the
policy at version 4; its tokens are one per character.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a prompt, e.g. `Message(role="user", content="3+5+8=")`."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A prompt whose answer can be checked.

    Example: `Problem(problem_id="sum-7", data_source="chain", ability="math", messages=(Message(...),),
    ground_truth="6")`. For `ability="code"` the ground truth is a JSON text with equally long `inputs` and
    `outputs`, and `fn_name` for function calls.
    """

    problem_id: str
    data_source: str
    ability: str
    messages: tuple[Message, ...]
    ground_truth: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How to sample, e.g. `SamplingParams(temperature=1.0, top_p=1.0, max_tokens=64)`; temperature 0 is greedy.

    Tokens are left out in this order: `min_p`, `top_k`, `top_p`.
    """

    temperature: float
    top_p: float
    """The smallest set of tokens that holds this share of the mass."""
    max_tokens: int
    top_k: int = 0
    """The most probable tokens; 0: all."""
    min_p: float = 0.0
    """Tokens with at least this share of the most probable one's probability (arXiv 2407.01082); 0: all."""
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end a response, besides the model's own; they belong to it."""
    stop: tuple[str, ...] = ()
    """Strings that end a response; the token that completes one belongs to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentTask:
    """What is played instead of answered: `EnvironmentTask(name="sokoban", task="#@$.#", max_turns=6)`."""

    name: str
    """Of an environment (`prime/environments`)."""
    task: str
    """For it to read, e.g. a level."""
    max_turns: int
    """After which the episode is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRequest:
    """A wish for `num_samples` samples of one prompt.

    Example: `RolloutRequest(group_id="12.0-sum-7", problem_id="sum-7", attempt=0, prompt_ids=(3, 10, 5),
    num_samples=2, sampling=..., seed=99, min_version=4)`. Sample i draws from a stream seeded by `(seed, i)`.
    """

    group_id: str
    problem_id: str
    attempt: int
    """How often this problem was asked before in this run."""
    prompt_ids: tuple[int, ...]
    num_samples: int
    sampling: SamplingParams
    seed: int
    min_version: int
    """A replica that holds older weights leaves the request to others."""
    environment: EnvironmentTask | None = None
    """Samples are episodes in it; `sampling.max_tokens` then holds for a whole episode. None: the prompt is answered.
    """


class FinishReason(StrEnum):
    """Why a sample ended: its end token, or the token limit."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSpan:
    """A run of consecutive tokens from one policy version: `VersionSpan(version=4, length=11)`."""

    version: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSpan:
    """Consecutive tokens of a response: `TokenSpan(start=2, length=5)`."""

    start: int
    length: int


def written_places(length: int, observed: Sequence[TokenSpan]) -> Sequence[int]:
    """Places of the tokens that the model wrote, in a response of which it read the `observed` ones.

    Example: 5 tokens of which (1, 2) were read: 0, 3, 4.
    """
    if not observed:
        return range(length)
    read = {place for span in observed for place in range(span.start, span.start + span.length)}
    return [place for place in range(length) if place not in read]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One response, end token included when it was sampled.

    Example: response ids for "3+5=8;8+8=6#6" and the end token are 14 ids, with 14 log-probs, and
    `spans=(VersionSpan(version=4, length=14),)`.
    """

    response_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Of the sampled tokens, under the distribution they were drawn from; 0 of those that were read."""
    spans: tuple[VersionSpan, ...]
    finish_reason: FinishReason
    observed: tuple[TokenSpan, ...] = ()
    """Tokens that an environment said, in order: read by the model, and neither graded, scored nor learnt."""

    @property
    def turns(self) -> tuple[tuple[int, ...], ...]:
        """The ids of each turn that the model wrote; one where nothing was read in between."""
        starts = [0, *(span.start + span.length for span in self.observed)]
        ends = [*(span.start for span in self.observed), len(self.response_ids)]
        return tuple(self.response_ids[start:end] for start, end in zip(starts, ends, strict=True))

    def first(self, length: int) -> "Sample":
        """Its first tokens, as if it had been stopped after them."""
        return Sample(
            response_ids=self.response_ids[:length],
            logprobs=self.logprobs[:length],
            spans=first_spans(self.spans, length),
            finish_reason=FinishReason.STOP,
        )


def first_spans(spans: Sequence[VersionSpan], length: int) -> tuple[VersionSpan, ...]:
    """The spans of the first `length` tokens."""
    found: list[VersionSpan] = []
    for span in spans:
        if length > 0:
            found.append(VersionSpan(version=span.version, length=min(span.length, length)))
            length -= span.length
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutGroup:
    """K samples of one prompt: the unit that is graded, filtered, scored and acknowledged together."""

    group_id: str
    problem_id: str
    attempt: int
    prompt_ids: tuple[int, ...]
    samples: tuple[Sample, ...]

    @property
    def oldest_version(self) -> int:
        """The smallest policy version that sampled any token; staleness is counted from it."""
        return min(span.version for sample in self.samples for span in sample.spans)

    @property
    def newest_version(self) -> int:
        """The largest policy version that sampled any token."""
        return max(span.version for sample in self.samples for span in sample.spans)

    @property
    def num_response_tokens(self) -> int:
        """Response tokens over all samples."""
        return sum(len(sample.response_ids) for sample in self.samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutFailure:
    """A request that was given up: `RolloutFailure(group_id="12.0-sum-7", problem_id="sum-7", reason="...")`."""

    group_id: str
    problem_id: str
    reason: str


class VerdictStatus(StrEnum):
    """Right or wrong; or nobody knows, and then whose doing that is."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"
    """The answer may be right: it was too much to look at, or time ran out."""
    INVALID_REQUEST = "invalid_request"
    """The item cannot be graded, whatever was answered: asking again changes nothing."""
    INFRA_ERROR = "infra_error"
    """The verifier itself failed, twice: asking again later may help."""


class TestVerdict(StrEnum):
    """How one test of a program ended, in the words of programming contests."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    AC = "AC"
    """Accepted."""
    WA = "WA"
    """Wrong answer."""
    RE = "RE"
    """Runtime error: an exception, a signal, an exit code that is not 0, a returned value that is no plain one."""
    TLE = "TLE"
    """Processor time used up."""
    ILE = "ILE"
    """Wall time used up while the processor was idle."""
    MLE = "MLE"
    """Memory used up."""
    OLE = "OLE"
    """Too much output."""
    CE = "CE"
    """Does not compile."""
    SE = "SE"
    """Security: killed for a system call that no program may make."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestRecord:
    """One test of a program.

    Example: `TestRecord(verdict=AC, cpu_ms=11.2, wall_ms=14.0, peak_mib=9.5, output_bytes=2, signal=0)`; stopped at
    its processor limit of one second: `TestRecord(verdict=TLE, cpu_ms=1004.0, ..., signal=24)`.
    """

    __test__: ClassVar[bool] = False

    verdict: TestVerdict
    cpu_ms: float
    wall_ms: float
    peak_mib: float
    """Largest resident memory."""
    output_bytes: int
    signal: int
    """The one that ended it; 0: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What grading found.

    Examples: `Verdict(status=PASSED, score=1.0, reason="exact", milliseconds=0.1, method="math")`; three of four tests
    passed: `Verdict(status=FAILED, score=0.75, reason="wrong_output:3", method="code:stdin", tier="A", tests=(...))`;
    the mathematics took too long: `Verdict(status=UNDECIDED, score=None, reason="deadline", ...)`; an empty gold:
    `Verdict(status=INVALID_REQUEST, score=None, reason="the ground truth is empty", ...)`; the sandbox was killed
    twice: `Verdict(status=INFRA_ERROR, score=None, reason="sandbox_failed", ...)`.
    """

    status: VerdictStatus
    score: float | None
    """1 passed, below 1 failed (the share of tests passed), None where nobody knows: never a zero."""
    reason: str
    """A word, with a place after a colon where there is one; for an invalid request the sentence that says why."""
    milliseconds: float
    """From the call's arrival to this verdict, waiting included."""
    method: str = ""
    """`exact`, `math`, `code:stdin`, `code:call`, `code:checker`, or `code:assert`: of lower trust, because there the
    program shares its process with what is expected. Empty when no grader was found."""
    tier: str = ""
    """Isolation of what was run: `A` all layers, `B` without namespaces; empty when nothing had to be run."""
    cached: bool = False
    """Found for the same answer before; `tests` are then the ones of that time."""
    tests: tuple[TestRecord, ...] = ()
    """Of a program, in order; fewer than the problem has when grading stopped early."""

    def __post_init__(self) -> None:
        if (self.score is not None) != (self.status in _SCORED):
            raise ValueError(f"passed and failed verdicts have a score, others none: {self.status}, {self.score}")


_SCORED = (VerdictStatus.PASSED, VerdictStatus.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerClasses:
    """Which responses give equal answers.

    Example: responses that end in 1/2, nothing, 0.5 and 2: `AnswerClasses(answers=("1/2", "", "0.5", "2"),
    classes=(0, -1, 0, 1))`.
    """

    answers: tuple[str, ...]
    """Per response; empty without an answer."""
    classes: tuple[int, ...]
    """Per response, numbered in the order in which they first occur; -1 without an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradeItem:
    """One answer to grade; verdicts come back in the order of the items.

    Examples: `GradeItem(item_id="12.0-sum-7/0", data_source="chain", ability="math", response="3+5=8;8+8=6#6",
    ground_truth="6")`; a matter of rounding: `GradeItem(..., kind="math", options=("two_decimals",))`.
    """

    item_id: str
    """Echoed in logs."""
    data_source: str
    ability: str
    response: str
    ground_truth: str
    kind: str = ""
    """The grader: `exact`, `math` or `code`; empty: by data source, and where that is unknown by ability."""
    options: tuple[str, ...] = ()
    """What this problem allows beyond the defaults, by name; mathematics only."""
    binary: bool = False
    """Code only: stop at the first failed test, score 0 or 1. Else all tests are run, and the share passed counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierInfo:
    """What a verifier can do and how it isolates what it runs.

    Example: `VerifierInfo(graders=("exact", "math", "code"), isolation=("landlock:7", "seccomp"), workers=2,
    tier="B", canary_age_seconds=240.0)`.
    """

    graders: tuple[str, ...]
    isolation: tuple[str, ...]
    workers: int
    tier: str = ""
    """`A` all layers, `B` without namespaces."""
    canary_age_seconds: float = math.inf
    """Since hostile programs last tried to get out and did not; infinite: never."""


class ReferenceSource(StrEnum):
    """Where the reference log-probs of implicit rewards come from."""

    MODEL = "model"
    """The frozen reference model."""
    SUPPLIED = "supplied"
    """The caller, e.g. the policy that sampled the tokens."""
    NONE = "none"
    """Nowhere: the reward is `beta * log pi_prm`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrmGroup:
    """What the PRM sees of a group: token ids, and reference log-probs when the caller supplies them.

    Example: `PrmGroup(group_id="12.0-sum-7", prompt_ids=(3, 10, 5), responses=((8, 1), (9, 1)))`.
    """

    group_id: str
    prompt_ids: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]
    reference_logprobs: tuple[tuple[float, ...], ...] = ()
    reference: ReferenceSource | None = None
    """None: as the service is set up."""
    observed: tuple[tuple[TokenSpan, ...], ...] = ()
    """Per response, tokens that are read and have no reward; empty: none in any of them."""

    @property
    def num_tokens(self) -> int:
        """What has to be computed: the prompt once, and all responses."""
        return len(self.prompt_ids) + sum(map(len, self.responses))

    @property
    def observed_rows(self) -> tuple[tuple[TokenSpan, ...], ...]:
        """One entry per response."""
        return self.observed or ((),) * len(self.responses)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRewards:
    """`beta * log-ratio` per response token, rows of all groups in the order asked, all from one PRM version.

    Example: two samples of 2 and 3 tokens: `TokenRewards(rows=((0.1, -0.2), (0.0, 0.3, 0.1)), prm_version=4,
    beta=0.05, reference_id="sha256:1f...")`.
    """

    rows: tuple[tuple[float, ...], ...]
    prm_version: int
    beta: float
    reference_id: str
    reference_cached: tuple[bool, ...] = ()
    """Per row: whether its reference log-probs had been kept from an earlier call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrmMetrics:
    """What one `Learn` did. All but the version and the gradient norm are measured before its first update."""

    prm_version: int
    loss: float
    grad_norm: float
    pair_accuracy: float
    mean_logit: float
    calibration_error: float = 0.0
    """Mean gap between predicted and observed share of right responses."""
    frozen_pair_accuracy: float | None = None
    """Of the PRM as the run began; None: no copy is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrmInfo:
    """Which PRM answers: its version, scale, reference and tokenizer."""

    prm_version: int
    beta: float
    reference_id: str
    reference_mode: str
    tokenizer_fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Name, dtype (`"float32"`) and shape of one weight."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorAlias:
    """A weight that is another one: `TensorAlias(name="lm_head.weight", of="model.embed_tokens.weight")`."""

    name: str
    of: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOffer:
    """Where a replica fetches the tensors of a push by itself, past gRPC.

    >>> offer = PushOffer(key="5f3c", transport="nccl", place="10.0.0.7:41500/9b1d", checksums=(81, -4), deadline_s=60)
    >>> offer.transport
    'nccl'
    """

    key: str
    """Of this push to this replica."""
    transport: str
    """`nccl` or `gloo`: a link of two processes; `ipc`: memory on the same machine."""
    place: str
    """Where to join the link, or where the memory is."""
    checksums: tuple[int, ...]
    """Of every tensor in order: see `prime.lm.inbox.checksum`."""
    deadline_s: float
    """For the other end to come, and for every tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushManifest:
    """What a weight push brings: the tensors in the order of their bytes, whole or as what changed since a version.

    `probe_ids` is a short sequence, `probe_logprobs` the trainer's log-prob of each of its tokens after the first. A
    replica whose own differ by more than `max_gap` on average takes itself out of service.
    """

    version: int
    base_version: int | None = None
    """None: the weights come whole; else what changed since this version."""
    tensors: tuple[TensorSpec, ...]
    aliases: tuple[TensorAlias, ...] = ()
    keep_base: bool = False
    """The next push may say what changed since this one."""
    probe_ids: tuple[int, ...]
    probe_logprobs: tuple[float, ...]
    max_gap: float
    previous_logprobs: tuple[float, ...] = ()
    """As `probe_logprobs`, of the version before: a replica that is nearer to these holds old weights. Empty where
    rounding could decide."""
    offer: PushOffer | None = None
    """The tensors do not follow in chunks: the replica fetches them."""

    @property
    def named(self) -> dict[str, int]:
        """Every weight's name, with the number of its tensor: in order, and then those that share one."""
        numbers = {spec.name: number for number, spec in enumerate(self.tensors)}
        return numbers | {alias.name: numbers[alias.of] for alias in self.aliases}


@dataclass(frozen=True, slots=True, kw_only=True)
class PushReceipt:
    """A replica's answer to a push: log-prob of each probe token after the first, and how long it took."""

    version: int
    probe_logprobs: tuple[float, ...]
    stage_seconds: float
    """From the push's begin until the weights were whole and proven."""
    pause_seconds: float
    """In which nothing was sampled."""
    probe_seconds: float = 0.0
    """From then on until the probe was answered; sampling goes on meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutStatus:
    """Where a rollout replica stands."""

    engine: str
    ready: bool
    version: int
    groups_delivered: int
    tokens_generated: int
    groups_in_flight: int
    tokenizer_fingerprint: str
    busy_seconds: float = 0.0
    """For how long it has been sampling since it started."""
    dtype: str = "float32"
    """Of its weights, and so of what is pushed."""
    transports: tuple[str, ...] = ()
    """How it fetches weights past gRPC, where it is offered them."""
    takes_adapters: bool = False
    """Whether it computes with low-rank adapters beside the weights that they belong to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerStatus:
    """Where a run stands, for people: phase, progress, speed and the last figures."""

    run: str
    phase: str
    step: int
    total_steps: int
    policy_version: int
    tokens_per_second: float
    mean_score: float
    accuracy: float
    seconds_left: float
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedGroup:
    """A group with one outcome per sample, each in [0, 1]."""

    group: RolloutGroup
    outcomes: tuple[float, ...]
    trace: str = field(default="", compare=False)
    """Traceparent of its sampling (see `prime.tracing`)."""


def _observed(samples: Sequence[Sample]) -> tuple[tuple[TokenSpan, ...], ...]:
    return tuple(sample.observed for sample in samples) if any(sample.observed for sample in samples) else ()


def prm_view(groups: Sequence[GradedGroup]) -> list[PrmGroup]:
    """The part of graded groups that the PRM may see."""
    return [
        PrmGroup(
            group_id=graded.group.group_id,
            prompt_ids=graded.group.prompt_ids,
            responses=tuple(sample.response_ids for sample in graded.group.samples),
            observed=_observed(graded.group.samples),
        )
        for graded in groups
    ]
