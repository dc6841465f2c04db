"""`ports.Generator` over any engine that speaks OpenAI's chat completions: vLLM, SGLang, llama.cpp, OpenAI itself."""

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import structlog

from prime.chat import ChatCandidate, ChatSamples, added_usage
from prime.errors import EngineError, InvalidInput, Overloaded, PeerUnavailable, PrimeError

_AT_ONCE = 16
_LONGEST_QUOTE = 500
_LARGEST_OR_NOTHING = {"-Infinity": -9999.0}
"""Of numbers that JSON has no words for and engines send all the same: a log-prob of what cannot be, in OpenAI's words;
of the others nothing."""
_OF_A_CHOICE = frozenset(("index", "message", "finish_reason", "logprobs"))
_OF_A_REPLY = frozenset(("id", "object", "created", "model", "choices", "usage"))
_log = structlog.get_logger()


class OpenAIEngine:
    """One engine by its URL, e.g. `http://127.0.0.1:8000/v1`."""

    def __init__(self, url: str, *, key: str = "", model: str = "", timeout_s: float, setting: str) -> None:
        """`setting`: the one that the URL comes from, for messages."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._url = url.rstrip("/")
        self._model = model
        self._setting = setting
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self._client = httpx.AsyncClient(
            headers=headers, limits=limits, timeout=httpx.Timeout(timeout_s, connect=min(10.0, timeout_s))
        )

    async def sample(self, request: Mapping[str, Any], n: int) -> ChatSamples:
        """`n` candidates; of an engine that gives one per call, in `n` calls, each of which is repeated once.

        Of several calls some may fail: what came is given, and counts what did not. Only when nothing came:

        Raises:
            InvalidInput: the engine refuses the request; carries its words.
            Overloaded: the engine is at its limit.
            PeerUnavailable: it cannot be reached, took too long, or broke.
            EngineError: it refuses our key, or does not answer as OpenAI does.
        """
        body = {**request, "model": self._model or request.get("model", "")}
        if n == 1:
            return await self._call_twice(body)
        try:
            first = await self._call_twice({**body, "n": n})
        except InvalidInput:
            # Perhaps it was n that was refused; if not, the first single call is refused in the same words.
            first = await self._call_twice(_alone(body, 0))
        missing = n - len(first.candidates)
        if missing <= 0:
            return first
        others = await self._alone(body, range(n - missing, n))
        return _joined(first, others, failed=missing - len(others))

    async def models(self) -> Sequence[str]:
        """What the engine lists."""
        if self._model:
            return [self._model]
        answer = await self._send("GET", "/models", None)
        return [str(each["id"]) for each in answer.get("data", []) if isinstance(each, dict) and "id" in each]

    async def close(self) -> None:
        """Drop the connections."""
        await self._client.aclose()

    async def _alone(self, body: Mapping[str, Any], numbers: range) -> list[ChatSamples]:
        places = asyncio.Semaphore(_AT_ONCE)

        async def one(number: int) -> ChatSamples | None:
            async with places:
                try:
                    return await self._call_twice(_alone(body, number))
                except PrimeError as error:
                    _log.warning("a candidate did not come", error=str(error))
                    return None

        tasks = [asyncio.ensure_future(one(number)) for number in numbers]
        try:
            return [found for found in await asyncio.gather(*tasks) if found is not None]
        finally:
            for task in tasks:
                task.cancel()

    async def _call_twice(self, body: Mapping[str, Any]) -> ChatSamples:
        """A call, and once more where that may help."""
        try:
            return await self._call(body)
        except PrimeError as error:
            if not error.retryable:
                raise
            return await self._call(body)

    async def _call(self, body: Mapping[str, Any]) -> ChatSamples:
        answer = await self._send("POST", "/chat/completions", body)
        try:
            return ChatSamples(
                candidates=tuple(
                    ChatCandidate(
                        message=dict(choice["message"]),
                        finish_reason=choice.get("finish_reason"),
                        logprobs=choice.get("logprobs"),
                        more=_others(choice, _OF_A_CHOICE),
                    )
                    for choice in answer["choices"]
                ),
                model=str(answer.get("model") or body["model"]),
                usage=dict(answer["usage"]) if answer.get("usage") else None,
                more=_others(answer, _OF_A_REPLY),
            )
        except (KeyError, TypeError, ValueError):
            raise EngineError(f"the engine at {self._url} does not answer as OpenAI's chat completions do") from None

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        try:
            response = await self._client.request(method, self._url + path, json=body)
        except httpx.HTTPError as error:
            raise PeerUnavailable(
                f"the engine at {self._url} cannot be reached or took too long ({type(error).__name__}); is it up, and "
                f"is {self._setting} right?"
            ) from None
        if response.status_code >= 400:
            raise self._refusal(response)
        try:
            answer = json.loads(response.content, parse_constant=_LARGEST_OR_NOTHING.get)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise EngineError(f"the engine at {self._url} answers with no JSON object; its address must end with /v1")
        return answer

    def _refusal(self, response: httpx.Response) -> PrimeError:
        words = f"the engine says {response.status_code}: {response.text[:_LONGEST_QUOTE]}"
        match response.status_code:
            case 401 | 403:
                # Its words may quote the key, which is ours and not the client's.
                return EngineError(
                    f"the engine refuses this service's key with a {response.status_code}; the key is read from "
                    "PRIME_ENGINE_KEY"
                )
            case 429:
                return Overloaded(words, retry_after_s=_retry_after_s(response))
            case status if status < 500:
                return InvalidInput(words)
        return PeerUnavailable(words)


def _retry_after_s(response: httpx.Response) -> float:
    """What the engine asks for; a second where it says nothing, or a date."""
    try:
        seconds = float(response.headers.get("retry-after", ""))
    except ValueError:
        return 1.0
    return seconds if 0 < seconds < math.inf else 1.0


def _others(fields: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in known and value is not None}


def _alone(body: Mapping[str, Any], number: int) -> dict[str, Any]:
    """One of several single calls: with a seed of its own, or all would sample the same."""
    seed = body.get("seed")
    return {**body, "n": 1} | ({"seed": seed + number} if isinstance(seed, int) else {})


def _joined(first: ChatSamples, others: Sequence[ChatSamples], *, failed: int) -> ChatSamples:
    parts = [first, *others]
    return ChatSamples(
        candidates=tuple(candidate for part in parts for candidate in part.candidates),
        model=first.model,
        usage=added_usage(part.usage for part in parts),
        more=first.more,
        failed=failed,
    )
