"""What every request passes before its route: the key, the size of its body and its time, the clock. Plain ASGI, for
speed.
"""

import asyncio
import hmac
import math
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from prime.adapters.telemetry import Meters
from prime.errors import BatchTooLarge, InvalidInput, TookTooLong, Unauthenticated
from services.prm.http.description import DOCS_PATHS
from services.prm.http.errors import Dialect, fault_of
from services.prm.http.presence import App, Ending, Message, Receive, Scope, Send, run_while_wanted
from services.prm.settings import ApiSettings

OPEN_PATHS = DOCS_PATHS | {"/healthz", "/readyz", "/health", "/metrics", "/info"}
"""What tells nobody anything that costs or steers: asked for without a key."""

_CLIENT_LEFT = 499
"""As nginx counts them."""
_TIME = b"x-request-timeout"


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
        self._body_seconds = settings.body_seconds
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
            if refused is None:
                ending = await run_while_wanted(
                    self._app, scope, self._bounded(receive), send_with_clock, seconds=_seconds_of(scope)
                )
                status = _CLIENT_LEFT if ending is Ending.LEFT else status
                refused = _late(scope) if ending is Ending.LATE else None
            if refused is not None:
                fault = fault_of(refused)
                scope["state"]["error_type"] = fault.error_type
                await self._dialect_of(scope["path"])(fault)(scope, receive, send_with_clock)
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
        if _TIME in headers and _seconds_of(scope) is None:
            return InvalidInput(f"X-Request-Timeout: {_quoted(headers[_TIME])} is no number of seconds above 0")
        length = headers.get(b"content-length", b"0")
        return self._too_large() if not length.isdigit() or int(length) > self._limit else None

    def _bounded(self, receive: Receive) -> Receive:
        """A body of unknown length is counted while it comes, and it has to come within its time."""
        taken, is_read = 0, False
        last_s = asyncio.get_running_loop().time() + self._body_seconds

        async def bounded() -> Message:
            nonlocal taken, is_read
            try:
                async with asyncio.timeout_at(None if is_read else last_s):
                    message = await receive()
            except TimeoutError:
                raise TookTooLong(
                    f"the body did not come within {self._body_seconds:g} s (setting `prm.api.body_seconds`)"
                ) from None
            taken += len(message.get("body", b""))
            is_read = not message.get("more_body", False)
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


def _seconds_of(scope: Scope) -> float | None:
    """How long the client will wait; None where it does not say, or not in seconds."""
    try:
        seconds = float(dict(scope["headers"])[_TIME])
    except (KeyError, ValueError):
        return None
    return seconds if 0 < seconds < math.inf else None


def _late(scope: Scope) -> TookTooLong:
    return TookTooLong(
        f"the {_quoted(dict(scope['headers'])[_TIME])} s of X-Request-Timeout are over; what was asked for is dropped"
    )


def _quoted(value: bytes) -> str:
    return value.decode("latin-1")[:40]
