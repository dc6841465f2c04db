"""`POST /v1/chat/completions`: OpenAI's route with `best_of`, answered with the candidates that the PRM chose."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from prime.scoring import Aggregation
from services.prm.best_of_n import BestOfN, BestOfReply, BestOfRequest, Selection
from services.prm.http.errors import OpenAIRoute, fault_of, openai_body

_KEEP_ALIVE_SECONDS = 5.0
_OURS = frozenset(("n", "best_of", "stream", "stream_options", "prime"))


class PrimeOptions(BaseModel):
    """Our part of a request; everything may be left out."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    selection: Selection | None = None
    aggregation: Aggregation | None = None
    beta: float | None = Field(None, gt=0)
    step_separator: list[str] | None = None
    scores: bool = Field(True, description="Whether the reply has a field `prime`; strict clients may refuse it.")


class ChatBody(BaseModel):
    """A chat completion. What is not named here goes to the engine as it is."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [{"model": "qwen", "messages": [{"role": "user", "content": "What is 7 * 8?"}], "best_of": 8}]
        },
    )

    messages: list[dict[str, Any]] = Field(min_length=1)
    n: int = Field(1, ge=1, description="Choices in the reply: the best of the candidates.")
    best_of: int | None = Field(None, ge=1, description="Candidates that are sampled.")
    stream: bool | None = False
    stream_options: dict[str, Any] | None = None
    prime: PrimeOptions = PrimeOptions()


def build_router(best_of_n: BestOfN) -> APIRouter:
    """The routes."""
    router = APIRouter(route_class=OpenAIRoute, tags=["best-of-N"])

    @router.post("/v1/chat/completions", response_model=None)
    async def complete(body: ChatBody) -> Response:
        """The best of several answers."""
        if not body.stream:
            return JSONResponse(_completion(await best_of_n.complete(_request(body)), body))
        working = asyncio.ensure_future(best_of_n.complete(_request(body)))
        try:
            # What fails soon fails with a status; later only the stream itself can say it.
            await asyncio.wait([working], timeout=_KEEP_ALIVE_SECONDS)
            if working.done():
                working.result()
        except BaseException:
            working.cancel()
            raise
        return StreamingResponse(_stream(working, body), media_type="text/event-stream")

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        """What the engine serves."""
        data = [{"id": name, "object": "model", "owned_by": "engine"} for name in await best_of_n.models()]
        return {"object": "list", "data": data}

    return router


def _request(body: ChatBody) -> BestOfRequest:
    passed_on = {key: value for key, value in body.model_dump(exclude_unset=True).items() if key not in _OURS}
    return BestOfRequest(
        body=passed_on,
        n=body.n,
        best_of=body.best_of,
        selection=body.prime.selection,
        aggregation=body.prime.aggregation,
        beta=body.prime.beta,
        separators=tuple(body.prime.step_separator or ()),
    )


# ---------------------------------------------------------------- the reply


def _completion(reply: BestOfReply, body: ChatBody) -> dict[str, Any]:
    candidates = [reply.samples.candidates[number] for number in reply.selected]
    answer = _head(reply, "chat.completion") | {
        "choices": [
            {
                "index": index,
                "message": dict(candidate.message),
                "finish_reason": candidate.finish_reason,
                "logprobs": candidate.logprobs,
            }
            for index, candidate in enumerate(candidates)
        ],
        "usage": _usage(reply),
    }
    return answer | ({"prime": _extension(reply)} if body.prime.scores else {})


def _head(reply: BestOfReply, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": reply.samples.model,
    }


def _usage(reply: BestOfReply) -> dict[str, int]:
    """What the engine was asked for and sampled: all candidates, not the chosen ones alone."""
    prompt, completion = reply.samples.prompt_tokens, reply.samples.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _extension(reply: BestOfReply) -> dict[str, Any]:
    extension: dict[str, Any] = {
        "selection": reply.selection,
        "selected": reply.selected,
        "scores": reply.scores,
        "candidates": len(reply.scores),
    }
    if reply.reply is not None:
        extension |= {
            "aggregation": reply.reply.aggregation,
            "beta": reply.reply.beta,
            "prm_version": reply.reply.prm_version,
            "reference_id": reply.reply.reference_id,
            "truncated": any(candidate.truncated for candidate in reply.reply.candidates),
            "scored_tokens": reply.reply.usage.prompt_tokens + reply.reply.usage.response_tokens,
        }
    if reply.classes is not None:
        extension |= {"answers": reply.classes.answers, "classes": reply.classes.classes}
    return extension


# ---------------------------------------------------------------- as a stream


async def _stream(working: "asyncio.Future[BestOfReply]", body: ChatBody) -> AsyncIterator[str]:
    """Comments while candidates are sampled, then the chosen ones: nothing can be known before all are there."""
    try:
        while not working.done():
            yield ": sampling\n\n"
            await asyncio.wait([working], timeout=_KEEP_ALIVE_SECONDS)
        try:
            reply = working.result()
        except Exception as error:  # noqa: BLE001  the headers are sent; the stream must say it
            yield _event(openai_body(fault_of(error)))
            return
        for event in _chunks(reply, body):
            yield event
        yield "data: [DONE]\n\n"
    finally:
        # Not waited for: this generator may be cancelled more than once, and a second time in the middle of the first
        # would break off how the engine's connection is closed.
        working.cancel()


def _chunks(reply: BestOfReply, body: ChatBody) -> list[str]:
    head = _head(reply, "chat.completion.chunk")
    wants_usage = bool((body.stream_options or {}).get("include_usage"))
    events = []
    for index, number in enumerate(reply.selected):
        candidate = reply.samples.candidates[number]
        for delta in _deltas(candidate.message):
            choice = {"index": index, "delta": delta, "finish_reason": None, "logprobs": None}
            events.append(_event(head | {"choices": [choice]}))
        last = {"index": index, "delta": {}, "finish_reason": candidate.finish_reason, "logprobs": candidate.logprobs}
        events.append(_event(head | {"choices": [last]}))
    if body.prime.scores or wants_usage:
        final = head | {"choices": []}
        final |= {"usage": _usage(reply)} if wants_usage else {}
        events.append(_event(final | ({"prime": _extension(reply)} if body.prime.scores else {})))
    return events


def _deltas(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The role first, then the message whole, with its tool calls numbered as streams have them."""
    rest = {key: value for key, value in message.items() if key not in ("role", "tool_calls") and value is not None}
    calls = [{"index": index, **call} for index, call in enumerate(message.get("tool_calls") or [])]
    first: dict[str, Any] = {"role": message.get("role", "assistant")}
    return [first, *([rest] if rest else []), *([{"tool_calls": calls}] if calls else [])]


def _event(body: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"
