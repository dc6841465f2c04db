"""A model behind OpenAI's API, asked by a batch job: at most so many at once, patiently, and never twice for the same.

Every answer is kept in an SQLite file under a hash of the request before it is used, so a restart pays nothing again.
"""

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from prime.adapters.openai_engine import OpenAIEngine
from prime.adapters.settings import EndpointSettings, engine_key
from prime.chat import ChatSamples
from prime.errors import EngineError, InvalidInput
from prime.files import hold
from prime.patience import patiently

# So many refusals, and no answer, are not the requests' fault.
_REFUSED_AT_FIRST = 10


class Engine(Protocol):
    """What answers; `OpenAIEngine` does."""

    async def sample(self, request: Mapping[str, Any], n: int) -> ChatSamples:
        """Candidates of one request."""


@dataclass(slots=True)
class Usage:
    """What was asked of one endpoint in this run: `Usage(paid=3, kept=12, prompt_tokens=240, completion_tokens=90)`."""

    paid: int = 0
    """Requests that went to the endpoint."""
    kept: int = 0
    """Requests that an earlier answer was kept for."""
    refused: int = 0
    """Requests that the endpoint called wrong, e.g. because they are too long for the model."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Of what was paid."""


class ResponseCache:
    """Answers by the hash of their request. A job has one, so whoever holds it is alone with the job's files."""

    def __init__(self, path: Path) -> None:
        """Open it, or make it.

        Raises:
            InUse: another process has it.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = hold(
            path.with_name(f"{path.name}.lock"),
            complaint=f"another process ({{pid}}) works with {path}; wait for it, or give this one another output",
        )
        self._database = sqlite3.connect(path)
        self._database.execute("pragma journal_mode = wal")
        self._database.execute("create table if not exists responses (key text primary key, answer text not null)")

    def get(self, key: str) -> dict[str, Any] | None:
        """The answer to this request, where there is one."""
        row = self._database.execute("select answer from responses where key = ?", (key,)).fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def put(self, key: str, answer: Mapping[str, Any]) -> None:
        """Keep an answer; on disk when this returns."""
        with self._database:
            self._database.execute("insert or replace into responses values (?, ?)", (key, json.dumps(answer)))

    def close(self) -> None:
        """Close the file, and leave it to others."""
        self._database.close()
        self._lock.close()


class Endpoint:
    """One model of one endpoint."""

    def __init__(
        self,
        engine: Engine,
        cache: ResponseCache,
        *,
        identity: str,
        defaults: Mapping[str, Any],
        at_once: int,
        patience_s: float,
        on_answer: Callable[[], None] = lambda: None,
    ) -> None:
        """`identity` names the endpoint in the hash of a request; `defaults` are part of every request's body."""
        self._engine = engine
        self._cache = cache
        self._identity = identity
        self._defaults = dict(defaults)
        self._places = asyncio.Semaphore(at_once)
        self._patience_s = patience_s
        self._on_answer = on_answer
        self._under_way: dict[str, asyncio.Task[str]] = {}
        self.usage = Usage()

    async def ask(self, messages: Sequence[Mapping[str, str]], *, attempt: int = 0) -> str:
        """The text of one answer. Attempts are numbered: each is a request of its own, and its number the seed.

        A request that the endpoint refuses has an empty answer: one problem too long must not end a job of days.

        Raises:
            EngineError: the endpoint refuses our key, or refused the first requests, all of them.
            PrimeError: it did not answer for as long as patience lasts.
        """
        body = {**self._defaults, "messages": [dict(each) for each in messages], "seed": attempt}
        text = json.dumps([self._identity, body], sort_keys=True, ensure_ascii=False)
        key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        kept = self._cache.get(key)
        if kept is not None:
            self.usage.kept += 1
            self._on_answer()
            return str(kept["text"])
        # Two askers of the same share one request.
        if key not in self._under_way:
            self._under_way[key] = asyncio.ensure_future(self._pay(key, body))
            self._under_way[key].add_done_callback(lambda _: self._under_way.pop(key, None))
        return await asyncio.shield(self._under_way[key])

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _pay(self, key: str, body: Mapping[str, Any]) -> str:
        async with self._places:
            try:
                samples = await patiently(lambda: self._engine.sample(body, 1), seconds=self._patience_s)
            except InvalidInput as refusal:
                return self._refused(str(refusal))
        content = samples.candidates[0].message.get("content") if samples.candidates else None
        if not isinstance(content, str):
            raise EngineError(f"the endpoint {self._identity} answered without a text")
        self._cache.put(key, {"text": content, "finish_reason": samples.candidates[0].finish_reason})
        self.usage.paid += 1
        self.usage.prompt_tokens += samples.prompt_tokens
        self.usage.completion_tokens += samples.completion_tokens
        self._on_answer()
        return content

    def _refused(self, words: str) -> str:
        self.usage.refused += 1
        if self.usage.refused >= _REFUSED_AT_FIRST and not self.usage.paid and not self.usage.kept:
            raise EngineError(f"the endpoint {self._identity} refused the first {self.usage.refused} requests: {words}")
        self._on_answer()
        return ""


class Endpoints:
    """Opens endpoints over one cache of responses; a context manager."""

    def __init__(self, cache: Path, on_answer: Callable[[], None] = lambda: None) -> None:
        """`on_answer` is called after every answer, also those that were kept."""
        self._cache = ResponseCache(cache)
        self._on_answer = on_answer
        self._engines: list[OpenAIEngine] = []
        self._opened: list[tuple[EndpointSettings, Endpoint]] = []

    async def __aenter__(self) -> Self:
        """Nothing is connected before something is asked."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give up what is under way, and close connections and cache."""
        for _, endpoint in self._opened:
            await endpoint.close()
        for engine in self._engines:
            await engine.close()
        self._cache.close()

    def open(self, settings: EndpointSettings) -> Endpoint:
        """One more endpoint."""
        engine = OpenAIEngine(
            settings.url,
            key=engine_key(),
            model=settings.model,
            timeout_s=settings.call_seconds,
            setting=f"`url` of {settings.model}",
        )
        endpoint = Endpoint(
            engine,
            self._cache,
            identity=f"{settings.model} at {settings.url}",
            defaults={
                "model": settings.model,
                "temperature": settings.temperature,
                "top_p": settings.top_p,
                "max_tokens": settings.max_tokens,
            },
            at_once=settings.at_once,
            patience_s=settings.patience_seconds,
            on_answer=self._on_answer,
        )
        self._engines.append(engine)
        self._opened.append((settings, endpoint))
        return endpoint

    def usage(self) -> list[Mapping[str, Any]]:
        """Per endpoint: requests paid and kept, tokens, and what they cost by the prices in the settings."""
        return [
            {
                "model": settings.model,
                "paid": endpoint.usage.paid,
                "kept": endpoint.usage.kept,
                "refused": endpoint.usage.refused,
                "prompt_tokens": endpoint.usage.prompt_tokens,
                "completion_tokens": endpoint.usage.completion_tokens,
                "cost": round(
                    (
                        endpoint.usage.prompt_tokens * settings.price_in
                        + endpoint.usage.completion_tokens * settings.price_out
                    )
                    / 1e6,
                    4,
                ),
            }
            for settings, endpoint in self._opened
        ]
