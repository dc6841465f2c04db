"""A typed client of the PRM's HTTP API, sync and async. Needs httpx and pydantic alone: the extra `client`.

    from prime.client import PrmClient

    with PrmClient("http://127.0.0.1:9152", key) as client:
        reply = client.score(prompt="What is 7 * 8?", responses=["7 * 8 = 56", "7 * 8 = 54"])
        reply.scores                                # [0.14, -0.32]
        reply.responses[0].steps[0].reward          # of the first step
        client.best_of_n(prompt="What is 7 * 8?", best_of=8, temperature=1.0).text

`AsyncPrmClient` has the same methods to be awaited. Both build calls and read answers by the functions at the end of
this file, and differ in how they send and wait.

Every method raises the project's error classes (`prime.errors`) with the service's words. Retryable ones are tried
again for `patience_s`, not sooner than the service's `Retry-After` says. `timeout_s` bounds a call with all its tries;
the service is told, as `X-Request-Timeout`, and drops the work when that time is over.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from urllib.parse import urlencode

import httpx
from pydantic import BaseModel, ValidationError

from prime.errors import EngineError, InvalidInput, Overloaded, PeerUnavailable, PrimeError, SettingsError, TookTooLong
from prime.patience import Patience
from prime.prm_api import (
    ChatBody,
    Completion,
    InfoReply,
    InputBody,
    PrimeOptions,
    ResponseBody,
    ScoreBody,
    ScoreOptions,
    ScoreReply,
    error_of,
    explain,
)

_GRACE_S = 5.0
"""The service reports that a request's time is over; this is how much longer the client waits for that report."""
_SCORE, _INFO, _CHAT = "/v1/prm/score", "/info", "/v1/chat/completions"

ReplyT = TypeVar("ReplyT", bound=BaseModel)
Messages = Sequence[Mapping[str, Any]]
Responses = Sequence[str | ResponseBody]


class PrmClient:
    """A scoring service by its URL, e.g. `PrmClient("http://127.0.0.1:9152", key)`; close it, or use it with `with`.

    Args:
        url: of the service, without a path.
        key: the API key; empty for a service that wants none.
        timeout_s: seconds that a call may take with all its tries.
        patience_s: seconds for which what can be retried is, from the first failure.

    Raises:
        SettingsError: the URL has no scheme.
    """

    def __init__(self, url: str, key: str = "", *, timeout_s: float = 600.0, patience_s: float = 60.0) -> None:
        self._peer = _Peer(url=_checked(url), timeout_s=timeout_s, patience_s=patience_s)
        self._http = httpx.Client(base_url=self._peer.url, headers=_key_header(key))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def score(
        self,
        responses: Responses,
        *,
        prompt: str | None = None,
        messages: Messages | None = None,
        return_tokens: bool = False,
        options: ScoreOptions | None = None,
        timeout_s: float | None = None,
    ) -> ScoreReply:
        """Score the responses to one question, given as `prompt` (one user turn) or as `messages`.

        Raises:
            InvalidInput: the question or a response cannot be scored (EmptyInput, InputTooLong among them).
            PrimeError: any other class of `prime.errors`, as the service raised it.
        """
        body = _score_body(responses, prompt, messages, return_tokens, options)
        return self.score_body(body, timeout_s=timeout_s)

    def score_body(self, body: ScoreBody, *, timeout_s: float | None = None) -> ScoreReply:
        """Score everything that the route takes: several questions, token ids, prompts that are rendered already.

        Raises:
            PrimeError: as the service raised it.
        """
        return self._send(_Call("POST", _SCORE, ScoreReply, body), timeout_s)

    def info(self, *, model: str = "", timeout_s: float | None = None) -> InfoReply:
        """Which PRM answers, how it reads, and the limits; `model` names one where the service has several.

        Raises:
            UnknownModel: it has several, and none of this name.
            PrimeError: as the service raised it.
        """
        return self._send(_Call("GET", _info_path(model), InfoReply), timeout_s)

    def best_of_n(
        self,
        *,
        prompt: str | None = None,
        messages: Messages | None = None,
        options: PrimeOptions | None = None,
        timeout_s: float | None = None,
        **fields: Any,
    ) -> Completion:
        """The best answers to a question; `fields` are `n`, `best_of`, and whatever the engine takes.

        Raises:
            InvalidInput: options that cannot be served; nothing was sampled.
            SettingsError: the service has no engine.
            PrimeError: any other class of `prime.errors`, as the service raised it.
        """
        return self._send(_Call("POST", _CHAT, Completion, _chat_body(prompt, messages, options, fields)), timeout_s)

    def _send(self, call: "_Call[ReplyT]", timeout_s: float | None) -> ReplyT:
        tries = self._peer.tries(timeout_s)
        while True:
            try:
                response = self._http.request(
                    call.method, call.path, content=call.content, headers=tries.headers, timeout=tries.wait_s
                )
            except httpx.HTTPError as error:
                pause = tries.pause_after(self._peer.unreached(error))
            else:
                refusal = self._peer.refusal(call.path, response)
                if refusal is None:
                    return self._peer.read(call, response)
                pause = tries.pause_after(refusal, response)
            time.sleep(pause)


class AsyncPrmClient:
    """`PrmClient` for asyncio: `async with AsyncPrmClient("http://127.0.0.1:9152", key) as client`."""

    def __init__(self, url: str, key: str = "", *, timeout_s: float = 600.0, patience_s: float = 60.0) -> None:
        self._peer = _Peer(url=_checked(url), timeout_s=timeout_s, patience_s=patience_s)
        self._http = httpx.AsyncClient(base_url=self._peer.url, headers=_key_header(key))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def score(
        self,
        responses: Responses,
        *,
        prompt: str | None = None,
        messages: Messages | None = None,
        return_tokens: bool = False,
        options: ScoreOptions | None = None,
        timeout_s: float | None = None,
    ) -> ScoreReply:
        """As `PrmClient.score`."""
        body = _score_body(responses, prompt, messages, return_tokens, options)
        return await self.score_body(body, timeout_s=timeout_s)

    async def score_body(self, body: ScoreBody, *, timeout_s: float | None = None) -> ScoreReply:
        """As `PrmClient.score_body`."""
        return await self._send(_Call("POST", _SCORE, ScoreReply, body), timeout_s)

    async def info(self, *, model: str = "", timeout_s: float | None = None) -> InfoReply:
        """As `PrmClient.info`."""
        return await self._send(_Call("GET", _info_path(model), InfoReply), timeout_s)

    async def best_of_n(
        self,
        *,
        prompt: str | None = None,
        messages: Messages | None = None,
        options: PrimeOptions | None = None,
        timeout_s: float | None = None,
        **fields: Any,
    ) -> Completion:
        """As `PrmClient.best_of_n`."""
        body = _chat_body(prompt, messages, options, fields)
        return await self._send(_Call("POST", _CHAT, Completion, body), timeout_s)

    async def _send(self, call: "_Call[ReplyT]", timeout_s: float | None) -> ReplyT:
        tries = self._peer.tries(timeout_s)
        while True:
            try:
                response = await self._http.request(
                    call.method, call.path, content=call.content, headers=tries.headers, timeout=tries.wait_s
                )
            except httpx.HTTPError as error:
                pause = tries.pause_after(self._peer.unreached(error))
            else:
                refusal = self._peer.refusal(call.path, response)
                if refusal is None:
                    return self._peer.read(call, response)
                pause = tries.pause_after(refusal, response)
            await asyncio.sleep(pause)


# ---------------------------------------------------------------- what both clients send


@dataclass(frozen=True, slots=True)
class _Call(Generic[ReplyT]):
    """A route, the shape of its reply, and the body."""

    method: str
    path: str
    shape: type[ReplyT]
    body: BaseModel | None = None

    @property
    def content(self) -> bytes | None:
        """The body as JSON. Only fields that were set are sent, so that the service's defaults hold."""
        return None if self.body is None else self.body.model_dump_json(exclude_unset=True).encode()


def _checked(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise SettingsError(f"{url!r} is no address of a scoring service: it begins with http:// or https://")
    return url.rstrip("/")


def _key_header(key: str) -> dict[str, str]:
    header = {"Content-Type": "application/json"}
    return header | ({"Authorization": f"Bearer {key}"} if key else {})


def _info_path(model: str) -> str:
    return f"{_INFO}?{urlencode({'model': model})}" if model else _INFO


def _score_body(
    responses: Responses,
    prompt: str | None,
    messages: Messages | None,
    return_tokens: bool,
    options: ScoreOptions | None,
) -> ScoreBody:
    if isinstance(responses, str):
        raise InvalidInput("responses is a list of responses, and a text was given; put it into a list: [text]")
    question: dict[str, Any] = {"prompt": prompt} if messages is None else {"messages": list(messages)}
    if prompt is not None and messages is not None:
        raise InvalidInput("give either prompt or messages")
    try:
        inputs = InputBody(responses=list(responses), **question)
        chosen = options.model_dump(exclude_unset=True) if options else {}
        return ScoreBody(inputs=inputs, return_tokens=return_tokens, **chosen)
    except ValidationError as error:
        raise InvalidInput(explain(error.errors())) from None


def _chat_body(
    prompt: str | None, messages: Messages | None, options: PrimeOptions | None, fields: Mapping[str, Any]
) -> ChatBody:
    if (prompt is None) == (messages is None):
        raise InvalidInput("give either prompt or messages")
    if fields.get("stream"):
        raise InvalidInput("stream: this client reads whole replies; the `openai` package reads streams of this route")
    turns = [{"role": "user", "content": prompt}] if messages is None else list(messages)
    ours = {} if options is None else {"prime": options}
    try:
        return ChatBody(messages=turns, **ours, **fields)
    except ValidationError as error:
        raise InvalidInput(explain(error.errors())) from None


# ---------------------------------------------------------------- how both wait and read


class _Tries:
    """The tries of one call, within its time and the client's patience."""

    def __init__(self, *, timeout_s: float, patience_s: float) -> None:
        self._last_s = time.monotonic() + timeout_s
        self._patience = Patience(patience_s)

    @property
    def _left_s(self) -> float:
        return max(self._last_s - time.monotonic(), 0.001)

    @property
    def headers(self) -> dict[str, str]:
        """For how long the service should work on the next try."""
        return {"X-Request-Timeout": f"{self._left_s:.3f}"}

    @property
    def wait_s(self) -> float:
        """For how long to wait for the answer to the next try."""
        return self._left_s + _GRACE_S

    def pause_after(self, error: PrimeError, response: httpx.Response | None = None) -> float:
        """Seconds until the next try; raises the error if there is none."""
        asked = "" if response is None else response.headers.get("Retry-After", "")
        # The other form of the header is a date; then our own pauses do.
        pause = self._patience.pause_after(error, at_least_s=float(asked) if asked.isdigit() else 0.0)
        if pause >= self._left_s:
            raise error
        return pause


@dataclass(frozen=True, slots=True, kw_only=True)
class _Peer:
    """The service: how long it is waited for, and what its answers mean."""

    url: str
    timeout_s: float
    patience_s: float

    def tries(self, timeout_s: float | None) -> _Tries:
        """The tries of a new call."""
        return _Tries(timeout_s=self.timeout_s if timeout_s is None else timeout_s, patience_s=self.patience_s)

    def unreached(self, error: httpx.HTTPError) -> PrimeError:
        """Why there is no answer. What took its whole time is not tried again."""
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            return TookTooLong(f"the scoring service at {self.url} did not answer in time ({type(error).__name__})")
        return PeerUnavailable(
            f"the scoring service at {self.url} cannot be reached ({type(error).__name__}): is it running, and is the "
            f"port right? `curl {self.url}/health` answers when it is"
        )

    def refusal(self, path: str, response: httpx.Response) -> PrimeError | None:
        """The error that an answer stands for; None if it is a reply."""
        if response.status_code < 400:
            return None
        kind, words = _refusal_of(response)
        if response.status_code == 404 and path == _CHAT and kind in ("", "not_found"):
            return SettingsError(f"{self.url} has no {path}: set best_of_n.engine of the service")
        if kind == "not_found":
            return InvalidInput(f"{self.url}: {words}")
        if kind:
            return error_of(kind)(words)
        # Not the service's own words: a proxy in front of it, or something else altogether.
        match response.status_code:
            case 429:
                return Overloaded(f"{self.url} answers 429")
            case 502 | 503 | 504:
                return PeerUnavailable(f"the scoring service at {self.url} is away ({response.status_code})")
        return EngineError(f"{self.url} is no scoring service: {path} answers {response.status_code}")

    def read(self, call: _Call[ReplyT], response: httpx.Response) -> ReplyT:
        """The reply.

        Raises:
            EngineError: it is none of this route.
        """
        try:
            return call.shape.model_validate_json(response.content)
        except ValidationError as error:
            raise EngineError(
                f"{self.url} is no scoring service, or of another version: {call.path} answers "
                f"{explain(error.errors())}"
            ) from None


def _refusal_of(response: httpx.Response) -> tuple[str, str]:
    """The type and the words of a refusal, from either form; both empty if it has neither form."""
    try:
        answer = response.json()
    except ValueError:
        return "", ""
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, dict):
        return str(error.get("type") or ""), str(error.get("message") or "")
    return (str(answer.get("error_type") or ""), str(error)) if isinstance(error, str) else ("", "")
