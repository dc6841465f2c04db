"""`POST /v1/chat/completions`: OpenAI's route with `best_of`, answered with the candidates that the PRM chose."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, StreamingResponse

from prime.errors import InvalidInput
from prime.prm_api import ChatBody, Completion
from services.prm.best_of_n import Adaptive, BestOfN, BestOfReply, BestOfRequest, SearchOptions
from services.prm.http.errors import OpenAIRoute, fault_of, openai_body

_KEEP_ALIVE_SECONDS = 5.0
_EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
_AS_A_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The chosen candidates; with `stream` as events, each a chunk in OpenAI's form.",
        "content": {"text/event-stream": {"itemSchema": _EVENT}},
    }
}
_OURS = frozenset(("n", "best_of", "stream", "stream_options", "prime"))


def build_router(best_of_n: BestOfN) -> APIRouter:
    """The routes."""
    router = APIRouter(route_class=OpenAIRoute, tags=["best-of-N"])

    @router.post("/v1/chat/completions", response_model=Completion, responses=_AS_A_STREAM)
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

    return router


def _request(body: ChatBody) -> BestOfRequest:
    passed_on = {key: value for key, value in body.model_dump(exclude_unset=True).items() if key not in _OURS}
    try:
        json.dumps(passed_on, allow_nan=False)
    except ValueError:
        raise InvalidInput("a number of the request is infinite or none at all, which no engine takes") from None
    adaptive = body.options.adaptive
    return BestOfRequest(
        body=passed_on,
        n=body.n or 1,
        best_of=body.best_of,
        selection=body.options.selection,
        aggregation=body.options.aggregation,
        beta=body.options.beta,
        min_candidates=body.options.min_candidates,
        separators=_texts(body.options.step_separator),
        adaptive=None if adaptive is None else Adaptive(**adaptive.model_dump()),
        search=SearchOptions(
            strategy=body.options.strategy,
            width=body.options.width,
            delimiters=_texts(body.options.step_delimiters),
            max_steps=body.options.max_steps,
            max_sampled_tokens=body.options.max_sampled_tokens,
        ),
    )


def _texts(given: str | list[str] | None) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())


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
                **candidate.more,
            }
            for index, candidate in enumerate(candidates)
        ],
        # What was sampled: all candidates, not the chosen ones alone.
        "usage": reply.samples.usage,
    }
    return answer | ({"prime": _extension(reply)} if body.options.scores else {})


def _head(reply: BestOfReply, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": reply.samples.model,
        **reply.samples.more,
    }


def _extension(reply: BestOfReply) -> dict[str, Any]:
    extension: dict[str, Any] = {
        "selection": reply.selection,
        "selected": reply.selected,
        "scores": reply.scores,
        "candidates": len(reply.scores),
    }
    if reply.replies:
        first = reply.replies[0]
        extension |= {
            "aggregation": first.aggregation,
            "beta": first.beta,
            "prm_version": first.prm_version,
            "reference_id": first.reference_id,
            "truncated": any(candidate.truncated for each in reply.replies for candidate in each.candidates),
            "scored_tokens": sum(each.usage.prompt_tokens + each.usage.response_tokens for each in reply.replies),
        }
    if reply.cut:
        extension["cut"] = reply.cut
    if reply.samples.failed:
        extension["failed"] = reply.samples.failed
    if reply.fallback:
        extension["fallback"] = reply.fallback
    if reply.saved:
        extension["saved"] = reply.saved
    if reply.searched is not None:
        extension["search"] = {
            "rounds": reply.searched.rounds,
            "engine_calls": reply.searched.engine_calls,
            "sampled_tokens": reply.searched.sampled_tokens,
            "scored_tokens": reply.searched.scored_tokens,
        }
    if reply.unread:
        extension["unread"] = reply.unread
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
        last = {
            "index": index,
            "delta": {},
            "finish_reason": candidate.finish_reason,
            "logprobs": candidate.logprobs,
            **candidate.more,
        }
        events.append(_event(head | {"choices": [last]}))
    if body.options.scores or wants_usage:
        final = head | {"choices": []}
        final |= {"usage": reply.samples.usage} if wants_usage else {}
        events.append(_event(final | ({"prime": _extension(reply)} if body.options.scores else {})))
    return events


def _deltas(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The role first, then the message whole, with its tool calls numbered as streams have them."""
    rest = {key: value for key, value in message.items() if key not in ("role", "tool_calls") and value is not None}
    calls = [{"index": index, **call} for index, call in enumerate(message.get("tool_calls") or [])]
    first: dict[str, Any] = {"role": message.get("role", "assistant")}
    return [first, *([rest] if rest else []), *([{"tool_calls": calls}] if calls else [])]


def _event(body: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"
