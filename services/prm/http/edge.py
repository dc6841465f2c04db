"""What every request passes before its route: the key, the size of its body, the clock; and the end of its work when
the client leaves. Plain ASGI, for speed.
"""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from prime.adapters.telemetry import Meters
from prime.errors import BatchTooLarge, Unauthenticated
from services.prm.http.errors import Dialect, fault_of
from services.prm.settings import ApiSettings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = frozenset(("/healthz", "/readyz", "/health", "/metrics", "/info", "/docs", "/openapi.json"))
"""What tells nobody anything that costs or steers: asked for without a key."""

_CLIENT_LEFT = 499
"""As nginx counts them."""


class Edge:
    """ASGI middleware around the API."""

    def __init__(
        self,
        app: App,
        *,
        token: str,
        settings: ApiSettings,
        meters: Meters,
        dialect_of: Callable[[str], Dialect],
    ) -> None:
        self._app = app
        self._dialect_of = dialect_of
        self._key = f"bearer {token}".encode() if settings.require_key else None
        self._limit = settings.max_body_mib * 2**20
        self._seconds = meters.histogram("prime_prm_http_seconds", "Time per HTTP request.", ("route", "status"))
        self._errors = meters.counter("prime_prm_http_errors", "HTTP requests that failed.", ("route", "error_type"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, pass on, measure."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500
        scope.setdefault("state", {})

        async def send_with_clock(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                milliseconds = f"{1000 * (time.perf_counter() - started):.3f}"
                message["headers"] = [*message.get("headers", ()), (b"x-total-time", milliseconds.encode())]
            await send(message)

        try:
            refused = self._refusal(scope)
            if refused is not None:
                fault = fault_of(refused)
                scope["state"]["error_type"] = fault.error_type
                await self._dialect_of(scope["path"])(fault)(scope, receive, send_with_clock)
            else:
                if not await _stays(self._app, scope, self._bounded(receive), send_with_clock):
                    status = _CLIENT_LEFT
        finally:
            self._observe(scope, status, time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> Exception | None:
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        # The scheme's case does not matter (RFC 9110, section 11.1); the key's does.
        presented = scheme.lower() + b" " + key.strip()
        if self._key is not None and scope["path"] not in OPEN_PATHS and not hmac.compare_digest(presented, self._key):
            return Unauthenticated(
                "the API key is missing or wrong: send `Authorization: Bearer KEY`, with the key that the service "
                "printed at its start or took from PRIME_TOKEN"
            )
        length = headers.get(b"content-length", b"0")
        return self._too_large() if not length.isdigit() or int(length) > self._limit else None

    def _bounded(self, receive: Receive) -> Receive:
        """A body of unknown length is counted while it comes."""
        taken = 0

        async def bounded() -> MutableMapping[str, Any]:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._limit:
                raise self._too_large()
            return message

        return bounded

    def _too_large(self) -> BatchTooLarge:
        return BatchTooLarge(f"the body is larger than {self._limit} bytes (setting `prm.api.max_body_mib`)")

    def _observe(self, scope: Scope, status: int, seconds: float) -> None:
        # The route's own path: what strangers type would be a new label every time.
        route = getattr(scope.get("route"), "path", "none")
        self._seconds.labels(route, str(status)).observe(seconds)
        error_type = scope["state"].get("error_type")
        if error_type is not None:
            self._errors.labels(route, error_type).inc()


async def _stays(app: App, scope: Scope, receive: Receive, send: Send) -> bool:
    """Run a request until it is answered, or its client has gone: then nothing is computed for it any more.

    Whether the client stayed.
    """
    body_read = asyncio.Event()
    answered = False

    async def receive_and_see() -> MutableMapping[str, Any]:
        message = await receive()
        if not message.get("more_body", False):
            body_read.set()
        return message

    async def send_and_see(message: MutableMapping[str, Any]) -> None:
        nonlocal answered
        answered = message["type"] == "http.response.body" and not message.get("more_body", False)
        await send(message)

    async def leave() -> None:
        # What comes after the body can only be that the client has left, or has its answer.
        await body_read.wait()
        while (await receive())["type"] != "http.disconnect":
            pass

    working = asyncio.ensure_future(app(scope, receive_and_see, send_and_see))
    leaving = asyncio.ensure_future(leave())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done() or answered:
            await working
            return True
        return False
    finally:
        leaving.cancel()
        working.cancel()
