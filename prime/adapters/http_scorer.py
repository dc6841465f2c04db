"""`ports.Scorer` over HTTP: a scoring service that runs somewhere else, by its native route."""

from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from prime import errors
from prime.errors import EngineError, PeerUnavailable, PrimeError
from prime.patience import patiently
from prime.scoring import (
    Activation,
    Aggregation,
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
    StepValue,
)
from prime.types import ReferenceSource

_CLASSES: Mapping[str, type[PrimeError]] = {
    "empty": errors.EmptyInput,
    "too_long": errors.InputTooLong,
    "batch_too_large": errors.BatchTooLarge,
    "validation": errors.InvalidInput,
    "unauthenticated": errors.Unauthenticated,
    "version": errors.VersionConflict,
    "overloaded": errors.Overloaded,
    "unhealthy": errors.NotReady,
    "backend": errors.EngineError,
}


class HttpScorer:
    """One service by its URL, e.g. `http://127.0.0.1:9152`. What is overloaded is asked again for `patience_s`."""

    def __init__(self, url: str, key: str, *, timeout_s: float, patience_s: float = 0.0) -> None:
        self._url = url.rstrip("/")
        self._patience_s = patience_s
        headers = {"Authorization": f"Bearer {key}"}
        self._client = httpx.AsyncClient(base_url=self._url, headers=headers, timeout=timeout_s)

    async def score(self, request: ScoringRequest) -> ScoringReply:
        """A score per candidate, token rewards included.

        Raises:
            PrimeError: as the service raised it.
            PeerUnavailable: it cannot be reached.
        """
        answer = await patiently(
            lambda: self._send("POST", "/v1/prm/score", _encode(request)), seconds=self._patience_s
        )
        return _decode(answer)

    async def score_all(self, requests: Sequence[ScoringRequest]) -> list[ScoringReply]:
        """A score per candidate of every request, all from one PRM version.

        Raises:
            VersionConflict: the PRM learnt between two of them.
        """
        replies = [await self.score(request) for request in requests]
        if len({reply.prm_version for reply in replies}) > 1:
            raise errors.VersionConflict("the PRM learnt while these requests were scored; repeat them")
        return replies

    async def info(self) -> ScorerInfo:
        """Which PRM answers, and its limits."""
        return _decode_info(await patiently(lambda: self._send("GET", "/info", None), seconds=self._patience_s))

    async def close(self) -> None:
        """Drop the connections."""
        await self._client.aclose()

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        try:
            response = await self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise PeerUnavailable(
                f"the scoring service at {self._url} cannot be reached or took too long ({type(error).__name__})"
            ) from None
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or (response.status_code >= 400 and "error" not in answer):
            raise EngineError(f"{self._url} is no scoring service: {path} answers {response.status_code}")
        if response.status_code >= 400:
            raise _CLASSES.get(str(answer.get("error_type")), EngineError)(str(answer["error"]))
        return answer


def _encode(request: ScoringRequest) -> dict[str, Any]:
    prompt, split = request.prompt, request.split
    inputs = {
        "messages": list(prompt.messages) or None,
        "tools": list(prompt.tools) or None,
        "prompt": prompt.text,
        "template": "none" if prompt.rendered else "chat",
        "prompt_token_ids": prompt.token_ids,
        "responses": [_encode_candidate(candidate) for candidate in request.candidates],
    }
    options = {
        "step_pattern": split.pattern if split and split.pattern else None,
        "step_separator": split.separators if split and not split.pattern else None,
        "step_value": request.step_value,
        "activation": request.activation,
        "aggregation": request.aggregation,
        "beta": request.beta,
        "reference": request.reference,
        "end_token": request.end_token,
        "truncation": request.truncation,
        "require_version": request.require_version,
        "return_tokens": True,
    }
    return {"inputs": _given(inputs), **_given(options)}


def _encode_candidate(candidate: Candidate) -> dict[str, Any]:
    return _given(
        {
            "text": candidate.text,
            "steps": candidate.steps,
            "token_ids": candidate.token_ids,
            "step_ends": candidate.step_ends,
            "ref_logprobs": candidate.reference_logprobs,
        }
    )


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _decode(answer: Mapping[str, Any]) -> ScoringReply:
    usage = answer["usage"]
    return ScoringReply(
        candidates=tuple(_decode_candidate(each) for each in answer["data"][0]["responses"]),
        aggregation=Aggregation(answer["aggregation"]),
        step_value=StepValue(answer["step_value"]),
        activation=Activation(answer["activation"]),
        beta=answer["beta"],
        reference=ReferenceSource(answer["reference"]),
        reference_id=answer["reference_id"],
        prm_version=answer["prm_version"],
        usage=ScoringUsage(
            prompt_tokens=usage["prompt_tokens"],
            response_tokens=usage["response_tokens"],
            reference_cached_tokens=usage["reference_cached_tokens"],
        ),
        seconds=ScoringSeconds(tokenize=0.0, queue=0.0, inference=0.0),
    )


def _decode_candidate(answer: Mapping[str, Any]) -> CandidateScore:
    return CandidateScore(
        score=answer["score"],
        response_reward=answer["response_reward"],
        aggregates=answer["aggregates"],
        steps=tuple(
            StepScore(
                span=StepSpan(
                    char_start=step["char_start"],
                    char_end=step["char_end"],
                    token_start=step["token_start"],
                    token_end=step["token_end"],
                ),
                reward=step["reward"],
                cumulative=step["cumulative"],
            )
            for step in answer["steps"]
        ),
        token_ids=tuple(answer["token_ids"]),
        token_rewards=tuple(answer["token_rewards"]),
        truncated=answer["truncated"],
    )


def _decode_info(answer: Mapping[str, Any]) -> ScorerInfo:
    return ScorerInfo(
        model_id=answer["model_id"],
        prm_version=answer["prm_version"],
        reference_id=answer["reference_id"],
        reference=ReferenceSource(answer["reference"]),
        tokenizer_fingerprint=answer["tokenizer_fingerprint"],
        dtype=answer["dtype"],
        config=PrmConfig(
            beta=answer["beta"],
            aggregation=Aggregation(answer["aggregation"]),
            step_value=StepValue(answer["step_value"]),
            activation=Activation(answer["activation"]),
            separators=tuple(answer["step_separators"]),
            end_token=answer["end_token"],
        ),
        generation_prompt=answer["generation_prompt"],
        generation_prompt_ids=tuple(answer["generation_prompt_ids"]),
        end_text=answer["end_text"],
        max_tokens=answer["max_input_length"],
        max_candidates=answer["max_client_batch_size"],
        max_waiting=answer["max_concurrent_requests"],
        token_budget=answer["max_batch_tokens"],
    )
