"""What the routes share: many scoring requests answered as one, from one version of the PRM, and the headers of TEI."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.responses import JSONResponse

from prime.errors import VersionConflict
from prime.ports import Scorer
from prime.scoring import ScoringReply, ScoringRequest

_TRIES = 3


async def score_all(scorer: Scorer, requests: Sequence[ScoringRequest]) -> list[ScoringReply]:
    """Replies in order, all from one PRM version; one that fails fails all.

    Raises:
        VersionConflict: the PRM learnt between the requests, several times in a row.
    """
    for _ in range(_TRIES):
        replies = await _together(scorer, requests)
        if len({reply.prm_version for reply in replies}) == 1:
            return replies
    raise VersionConflict("the PRM learnt while this request was scored, so its scores are of two versions; repeat it")


async def _together(scorer: Scorer, requests: Sequence[ScoringRequest]) -> list[ScoringReply]:
    tasks = [asyncio.ensure_future(scorer.score(request)) for request in requests]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def scored(body: Any, replies: Sequence[ScoringReply]) -> JSONResponse:
    """An answer with where its time went, in milliseconds, and how many tokens were read."""
    return JSONResponse(body, headers=dict(timing_headers(replies)))


def timing_headers(replies: Sequence[ScoringReply]) -> Mapping[str, str]:
    """As text-embeddings-inference names them; requests run side by side, so the slowest counts."""
    seconds = [reply.seconds for reply in replies]
    tokens = sum(reply.usage.prompt_tokens + reply.usage.response_tokens for reply in replies)
    return {
        "x-tokenization-time": f"{1000 * max(each.tokenize for each in seconds):.3f}",
        "x-queue-time": f"{1000 * max(each.queue for each in seconds):.3f}",
        "x-inference-time": f"{1000 * max(each.inference for each in seconds):.3f}",
        "x-compute-tokens": str(tokens),
    }


def usage_of(replies: Sequence[ScoringReply]) -> dict[str, int]:
    """Token counts in OpenAI's words: what is read is the prompt, and nothing is completed."""
    tokens = sum(reply.usage.prompt_tokens + reply.usage.response_tokens for reply in replies)
    return {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}
