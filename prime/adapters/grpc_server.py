"""Builds a gRPC server: who may call what, one mapping from the error tree to status codes, health, metrics, traces.

Handlers decode, call and encode; they hold no `try`. The name of the error class travels in the trailing metadata,
so that the client raises the same class again.
"""

import contextlib
import hmac
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from prime import tracing
from prime.adapters.telemetry import Meters
from prime.errors import PrimeError, Unauthenticated

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
ERROR_CLASS_KEY = "prime-error"
AUTHORIZATION_KEY = "authorization"

_HEALTH_PREFIX = "/grpc.health.v1.Health/"
_log = structlog.get_logger()


class Gate(Protocol):
    """Who may call what. Health is open to all and not asked about."""

    def admit(self, method: str, key: str) -> AbstractContextManager[None]:
        """Let a caller in, for as long as the context lasts; `method`: e.g. `/prime.v1.PrmService/Score`.

        Raises:
            Unauthenticated: nobody's key.
            Forbidden: the key does not open this method.
            LimitReached: the key has used up what it may ask for.
        """


class SharedToken:
    """A `Gate` that opens every method to the one token that services share."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def admit(self, method: str, key: str) -> AbstractContextManager[None]:
        """Compare in constant time.

        Raises:
            Unauthenticated: another token, or none.
        """
        if not hmac.compare_digest(key.encode(), self._token):
            raise Unauthenticated("the bearer token is missing or wrong; services share one, see docs/operations.md")
        return contextlib.nullcontext()


class EdgeInterceptor(grpc.aio.ServerInterceptor):
    """Asks the gate, maps errors to status codes, logs and counts. The only broad `except` of a service."""

    def __init__(self, gate: Gate, meters: Meters) -> None:
        self._gate = gate
        self._meters = meters

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler of one method."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        metadata = dict(handler_call_details.invocation_metadata or ())
        scheme, _, key = str(metadata.get(AUTHORIZATION_KEY, "")).partition(" ")
        presented = key if scheme == "Bearer" else ""
        trace = str(metadata.get(tracing.TRACEPARENT, ""))
        if handler.unary_unary:
            wrapped = self._guard(method, handler.unary_unary, presented, trace)
            return grpc.unary_unary_rpc_method_handler(
                wrapped, handler.request_deserializer, handler.response_serializer
            )
        if handler.stream_unary:
            wrapped = self._guard(method, handler.stream_unary, presented, trace)
            return grpc.stream_unary_rpc_method_handler(
                wrapped, handler.request_deserializer, handler.response_serializer
            )
        if not method.startswith(_HEALTH_PREFIX):
            raise NotImplementedError(f"{method} streams its answers, which this edge cannot guard yet")
        return handler

    def _guard(
        self, method: str, behaviour: Callable[..., Awaitable[Any]], presented: str, trace: str
    ) -> Callable[..., Any]:
        async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            started = time.perf_counter()
            code = "OK"
            try:
                with self._admitted(method, presented):
                    if not trace:  # a call of nobody's run, such as a probe, begins no trace
                        return await behaviour(request, context)
                    with tracing.span(method.lstrip("/"), parent=trace):
                        return await behaviour(request, context)
            except PrimeError as error:
                code = error.grpc_status
                _log.warning("call refused", method=method, error=type(error).__name__, detail=str(error))
                context.set_trailing_metadata(((ERROR_CLASS_KEY, type(error).__name__),))
                await context.abort(grpc.StatusCode[code], str(error))
            except (grpc.aio.AbortError, grpc.aio.UsageError):
                raise
            except Exception as error:  # noqa: BLE001  the edge: whatever is left becomes INTERNAL
                code = "INTERNAL"
                _log.exception("call failed", method=method)
                await context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
            finally:
                self._meters.rpc_seconds.labels(method, code).observe(time.perf_counter() - started)

        return guarded

    def _admitted(self, method: str, key: str) -> AbstractContextManager[None]:
        # Probes of an orchestrator carry no token, and health tells nobody anything.
        return contextlib.nullcontext() if method.startswith(_HEALTH_PREFIX) else self._gate.admit(method, key)


class Health:
    """grpc.health.v1: "" is alive while the process serves; the service's full name follows readiness."""

    def __init__(self, service_name: str) -> None:
        self._servicer = health.aio.HealthServicer()
        self._service_name = service_name

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve it."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def set_ready(self, ready: bool) -> None:
        """Publish readiness."""
        serving = health_pb2.HealthCheckResponse.SERVING
        status = serving if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        await self._servicer.set("", serving)
        await self._servicer.set(self._service_name, status)

    async def stop(self) -> None:
        """Everything not serving, for good."""
        await self._servicer.enter_graceful_shutdown()


def build_server(
    token: str, meters: Meters, *, gate: Gate | None = None, connection_s: float | None = None
) -> grpc.aio.Server:
    """A server without servicers and ports. Messages up to 64 MiB.

    `gate`: who may call what; None: whoever has the token, everything.

    `connection_s`: after how long a client has to connect anew, and so to look its name up again; calls under way end
    in peace. None: never.
    """
    age = [] if connection_s is None else [("grpc.max_connection_age_ms", round(1000 * connection_s))]
    return grpc.aio.server(
        interceptors=(EdgeInterceptor(gate or SharedToken(token), meters),),
        options=[
            *age,
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            # A taken port is an error, not a second listener that gets every other call.
            ("grpc.so_reuseport", 0),
        ],
    )
