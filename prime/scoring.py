"""The records of scoring text with a PRM: what strangers ask for and what they get, beside the RL path's token ids.

One story runs through the examples: the question "What is 7 * 8?" with the candidate "7 * 8 = 56\\n\\nSo it is 56.".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from prime.types import ReferenceSource


class Aggregation(StrEnum):
    """From the values of a response's steps to its one score."""

    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    LAST = "last"
    PROD = "prod"
    """Only over probabilities: after a sigmoid."""


class StepValue(StrEnum):
    """What a step counts for: its own reward, or everything up to its end."""

    DELTA = "delta"
    CUMULATIVE = "cumulative"


class Activation(StrEnum):
    """What is done to every step's value before it is aggregated."""

    NONE = "none"
    SIGMOID = "sigmoid"


class PrmKind(StrEnum):
    """Where a PRM's rewards come from; read off its folder."""

    IMPLICIT = "implicit"
    """A causal LM: the log-ratio of each token to a reference."""
    STEP_HEAD = "step_head"
    """A head over the tokens, read at the mark that ends each step: the log-odds that the step is right."""
    SEQUENCE_HEAD = "sequence_head"
    """A head read once, at the end of the conversation."""


class Truncation(StrEnum):
    """What to do with a prompt and response longer than the model reads."""

    ERROR = "error"
    LEFT = "left"
    """Drop the prompt's first tokens."""
    RIGHT = "right"
    """Drop the response's last tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The question; exactly one of `messages`, `text` and `token_ids`.

    Examples: `Prompt(messages=({"role": "user", "content": "What is 7 * 8?"},))`; the same by its text,
    `Prompt(text="What is 7 * 8?")`; already in the model's format, `Prompt(text="<|im_start|>user...", rendered=True)`.
    """

    messages: tuple[Mapping[str, Any], ...] = ()
    """In the form of chat completions; rendered by the PRM's own chat template."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Shown to the template beside the messages."""
    text: str | None = None
    """One user turn; with `rendered`, the prompt as the model reads it."""
    rendered: bool = False
    token_ids: tuple[int, ...] | None = None
    begun_ids: tuple[int, ...] = ()
    """What is there of the answer already, after the question: a search scores the next step alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One response; exactly one of `text`, `steps` and `token_ids`.

    Examples: `Candidate(text="7 * 8 = 56\\n\\nSo it is 56.")`; `Candidate(steps=("7 * 8 = 56", "So it is 56."))`;
    `Candidate(token_ids=(22, 353, 9), step_ends=(2, 3))`.
    """

    text: str | None = None
    steps: tuple[str, ...] | None = None
    """Joined by the first separator; each is a step, whatever it contains."""
    token_ids: tuple[int, ...] | None = None
    """As sampled, end token included."""
    step_ends: tuple[int, ...] | None = None
    """With `token_ids`: one past the last token of every step, growing."""
    reference_logprobs: tuple[float, ...] | None = None
    """With `token_ids`: of every token under the reference, for `ReferenceSource.SUPPLIED`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSplit:
    """Where steps end: after every separator, or after every match of `pattern`.

    Examples: `StepSplit()`; `StepSplit(separators=("\\n\\n", "\\n"))`; `StepSplit(pattern=r"\\n+(?=Step \\d+:)")`.
    """

    separators: tuple[str, ...] = ("\n\n",)
    pattern: str = ""
    """A regular expression, instead of the separators."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpan:
    """Where a step lies. Spans tile the response: each starts where the one before ends, the last ends with it.

    Example: `StepSpan(char_start=0, char_end=12, token_start=0, token_end=7)`. Response tokens; the end token belongs
    to the last step. Without text (a candidate of token ids) both characters are 0.
    """

    char_start: int
    char_end: int
    token_start: int
    token_end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringRequest:
    """Candidates of one prompt, and how to score them. None everywhere means: as the PRM's folder says."""

    prompt: Prompt
    candidates: tuple[Candidate, ...]
    split: StepSplit | None = None
    step_value: StepValue | None = None
    activation: Activation | None = None
    aggregation: Aggregation | None = None
    beta: float | None = None
    reference: ReferenceSource | None = None
    end_token: bool | None = None
    """Whether the end token is appended to a text, and scored."""
    truncation: Truncation = Truncation.ERROR
    max_response_tokens: int | None = None
    """Read at most this many tokens of a response, the end token not counted; None: all of them."""
    require_version: int | None = None
    """Refuse to answer from any other version of the PRM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepScore:
    """A step's reward and the sum up to its end: `StepScore(span=..., reward=0.21, cumulative=0.35)`."""

    span: StepSpan
    reward: float
    cumulative: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateScore:
    """What the PRM says of one candidate.

    Example: `CandidateScore(score=0.14, response_reward=0.35, aggregates={"sum": 0.35, "min": 0.14, ...},
    steps=(StepScore(...), StepScore(...)), token_ids=(22, 353, ...), token_rewards=(0.01, ...), truncated=False)`.
    """

    score: float
    """The aggregate that was asked for."""
    response_reward: float
    """The sum of the token rewards: the logit of "this is right" for a PRM learnt by cross-entropy."""
    aggregates: Mapping[str, float]
    """All aggregations that have a meaning here, by name."""
    steps: tuple[StepScore, ...]
    token_ids: tuple[int, ...]
    token_rewards: tuple[float, ...]
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringUsage:
    """Tokens: the prompt's once, all responses', and how many of the latter had a cached reference log-prob."""

    prompt_tokens: int
    response_tokens: int
    reference_cached_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringSeconds:
    """Where the time went."""

    tokenize: float
    queue: float
    inference: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringReply:
    """Scores in the order of the candidates, and everything one needs to say what they mean."""

    candidates: tuple[CandidateScore, ...]
    aggregation: Aggregation
    step_value: StepValue
    activation: Activation
    beta: float
    reference: ReferenceSource
    reference_id: str
    prm_version: int
    usage: ScoringUsage
    seconds: ScoringSeconds

    @property
    def is_probability(self) -> bool:
        """Whether the scores lie between 0 and 1: one step's sigmoid, their mean or their product."""
        return self.activation is Activation.SIGMOID and self.aggregation is not Aggregation.SUM


@dataclass(frozen=True, slots=True, kw_only=True)
class PrmConfig:
    """How a PRM wants to be read, as its folder's `prm_config.json` says. Every field has a default.

    Example: EurusPRM-Stage1 is `PrmConfig(aggregation=Aggregation.MIN, beta=0.001)`.
    """

    beta: float = 0.05
    aggregation: Aggregation = Aggregation.SUM
    step_value: StepValue = StepValue.DELTA
    activation: Activation = Activation.NONE
    separators: tuple[str, ...] = ("\n\n",)
    end_token: bool = True
    prompt_pattern: str = ""
    """A regular expression of a whole prompt, for a chat template that writes nothing before an answer: where one text
    holds both, the answer begins after its first match at the text's start."""
    step_mark: str = ""
    """With a step head: the text that is written after every step, where the head is read, e.g. `<extra_0>`."""
    closing: str = ""
    """With a sequence head: what closes an answer in place of the end token, e.g. `<|im_end|>\n`."""
    trained_with: Mapping[str, Any] = field(default_factory=dict)
    """Loss, data and reference of its training, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerInfo:
    """Which PRM answers, how it reads, and within which limits; what `/info` says."""

    model_id: str
    """The name that clients use: the folder's name unless the operator chose one."""
    prm_version: int
    reference_id: str
    reference: ReferenceSource
    tokenizer_fingerprint: str
    dtype: str
    config: PrmConfig
    generation_prompt: str
    """What the chat template writes before a response, e.g. `<|im_start|>assistant\n`; empty when it writes nothing."""
    generation_prompt_ids: tuple[int, ...]
    end_text: str
    """The end token, as text."""
    max_tokens: int
    """Of a prompt with one response."""
    max_candidates: int
    """Per request."""
    max_waiting: int
    """Requests that are accepted and not yet answered; more are refused."""
    token_budget: int
    """Per forward pass."""
    kind: PrmKind = PrmKind.IMPLICIT
