"""`POST /v1/prm/score`: everything that the PRM can say about candidates; what the other routes cannot carry."""

import base64
from array import array
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from prime.errors import EmptyInput, InvalidInput
from prime.ports import Scorer
from prime.scoring import (
    Activation,
    Aggregation,
    Candidate,
    CandidateScore,
    Prompt,
    ScoringReply,
    ScoringRequest,
    StepSplit,
    StepValue,
    Truncation,
)
from prime.types import ReferenceSource
from services.prm.http.bodies import Listed, Numbers
from services.prm.http.errors import PlainRoute, finite
from services.prm.http.scored import scored

_MOST_SEPARATORS = 16
_LONGEST_SEPARATOR = 200
_LARGEST_BETA = 1e6
_Separator = Annotated[str, Field(max_length=_LONGEST_SEPARATOR)]
_LogProb = Annotated[float, Field(le=1e-3, ge=-1e6)]
"""At most 0, but for rounding."""
Separators = _Separator | Annotated[list[_Separator], Field(fail_fast=True, max_length=_MOST_SEPARATORS)]
Beta = Annotated[float, Field(gt=0, le=_LARGEST_BETA)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ResponseBody(_Body):
    """One candidate: its text, its steps, or its token ids."""

    text: str | None = None
    steps: Listed[str] | None = Field(None, description="Joined by the first separator; each is a step.")
    token_ids: Numbers[int] | None = Field(None, description="As sampled, end token included.")
    step_ends: Listed[int] | None = Field(None, description="With token_ids: one past the last token of every step.")
    ref_logprobs: Numbers[_LogProb] | None = Field(
        None, description="With token_ids: of every token under the reference, for reference 'supplied'."
    )


class InputBody(_Body):
    """A question with its candidates; exactly one of messages, prompt and prompt_token_ids."""

    messages: Listed[dict[str, Any]] | None = Field(None, description="As in chat completions.")
    tools: Listed[dict[str, Any]] | None = None
    prompt: str | None = Field(None, description="One user turn; with template 'none' the prompt as the PRM reads it.")
    prompt_token_ids: Numbers[int] | None = None
    template: Literal["chat", "none"] = "chat"
    responses: Listed[str | ResponseBody]


class ScoreBody(_Body):
    """What is asked. Options that are left out are as the PRM's folder says; `/info` shows them."""

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
    model: str | None = Field(None, description="Not looked at: a service has one PRM.")
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
    end_token: bool | None = Field(None, description="Whether the end token is appended to a text, and scored.")
    truncation: Truncation = Truncation.ERROR
    require_version: int | None = Field(None, description="412 unless this version of the PRM answers.")
    return_tokens: bool = Field(False, description="With token ids and the reward of every token.")
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="base64: token_rewards as little-endian float32, token_ids as little-endian uint32."
    )


def build_router(scorer: Scorer) -> APIRouter:
    """The route."""
    router = APIRouter(route_class=PlainRoute, tags=["score"])

    @router.post("/v1/prm/score")
    async def score(body: ScoreBody) -> JSONResponse:
        """Token, step and response rewards of every candidate."""
        inputs = body.inputs if isinstance(body.inputs, list) else [body.inputs]
        if not inputs:
            raise EmptyInput("inputs: there is nothing to score")
        replies = await scorer.score_all([_request(body, each) for each in inputs])
        model_id = (await scorer.info()).model_id
        return scored(_reply(body, model_id, replies), replies)

    return router


def _request(body: ScoreBody, given: InputBody) -> ScoringRequest:
    if given.template == "none" and given.prompt is None:
        raise InvalidInput("template 'none' is for a prompt given as text; messages are rendered, token ids never")
    aggregation = body.aggregation[0] if isinstance(body.aggregation, list) and body.aggregation else body.aggregation
    return ScoringRequest(
        prompt=Prompt(
            messages=tuple(given.messages or ()),
            tools=tuple(given.tools or ()),
            text=given.prompt,
            rendered=given.template == "none",
            token_ids=None if given.prompt_token_ids is None else tuple(given.prompt_token_ids),
        ),
        candidates=tuple(map(_candidate, given.responses)),
        split=_split(body),
        step_value=body.step_value,
        activation=body.activation,
        aggregation=aggregation if isinstance(aggregation, Aggregation) else None,
        beta=body.beta,
        reference=body.reference,
        end_token=body.end_token,
        truncation=body.truncation,
        require_version=body.require_version,
    )


def _candidate(response: str | ResponseBody) -> Candidate:
    if isinstance(response, str):
        return Candidate(text=response)
    return Candidate(
        text=response.text,
        steps=None if response.steps is None else tuple(response.steps),
        token_ids=None if response.token_ids is None else tuple(response.token_ids),
        step_ends=None if response.step_ends is None else tuple(response.step_ends),
        reference_logprobs=None if response.ref_logprobs is None else tuple(response.ref_logprobs),
    )


def _split(body: ScoreBody) -> StepSplit | None:
    if body.step_pattern is not None:
        if body.step_separator is not None:
            raise InvalidInput("give step_separator or step_pattern, not both")
        return StepSplit(pattern=body.step_pattern)
    if body.step_separator is None:
        return None
    separators = [body.step_separator] if isinstance(body.step_separator, str) else body.step_separator
    if not separators:
        raise InvalidInput("step_separator: the list is empty")
    return StepSplit(separators=tuple(separators))


def _reply(body: ScoreBody, model_id: str, replies: Sequence[ScoringReply]) -> dict[str, Any]:
    first = replies[0]
    prompt_tokens = sum(reply.usage.prompt_tokens for reply in replies)
    response_tokens = sum(reply.usage.response_tokens for reply in replies)
    reply: dict[str, Any] = {
        "object": "prm.score",
        "model": model_id,
        "data": [
            {"index": index, "responses": [_response(body, each) for each in one.candidates]}
            for index, one in enumerate(replies)
        ],
        "aggregation": first.aggregation,
        "step_value": first.step_value,
        "activation": first.activation,
        "beta": first.beta,
        "reference": first.reference,
        "reference_id": first.reference_id,
        "prm_version": first.prm_version,
        "usage": {
            "prompt_tokens": prompt_tokens,
            "response_tokens": response_tokens,
            "total_tokens": prompt_tokens + response_tokens,
            "reference_cached_tokens": sum(each.usage.reference_cached_tokens for each in replies),
        },
    }
    if body.encoding_format == "base64" and body.return_tokens:
        reply["encoding"] = {"token_rewards": "float32", "token_ids": "uint32", "byteorder": "little"}
    return reply


def _response(body: ScoreBody, candidate: CandidateScore) -> dict[str, Any]:
    reply: dict[str, Any] = {
        "score": finite(candidate.score),
        "response_reward": candidate.response_reward,
        "aggregates": dict(candidate.aggregates),
        "num_tokens": len(candidate.token_rewards),
        "truncated": candidate.truncated,
        "steps": [
            {
                "char_start": step.span.char_start,
                "char_end": step.span.char_end,
                "token_start": step.span.token_start,
                "token_end": step.span.token_end,
                "reward": step.reward,
                "cumulative": step.cumulative,
            }
            for step in candidate.steps
        ],
    }
    if body.return_tokens:
        as_base64 = body.encoding_format == "base64"
        reply["token_ids"] = _packed("I", candidate.token_ids) if as_base64 else candidate.token_ids
        reply["token_rewards"] = _packed("f", candidate.token_rewards) if as_base64 else candidate.token_rewards
    return reply


def _packed(kind: Literal["I", "f"], values: Sequence[float]) -> str:
    numbers = array(kind, values)
    return base64.b64encode(numbers.tobytes()).decode()
