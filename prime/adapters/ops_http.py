"""The HTTP app of every service: is it alive, is it ready, what do its metrics say, and what it serves besides."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal

import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel
from uvicorn.protocols.http.auto import AutoHTTPProtocol

_HEADER_SECONDS = 20.0
"""Within which the headers of a request have to come."""


class ServiceStatus(BaseModel):
    """What a probe reads: `{"service": "prm", "status": "alive"}`."""

    service: str
    status: Literal["alive", "ready", "not ready"]


def ops_app(
    service: str,
    is_ready: Callable[[], bool],
    registry: CollectorRegistry,
    add_routes: Callable[[FastAPI], None] | None = None,
) -> FastAPI:
    """`/healthz` (200 while the process serves), `/readyz` (503 until it is ready), `/metrics`; and a service's own.

    An app with routes of its own describes them at `/openapi.json`.
    """
    if add_routes is None:
        app = FastAPI(title=f"PRIME {service}: operations", docs_url=None, redoc_url=None, openapi_url=None)
    else:
        app = FastAPI(docs_url=None, redoc_url=None)
        add_routes(app)

    @app.get("/healthz", tags=["operations"])
    def healthz() -> ServiceStatus:
        return ServiceStatus(service=service, status="alive")

    @app.get("/readyz", tags=["operations"], responses={503: {"model": ServiceStatus, "description": "Not ready."}})
    def readyz(response: Response) -> ServiceStatus:
        ready = is_ready()
        response.status_code = 200 if ready else 503
        return ServiceStatus(service=service, status="ready" if ready else "not ready")

    @app.get("/metrics", tags=["operations"], response_class=PlainTextResponse)
    def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return app


def _hurrying(protocol: type[Any], seconds: float) -> type[Any]:
    """uvicorn's protocol, which closes a connection whose headers do not come within `seconds`.

    uvicorn itself waits for ever, so half-open connections would pile up.
    """

    class Hurrying(protocol):  # type: ignore[misc]
        _closing: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._closing = self.loop.call_later(seconds, transport.close)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            is_asked = self.cycle is not None and not self.cycle.response_complete
            if is_asked and self._closing is not None:
                self._closing.cancel()
                self._closing = None
            elif not is_asked and self._closing is None:
                self._closing = self.loop.call_later(seconds, self.transport.close)

        def connection_lost(self, error: Exception | None) -> None:
            if self._closing is not None:
                self._closing.cancel()
            super().connection_lost(error)

    return Hurrying


class OpsServer(uvicorn.Server):
    """Uvicorn inside a loop that somebody else owns: it leaves the signals to the service."""

    def __init__(
        self, app: FastAPI, listen: str, *, grace_seconds: float, header_seconds: float = _HEADER_SECONDS
    ) -> None:
        host, _, port = listen.rpartition(":")
        super().__init__(
            uvicorn.Config(
                app,
                http=_hurrying(AutoHTTPProtocol, header_seconds),
                host=host,
                port=int(port),
                log_level="error",
                access_log=False,
                timeout_graceful_shutdown=max(1, int(grace_seconds)),
            )
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve for the time of the block, from when the port is open."""
        serving = asyncio.create_task(self.serve())
        while not self.started:
            await asyncio.sleep(0.01)
        try:
            yield
        finally:
            self.should_exit = True
            await serving

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to `prime.adapters.service`."""
        yield
