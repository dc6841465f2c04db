"""`POST /v1/prm/score`: everything that the PRM can say about candidates; what the other routes cannot carry."""

from collections.abc import Sequence

from fastapi import APIRouter, Response

from prime.errors import EmptyInput, InvalidInput
from prime.prm_api import (
    InputBody,
    InputReply,
    Packing,
    PlainRefusal,
    ResponseBody,
    ResponseReply,
    ScoreBody,
    ScoreReply,
    ScoreUsage,
    StepReply,
    pack,
)
from prime.scoring import Aggregation, Candidate, CandidateScore, Prompt, ScoringReply, ScoringRequest, StepSplit
from services.prm.http.errors import PlainRoute, finite, refused
from services.prm.http.scored import scored_shape
from services.prm.http.scorers import Scorers


def build_router(scorers: Scorers) -> APIRouter:
    """The route."""
    router = APIRouter(route_class=PlainRoute, tags=["score"])

    @router.post("/v1/prm/score", response_model=ScoreReply, responses=refused(PlainRefusal, 412))
    async def score(body: ScoreBody) -> Response:
        """Token, step and response rewards of every candidate."""
        scorer = scorers.of(body.model)
        inputs = body.inputs if isinstance(body.inputs, list) else [body.inputs]
        if not inputs:
            raise EmptyInput("inputs: there is nothing to score")
        replies = await scorer.score_all([_request(body, each) for each in inputs])
        model_id = (await scorer.info()).model_id
        return scored_shape(_reply(body, model_id, replies), replies)

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
        max_response_tokens=body.max_response_tokens,
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


def _reply(body: ScoreBody, model_id: str, replies: Sequence[ScoringReply]) -> ScoreReply:
    first = replies[0]
    prompt_tokens = sum(reply.usage.prompt_tokens for reply in replies)
    response_tokens = sum(reply.usage.response_tokens for reply in replies)
    return ScoreReply(
        model=model_id,
        data=[
            InputReply(index=index, responses=[_response(body, each) for each in one.candidates])
            for index, one in enumerate(replies)
        ],
        aggregation=first.aggregation,
        step_value=first.step_value,
        activation=first.activation,
        beta=first.beta,
        reference=first.reference,
        reference_id=first.reference_id,
        prm_version=first.prm_version,
        usage=ScoreUsage(
            prompt_tokens=prompt_tokens,
            response_tokens=response_tokens,
            total_tokens=prompt_tokens + response_tokens,
            reference_cached_tokens=sum(each.usage.reference_cached_tokens for each in replies),
        ),
        encoding=Packing() if body.encoding_format == "base64" and body.return_tokens else None,
    )


def _response(body: ScoreBody, candidate: CandidateScore) -> ResponseReply:
    reply = ResponseReply(
        score=finite(candidate.score),
        response_reward=finite(candidate.response_reward),
        aggregates=dict(candidate.aggregates),
        num_tokens=len(candidate.token_rewards),
        truncated=candidate.truncated,
        steps=[
            StepReply(
                char_start=step.span.char_start,
                char_end=step.span.char_end,
                token_start=step.span.token_start,
                token_end=step.span.token_end,
                reward=step.reward,
                cumulative=step.cumulative,
            )
            for step in candidate.steps
        ],
    )
    if body.return_tokens:
        # Assigned, which validates nothing: a reply may hold 100,000 of these numbers.
        as_base64 = body.encoding_format == "base64"
        reply.token_ids = pack("I", candidate.token_ids) if as_base64 else list(candidate.token_ids)
        reply.token_rewards = pack("f", candidate.token_rewards) if as_base64 else list(candidate.token_rewards)
    return reply
