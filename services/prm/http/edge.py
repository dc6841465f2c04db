"""What every request passes before its route: the key, the size of its body and its time, the clock. Plain ASGI, for
speed.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from prime.adapters.telemetry import Meters
from prime.errors import BatchTooLarge, Forbidden, InvalidInput, PrimeError, TookTooLong
from services.prm import metric_specs
from services.prm.callers import ANYONE, Caller, calling
from services.prm.http.description import DOCS_PATHS
from services.prm.http.errors import Dialect, fault_of
from services.prm.http.presence import App, Ending, Message, Receive, Scope, Send, run_while_wanted
from services.prm.key_file import Scope as KeyScope
from services.prm.keys import Keys
from services.prm.settings import ApiSettings

OPEN_PATHS = DOCS_PATHS | {"/healthz", "/readyz", "/health", "/metrics", "/info"}
"""What tells nobody anything that costs or steers: asked for without a key."""

_METRICS = "/metrics"
_CHAT, _MODELS = "/v1/chat/", "/v1/models"
_CLIENT_LEFT = 499
"""As nginx counts them."""
_TIME = b"x-request-timeout"
_PRIORITY = b"x-priority"


class Edge:
    """ASGI middleware around the API."""

    def __init__(
        self,
        app: App,
        *,
        keys: Keys,
        settings: ApiSettings,
        meters: Meters,
        dialect_of: Callable[[str], Dialect],
    ) -> None:
        self._app = app
        self._dialect_of = dialect_of
        self._keys = keys if settings.require_key else None
        self._open_paths = OPEN_PATHS if settings.open_metrics else OPEN_PATHS - {_METRICS}
        self._limit = settings.max_body_mib * 2**20
        self._body_seconds = settings.body_seconds
        self._seconds = meters.histogram(metric_specs.HTTP_SECONDS)
        self._errors = meters.counter(metric_specs.HTTP_ERRORS)

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
            caller, refused = self._admitted(scope)
            if refused is None:
                with calling(caller):
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

    def _admitted(self, scope: Scope) -> tuple[Caller, PrimeError | None]:
        """Who asks, or why nothing is done for them."""
        try:
            caller = self._caller_of(scope)
            self._check_headers(scope)
            return caller, None
        except PrimeError as error:
            return ANYONE, error

    def _caller_of(self, scope: Scope) -> Caller:
        path, headers = scope["path"], dict(scope["headers"])
        if path in self._open_paths:
            return ANYONE
        urgent = _is_urgent(headers)
        if self._keys is not None:
            # The scheme's case does not matter (RFC 9110, section 11.1); the key's does.
            scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
            presented = key.strip().decode("utf-8", "replace") if scheme.lower() == b"bearer" else ""
            return self._keys.admit(presented, _scope_of(path), urgent=urgent)
        if urgent:
            raise Forbidden("X-Priority: high needs a key, and this service asks for none (`prm.api.require_key`)")
        return ANYONE

    def _check_headers(self, scope: Scope) -> None:
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        if _TIME in headers and _seconds_of(scope) is None:
            raise InvalidInput(f"X-Request-Timeout: {_quoted(headers[_TIME])} is no number of seconds above 0")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._limit:
            raise self._too_large()

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


def _scope_of(path: str) -> KeyScope | None:
    """What a key needs for a path; None: any key will do. What is not known here is scoring."""
    if path.startswith(_CHAT):
        return KeyScope.CHAT
    if path == _METRICS:
        return KeyScope.METRICS
    # As open as `/info`, but that an engine may be asked.
    return None if path == _MODELS or path.startswith(f"{_MODELS}/") else KeyScope.SCORE


def _is_urgent(headers: Mapping[bytes, bytes]) -> bool:
    given = headers.get(_PRIORITY, b"normal")
    if given.lower() not in (b"high", b"normal"):
        raise InvalidInput(f"X-Priority: {_quoted(given)} is neither high nor normal")
    return given.lower() == b"high"


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
