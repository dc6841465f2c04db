"""The models that a curation asks, opened together, and what they cost."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from jobs.curate.settings import EndpointSettings
from prime.adapters.endpoint import Endpoint, ResponseCache
from prime.adapters.openai_engine import OpenAIEngine
from prime.adapters.settings import engine_key


class Model(Protocol):
    """What a stage sees of an endpoint."""

    async def ask(self, messages: Any, *, attempt: int = 0) -> str:
        """One answer's text."""


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
        """Close connections and cache."""
        for engine in self._engines:
            await engine.close()
        self._cache.close()

    def open(self, settings: EndpointSettings) -> Endpoint:
        """One more endpoint."""
        engine = OpenAIEngine(
            settings.url, key=engine_key(), model=settings.model, timeout_s=settings.call_seconds, setting="url"
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
