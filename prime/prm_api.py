"""The JSON of the PRM's HTTP API, once for server and client: the native route, `/info`, best-of-N and the refusals.

    body of a request                 reply                       route
    ScoreBody (ScoreOptions)          ScoreReply                  POST /v1/prm/score
                                      InfoReply                   GET /info
    ChatBody (PrimeOptions)           Completion                  POST /v1/chat/completions
                                      PlainRefusal, OpenAIRefusal all, by the dialect of the route

`services/prm/http` reads the bodies and writes the replies; `prime.client` does the reverse. Loads without torch and
without fastapi.
"""

import base64
import re
from array import array
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, StrictBool, StrictInt

from prime.chat import Selection, Strategy
from prime.errors import (
    BatchTooLarge,
    EmptyInput,
    EngineError,
    Forbidden,
    InputTooLong,
    InvalidInput,
    LimitReached,
    NotReady,
    Overloaded,
    PeerUnavailable,
    PrimeError,
    TookTooLong,
    Unauthenticated,
    UnknownModel,
    VersionConflict,
)
from prime.scoring import Activation, Aggregation, PrmKind, StepValue, Truncation
from prime.types import ReferenceSource

# ---------------------------------------------------------------- limits

MOST_VALUES = 300_000
"""Numbers, texts, lists and objects in one body: 128 candidates of 2,000 token ids, and more."""
_MOST_ITEMS = 65_536
_MOST_SEPARATORS = 16
_LONGEST_SEPARATOR = 200
_LARGEST_BETA = 1e6

ItemT = TypeVar("ItemT")

Listed = Annotated[list[ItemT], Field(fail_fast=True, max_length=_MOST_ITEMS)]
"""A list of a body. Only the first wrong item is reported, because each report costs a kilobyte."""
Numbers = Annotated[list[ItemT], Field(fail_fast=True, max_length=MOST_VALUES)]
"""A list with an item per token."""
_Separator = Annotated[str, Field(max_length=_LONGEST_SEPARATOR)]
_LogProb = Annotated[float, Strict(), Field(le=1e-3, ge=-1e6)]
"""At most 0, but for rounding."""
Separators = _Separator | Annotated[list[_Separator], Field(fail_fast=True, max_length=_MOST_SEPARATORS)]
Beta = Annotated[float, Strict(), Field(gt=0, le=_LARGEST_BETA)]


class _Body(BaseModel):
    # A number that is none is sent as it is, so that the service refuses it by its name.
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants")


class _Reply(BaseModel):
    # A client reads replies of newer services too, so fields that it does not know are passed over.
    model_config = ConfigDict(allow_inf_nan=False)


# ---------------------------------------------------------------- POST /v1/prm/score: the request


class ResponseBody(_Body):
    """One candidate: its text, its steps, or its token ids."""

    text: str | None = None
    steps: Listed[str] | None = Field(None, description="Joined by the first separator; each is a step.")
    token_ids: Numbers[StrictInt] | None = Field(None, description="As sampled, end token included.")
    step_ends: Listed[StrictInt] | None = Field(
        None, description="With token_ids: one past the last token of every step."
    )
    ref_logprobs: Numbers[_LogProb] | None = Field(
        None, description="With token_ids: of every token under the reference, for reference 'supplied'."
    )


class InputBody(_Body):
    """A question with its candidates; exactly one of messages, prompt and prompt_token_ids."""

    messages: Listed[dict[str, Any]] | None = Field(None, description="As in chat completions.")
    tools: Listed[dict[str, Any]] | None = None
    prompt: str | None = Field(None, description="One user turn; with template 'none' the prompt as the PRM reads it.")
    prompt_token_ids: Numbers[StrictInt] | None = None
    template: Literal["chat", "none"] = "chat"
    responses: Listed[str | ResponseBody]


class ScoreOptions(_Body):
    """How to score. Options that are left out are as the PRM's folder says; `/info` shows them.

    Example: `ScoreOptions(aggregation=Aggregation.MIN, step_separator=";")`.
    """

    model: str | None = Field(None, description="Which of several PRMs; not looked at where there is one.")
    step_separator: Separators | None = None
    step_pattern: str | None = Field(
        None, min_length=1, description="A regular expression after whose matches steps end."
    )
    step_value: StepValue | None = Field(None, description="A step's own reward, or all up to its end.")
    activation: Activation | None = Field(None, description="Done to every step's value before it is aggregated.")
    aggregation: Aggregation | Listed[Aggregation] | None = Field(
        None, description="From step values to the score; of a list the first. The reply holds all of them."
    )
    beta: Beta | None = None
    reference: ReferenceSource | None = None
    end_token: StrictBool | None = Field(None, description="Whether the end token is appended to a text, and scored.")
    truncation: Truncation = Truncation.ERROR
    max_response_tokens: StrictInt | None = Field(
        None, ge=1, description="A longer response is cut to its first tokens; the end token is not counted."
    )
    require_version: StrictInt | None = Field(None, description="412 unless this version of the PRM answers.")


class ScoreBody(ScoreOptions):
    """One question or several, and how to score their candidates."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "inputs": {
                        "messages": [{"role": "user", "content": "What is 7 * 8?"}],
                        "responses": ["7 * 8 = 56\n\nSo it is 56.", {"steps": ["7 * 8 = 54", "So it is 54."]}],
                    },
                    "aggregation": ["sum", "min"],
                    "return_tokens": True,
                }
            ]
        }
    )

    inputs: InputBody | Listed[InputBody]
    return_tokens: StrictBool = Field(False, description="With token ids and the reward of every token.")
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="base64: token_rewards as little-endian float32, token_ids as little-endian uint32."
    )


# ---------------------------------------------------------------- POST /v1/prm/score: the reply


class StepReply(_Reply):
    """A step: its place in the text and in the tokens, its reward, and the sum up to its end."""

    char_start: int
    char_end: int
    token_start: int
    token_end: int
    reward: float
    cumulative: float


class ResponseReply(_Reply):
    """The scores of one candidate."""

    score: float = Field(description="The aggregate that was asked for.")
    response_reward: float = Field(description="The sum of the token rewards.")
    aggregates: dict[str, float] = Field(description="All aggregations that have a meaning here, by name.")
    num_tokens: int
    truncated: bool
    steps: list[StepReply]
    token_ids: list[int] | str | None = Field(None, description="With return_tokens; base64 if that was asked for.")
    token_rewards: list[float] | str | None = Field(
        None, description="With return_tokens; base64 if that was asked for."
    )

    def ids(self) -> list[int]:
        """The token ids, whichever encoding was asked for.

        Raises:
            InvalidInput: the request did not ask for them.
        """
        return list(unpack("I", self._asked_for(self.token_ids)))

    def rewards(self) -> list[float]:
        """The reward of every token, whichever encoding was asked for.

        Raises:
            InvalidInput: the request did not ask for them.
        """
        return list(unpack("f", self._asked_for(self.token_rewards)))

    @staticmethod
    def _asked_for(values: list[ItemT] | str | None) -> list[ItemT] | str:
        if values is None:
            raise InvalidInput("the reply holds no tokens; ask for them with return_tokens")
        return values


class InputReply(_Reply):
    """The candidates of one question, in the order of the request."""

    index: int
    responses: list[ResponseReply]


class ScoreUsage(_Reply):
    """Tokens of the whole request: every prompt once, and all responses."""

    prompt_tokens: int
    response_tokens: int
    total_tokens: int
    reference_cached_tokens: int = Field(description="Response tokens whose reference log-prob was known from before.")


class Packing(_Reply):
    """How numbers are packed in base64."""

    token_rewards: Literal["float32"] = "float32"
    token_ids: Literal["uint32"] = "uint32"
    byteorder: Literal["little"] = "little"


class ScoreReply(_Reply):
    """The scores of all candidates, and everything that says what they mean."""

    object: Literal["prm.score"] = "prm.score"
    model: str
    data: list[InputReply] = Field(description="One per question, in the order of the request.")
    aggregation: Aggregation
    step_value: StepValue
    activation: Activation
    beta: float
    reference: ReferenceSource
    reference_id: str
    prm_version: int
    usage: ScoreUsage
    encoding: Packing | None = Field(None, description="With encoding_format base64 and return_tokens.")

    @property
    def responses(self) -> list[ResponseReply]:
        """The candidates of all questions, in order."""
        return [response for each in self.data for response in each.responses]

    @property
    def scores(self) -> list[float]:
        """The score of every candidate of all questions, in order."""
        return [response.score for response in self.responses]


def pack(kind: Literal["I", "f"], values: Sequence[float]) -> str:
    """Numbers as base64 of little-endian uint32 (`I`) or float32 (`f`)."""
    return base64.b64encode(array(kind, values).tobytes()).decode()


def unpack(kind: Literal["I", "f"], values: Sequence[ItemT] | str) -> Sequence[ItemT]:
    """The numbers of `pack`; a list is returned as it is."""
    if not isinstance(values, str):
        return values
    numbers: array[Any] = array(kind)
    numbers.frombytes(base64.b64decode(values))
    return numbers


# ---------------------------------------------------------------- GET /info


class InfoReply(_Reply):
    """Which PRM answers, how it reads, and the limits."""

    models: list[str] = Field(default=[], description="All PRMs of this service by their names.")
    model_id: str
    kind: PrmKind = PrmKind.IMPLICIT
    prm_version: int
    reference: ReferenceSource
    reference_id: str
    tokenizer_fingerprint: str
    dtype: str
    beta: float
    aggregation: Aggregation
    step_value: StepValue
    activation: Activation
    step_separators: list[str]
    end_token: bool
    step_mark: str = Field(default="", description="Written after every step, where a step head is read; else empty.")
    closing: str = Field(
        default="", description="What closes an answer for a sequence head, in place of the end token; else empty."
    )
    generation_prompt: str = Field(description="What the chat template writes before a response.")
    generation_prompt_ids: list[int]
    end_text: str = Field(description="The end token, as text.")
    relevance_score: str = Field(
        "sigmoid(score), or a score that is a probability; the score itself with raw_scores or use_activation false",
        description="What rerankers' clients are told, in words.",
    )
    max_input_length: int = Field(description="Tokens of a prompt with one response.")
    max_client_batch_size: int = Field(description="Candidates per request.")
    max_concurrent_requests: int = Field(description="Requests accepted and not yet answered; more get 429.")
    max_batch_tokens: int = Field(description="Tokens per forward pass.")


# ---------------------------------------------------------------- POST /v1/chat/completions


class AdaptiveOptions(BaseModel):
    """When to stop before `best_of` candidates."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    first: StrictInt = Field(4, ge=1, description="Candidates before the first look, and between looks.")
    confidence: Annotated[float, Strict()] = Field(0.95, gt=0.5, le=1, description="At which a vote is settled.")
    score: Annotated[float, Strict()] | None = Field(None, description="A candidate with this score is good enough.")


class PrimeOptions(BaseModel):
    """Our part of a request; everything may be left out."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    selection: Selection | None = None
    aggregation: Aggregation | None = None
    beta: Beta | None = None
    step_separator: Separators | None = None
    strategy: Strategy = Strategy.BEST_OF_N
    width: StrictInt = Field(4, ge=1, le=64, description="Of a search: continuations of a beginning.")
    step_delimiters: Separators | None = Field(None, description="Of a search: texts that end a step.")
    max_steps: StrictInt = Field(40, ge=1, le=1000, description="Of a search: its rounds.")
    max_sampled_tokens: StrictInt | None = Field(None, ge=1, description="Of a search, over all continuations.")
    adaptive: AdaptiveOptions | None = Field(None, description="Stop sampling when more would change nothing.")
    min_candidates: StrictInt = Field(
        1, ge=1, description="An engine may fail for some candidates; with fewer than these the request fails."
    )
    scores: StrictBool = Field(True, description="Whether the reply has a field `prime`; strict clients may refuse it.")


class ChatBody(BaseModel):
    """A chat completion. What is not named here goes to the engine as it is."""

    model_config = ConfigDict(
        extra="allow",
        ser_json_inf_nan="constants",
        json_schema_extra={
            "examples": [{"model": "qwen", "messages": [{"role": "user", "content": "What is 7 * 8?"}], "best_of": 8}]
        },
    )

    messages: Listed[dict[str, Any]] = Field(min_length=1)
    n: StrictInt | None = Field(1, ge=1, description="Choices in the reply: the best of the candidates.")
    best_of: StrictInt | None = Field(None, ge=1, description="Candidates that are sampled.")
    stream: StrictBool | None = False
    stream_options: dict[str, Any] | None = None
    prime: PrimeOptions | None = PrimeOptions()

    @property
    def options(self) -> PrimeOptions:
        """Ours."""
        return self.prime or PrimeOptions()


class _EngineReply(_Reply):
    # What the engine adds is passed on.
    model_config = ConfigDict(extra="allow")


class Choice(_EngineReply):
    """One of the chosen candidates, as the engine gave it."""

    index: int
    message: dict[str, Any]
    finish_reason: str | None = None
    logprobs: Any = None

    @property
    def text(self) -> str:
        """What the message says; empty for one without text, e.g. a tool call."""
        content = self.message.get("content")
        return content if isinstance(content, str) else ""


class ChatUsage(_EngineReply):
    """Tokens of all candidates, not of the chosen ones alone."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class SearchReply(_Reply):
    """What a search took: rounds, calls to the engine, and tokens as the PRM counts them."""

    rounds: int
    engine_calls: int
    sampled_tokens: int = Field(description="Of all continuations.")
    scored_tokens: int = Field(description="Of prompts, beginnings and steps that the PRM read, in all rounds.")


class BestOfNReply(_EngineReply):
    """How all candidates scored, and which PRM said so. What does not apply is left out."""

    selection: Selection
    selected: list[int] = Field(description="Candidates of the choices, the best first.")
    scores: list[float | None] = Field(description="Per candidate; null for one without text.")
    candidates: int
    aggregation: Aggregation | None = None
    beta: float | None = None
    prm_version: int | None = None
    reference_id: str | None = None
    truncated: bool | None = Field(None, description="Whether a prompt was cut to what the PRM reads.")
    scored_tokens: int | None = None
    cut: list[int] | None = Field(None, description="Candidates that the engine cut at their longest.")
    failed: int | None = Field(None, description="Candidates that were asked for and did not come.")
    saved: int | None = Field(None, description="Candidates that adaptive sampling did not need.")
    search: SearchReply | None = Field(None, description="What a search took.")
    unread: list[str] | None = Field(None, description="Types of content that the PRM cannot read.")
    fallback: str | None = Field(None, description="Why there was no vote, although one was asked for.")
    answers: list[str] | None = Field(None, description="With a vote: the answer of every candidate.")
    classes: list[int] | None = Field(None, description="With a vote: candidates of one class answer alike.")


class Completion(_EngineReply):
    """The chosen candidates in the form of OpenAI's chat completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: ChatUsage | None = Field(description="The engine's own, over all its calls; null where it counts nothing.")
    prime: BestOfNReply | None = Field(None, description="Left out with `prime: {scores: false}`.")

    @property
    def text(self) -> str:
        """What the best choice says."""
        return self.choices[0].text


# ---------------------------------------------------------------- refusals

REFUSALS: tuple[tuple[type[PrimeError], int, str], ...] = (
    (EmptyInput, 400, "empty"),
    (InputTooLong, 400, "too_long"),
    (BatchTooLarge, 413, "batch_too_large"),
    (UnknownModel, 404, "model_not_found"),
    (InvalidInput, 422, "validation"),
    (Unauthenticated, 401, "unauthenticated"),
    (Forbidden, 403, "forbidden"),
    (VersionConflict, 412, "version"),
    (TookTooLong, 408, "timeout"),
    (LimitReached, 429, "rate_limited"),
    (Overloaded, 429, "overloaded"),
    (NotReady, 503, "unhealthy"),
    (PeerUnavailable, 503, "unhealthy"),
    (EngineError, 424, "backend"),
)
"""Errors with their status and `error_type`. The first row that fits is taken, in both directions."""


class PlainRefusal(BaseModel):
    """A refusal in the words of text-embeddings-inference."""

    error: str
    error_type: str


class OpenAIError(BaseModel):
    """What is inside a refusal in OpenAI's words."""

    message: str
    type: str
    param: str | None
    code: int


class OpenAIRefusal(BaseModel):
    """A refusal in OpenAI's words."""

    error: OpenAIError


def error_of(error_type: str) -> type[PrimeError]:
    """The class that a service raised, by what it wrote; EngineError for types that are not known here."""
    return next((kind for kind, _, name in REFUSALS if name == error_type), EngineError)


# ---------------------------------------------------------------- what is wrong with a body, in words

Fault = Mapping[str, Any]
"""One of pydantic's: its `type`, `loc` and `msg`."""
_BRANCH = re.compile(r"\[|^[A-Z]|^(str|int|float|bool|constrained-str)$")
"""What pydantic puts into a place for a branch of a union; no field is named so."""


def explain(faults: Sequence[Fault]) -> str:
    """What is wrong with a body, in one sentence with the place: `inputs.1.responses.0: unknown field 'txt'`.

    Of a union pydantic reports every branch. The branch that the input was meant for is the one that was read furthest:
    a fault other than a wrong type, or else the deepest.
    """
    chosen = max(faults, key=lambda each: (not _is_of_type(each), len(each["loc"])))
    place = _place(chosen)
    if chosen["type"] == "missing" and place:
        # A misspelt field is both missing and unknown; the latter says what was written.
        chosen = next((each for each in faults if _is_misspelt(each, chosen)), chosen)
        place = _place(chosen)
    if chosen["type"] == "extra_forbidden":
        words = _unknown_field(chosen, faults)
        place = place[:-1]
    else:
        alike = [each for each in faults if _place(each) == place and _is_of_type(each) == _is_of_type(chosen)]
        words = " or ".join(dict.fromkeys(each["msg"] for each in alike))
    return f"{'.'.join(map(str, place))}: {words}" if place else words


def _is_of_type(fault: Fault) -> bool:
    return str(fault["type"]).endswith("_type")


def _place(fault: Fault) -> tuple[int | str, ...]:
    return tuple(part for part in fault["loc"] if not (isinstance(part, str) and _BRANCH.search(part)))


def _is_misspelt(fault: Fault, missing: Fault) -> bool:
    if fault["type"] != "extra_forbidden":
        return False
    return bool(get_close_matches(str(fault["loc"][-1]), [str(missing["loc"][-1])]))


def _unknown_field(fault: Fault, faults: Sequence[Fault]) -> str:
    name = str(fault["loc"][-1])
    missing = [str(each["loc"][-1]) for each in faults if each["type"] == "missing"]
    meant = get_close_matches(name, missing, n=1)
    return f"unknown field {name!r}" + (f"; did you mean {meant[0]!r}?" if meant else "")
