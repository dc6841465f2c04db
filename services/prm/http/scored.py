"""What the routes share: where the time of an answer went, in the headers that text-embeddings-inference has."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from prime.scoring import ScoringReply


def scored(body: Any, replies: Sequence[ScoringReply]) -> JSONResponse:
    """An answer with where its time went, in milliseconds, and how many tokens were read."""
    return JSONResponse(body, headers=dict(timing_headers(replies)))


def scored_shape(body: BaseModel, replies: Sequence[ScoringReply]) -> Response:
    """The same for an answer whose shape is `prime.prm_api`'s. Fields without a value are left out."""
    return Response(
        body.model_dump_json(exclude_none=True), media_type="application/json", headers=dict(timing_headers(replies))
    )


def timing_headers(replies: Sequence[ScoringReply]) -> Mapping[str, str]:
    """All replies are of one batch; only what they were encoded from differs."""
    seconds = [reply.seconds for reply in replies]
    tokens = sum(reply.usage.prompt_tokens + reply.usage.response_tokens for reply in replies)
    return {
        "x-tokenization-time": f"{1000 * sum(each.tokenize for each in seconds):.3f}",
        "x-queue-time": f"{1000 * max(each.queue for each in seconds):.3f}",
        "x-inference-time": f"{1000 * max(each.inference for each in seconds):.3f}",
        "x-compute-tokens": str(tokens),
    }


def usage_of(replies: Sequence[ScoringReply]) -> dict[str, int]:
    """Token counts in OpenAI's words: what is read is the prompt, and nothing is completed."""
    tokens = sum(reply.usage.prompt_tokens + reply.usage.response_tokens for reply in replies)
    return {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}
