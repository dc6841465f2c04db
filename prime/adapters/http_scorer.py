"""`ports.Scorer` over HTTP: a scoring service that runs somewhere else, by its native route."""

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from prime.client import AsyncPrmClient
from prime.errors import InvalidInput, VersionConflict
from prime.prm_api import InfoReply, InputBody, ResponseBody, ResponseReply, ScoreBody, ScoreReply
from prime.scoring import (
    Candidate,
    CandidateScore,
    PrmConfig,
    ScorerInfo,
    ScoringReply,
    ScoringRequest,
    ScoringSeconds,
    ScoringUsage,
    StepScore,
    StepSpan,
)


class HttpScorer:
    """The records of `prime.scoring` over a client, which belongs to the caller."""

    def __init__(self, client: AsyncPrmClient) -> None:
        self._client = client

    async def score(self, request: ScoringRequest) -> ScoringReply:
        """A score per candidate, token rewards included.

        Raises:
            PrimeError: as the service raised it.
            PeerUnavailable: it cannot be reached.
        """
        return _reply(await self._client.score_body(_body(request)))

    async def score_all(self, requests: Sequence[ScoringRequest]) -> list[ScoringReply]:
        """A score per candidate of every request, all from one PRM version.

        Raises:
            VersionConflict: the PRM learnt between two of them.
        """
        replies = [await self.score(request) for request in requests]
        if len({reply.prm_version for reply in replies}) > 1:
            raise VersionConflict("the PRM learnt while these requests were scored; repeat them")
        return replies

    async def info(self) -> ScorerInfo:
        """Which PRM answers, and its limits."""
        return _info(await self._client.info())


def _body(request: ScoringRequest) -> ScoreBody:
    prompt, split = request.prompt, request.split
    if prompt.begun_ids:
        raise InvalidInput("an answer that has begun cannot be sent to another service: its route has no field for it")
    inputs = {
        "messages": list(prompt.messages) or None,
        "tools": list(prompt.tools) or None,
        "prompt": prompt.text,
        "template": "none" if prompt.rendered else "chat",
        "prompt_token_ids": prompt.token_ids,
    }
    options = {
        "step_pattern": split.pattern if split and split.pattern else None,
        "step_separator": list(split.separators) if split and not split.pattern else None,
        "step_value": request.step_value,
        "activation": request.activation,
        "aggregation": request.aggregation,
        "beta": request.beta,
        "reference": request.reference,
        "end_token": request.end_token,
        "truncation": request.truncation,
        "max_response_tokens": request.max_response_tokens,
        "require_version": request.require_version,
    }
    try:
        return ScoreBody(
            inputs=InputBody(responses=[_response_body(each) for each in request.candidates], **_given(inputs)),
            return_tokens=True,
            **_given(options),
        )
    except ValidationError as error:
        raise InvalidInput(str(error)) from None


def _response_body(candidate: Candidate) -> ResponseBody:
    fields = {
        "text": candidate.text,
        "steps": candidate.steps,
        "token_ids": candidate.token_ids,
        "step_ends": candidate.step_ends,
        "ref_logprobs": candidate.reference_logprobs,
    }
    return ResponseBody(**_given(fields))


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _reply(reply: ScoreReply) -> ScoringReply:
    return ScoringReply(
        candidates=tuple(map(_candidate, reply.responses)),
        aggregation=reply.aggregation,
        step_value=reply.step_value,
        activation=reply.activation,
        beta=reply.beta,
        reference=reply.reference,
        reference_id=reply.reference_id,
        prm_version=reply.prm_version,
        usage=ScoringUsage(
            prompt_tokens=reply.usage.prompt_tokens,
            response_tokens=reply.usage.response_tokens,
            reference_cached_tokens=reply.usage.reference_cached_tokens,
        ),
        seconds=ScoringSeconds(tokenize=0.0, queue=0.0, inference=0.0),
    )


def _candidate(response: ResponseReply) -> CandidateScore:
    return CandidateScore(
        score=response.score,
        response_reward=response.response_reward,
        aggregates=response.aggregates,
        steps=tuple(
            StepScore(
                span=StepSpan(
                    char_start=step.char_start,
                    char_end=step.char_end,
                    token_start=step.token_start,
                    token_end=step.token_end,
                ),
                reward=step.reward,
                cumulative=step.cumulative,
            )
            for step in response.steps
        ),
        token_ids=tuple(response.ids()),
        token_rewards=tuple(response.rewards()),
        truncated=response.truncated,
    )


def _info(about: InfoReply) -> ScorerInfo:
    return ScorerInfo(
        model_id=about.model_id,
        prm_version=about.prm_version,
        reference_id=about.reference_id,
        reference=about.reference,
        tokenizer_fingerprint=about.tokenizer_fingerprint,
        dtype=about.dtype,
        config=PrmConfig(
            beta=about.beta,
            aggregation=about.aggregation,
            step_value=about.step_value,
            activation=about.activation,
            separators=tuple(about.step_separators),
            end_token=about.end_token,
            step_mark=about.step_mark,
            closing=about.closing,
        ),
        generation_prompt=about.generation_prompt,
        generation_prompt_ids=tuple(about.generation_prompt_ids),
        end_text=about.end_text,
        max_tokens=about.max_input_length,
        max_candidates=about.max_client_batch_size,
        max_waiting=about.max_concurrent_requests,
        token_budget=about.max_batch_tokens,
        kind=about.kind,
    )
