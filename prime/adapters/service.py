"""The life of a service process: start, publish readiness, serve, stop gracefully on SIGTERM or SIGINT.

Each service's `main.py` wires its parts and hands them to `serve`.
"""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import grpc
import structlog
from fastapi import FastAPI

from prime.adapters.grpc_server import Gate, Health, build_server
from prime.adapters.ops_http import OpsServer, ops_app
from prime.adapters.settings import ServiceSettings
from prime.adapters.telemetry import Meters
from prime.adapters.tls import Tls
from prime.errors import NotReady, SettingsError

_log = structlog.get_logger()
_READINESS_PERIOD_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Service:
    """What `serve` runs. A background job that ends, by return or error, ends the service."""

    name: str
    """The full gRPC name, e.g. `prime.v1.PrmService`."""
    settings: ServiceSettings
    token: str
    meters: Meters
    add_servicers: Callable[[grpc.aio.Server], None]
    is_ready: Callable[[], bool] = lambda: True
    add_routes: Callable[[FastAPI], None] | None = None
    """What the HTTP port serves beside health and metrics."""
    jobs: Sequence[Callable[[], Awaitable[None]]] = field(default=())
    drain: Callable[[], Awaitable[None]] | None = None
    """On a stop: lets the jobs come to a good end within the grace, before they are cancelled."""
    close: Callable[[], Awaitable[None]] | None = None
    tls: Tls | None = None
    """Of the gRPC side; None: plain."""
    gate: Gate | None = None
    """Who may call what over gRPC; None: whoever has the token, everything."""
    connection_s: float | None = None
    """See `build_server`; for a service that has several replicas behind one name."""


async def serve(service: Service) -> None:
    """Run until a signal comes or a background job ends; re-raise what a job raised.

    Raises:
        SettingsError: the gRPC or HTTP address cannot be bound.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)

    health = Health(service.name)
    server = build_server(service.token, service.meters, gate=service.gate, connection_s=service.connection_s)
    service.add_servicers(server)
    health.add_to(server)
    try:
        if service.tls is None:
            server.add_insecure_port(service.settings.listen)
        else:
            server.add_secure_port(service.settings.listen, service.tls.for_server())
    except RuntimeError:
        raise SettingsError(
            f"cannot listen on {service.settings.listen} (setting `listen` of {service.name}): taken or not allowed; "
            "set another"
        ) from None
    await health.set_ready(service.is_ready())
    await server.start()
    app = ops_app(service.name, service.is_ready, service.meters.registry, service.add_routes)
    ops = OpsServer(app, service.settings.ops_listen, grace_seconds=service.settings.grace_seconds)
    _log.info("serving", grpc=service.settings.listen, http=service.settings.ops_listen)

    tasks = [asyncio.ensure_future(job()) for job in service.jobs]
    stopper = asyncio.ensure_future(stop.wait())
    readiness = asyncio.ensure_future(_publish_readiness(health, service.is_ready))
    http = asyncio.ensure_future(_serve_http(ops, service.settings.ops_listen))
    try:
        await asyncio.wait([*tasks, stopper, http], return_when=asyncio.FIRST_COMPLETED)
    finally:
        _log.info("stopping", asked=stop.is_set())
        readiness.cancel()
        await health.stop()
        drained = await _drain(service) if stop.is_set() else True
        await server.stop(service.settings.grace_seconds)
        ops.should_exit = True
        for task in (*tasks, stopper):
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(SettingsError):
            await http
        if service.close is not None:
            await service.close()
    for outcome in (*outcomes, http.exception()):
        if isinstance(outcome, Exception):
            raise outcome
    if not drained:
        raise NotReady(
            f"{service.name} was stopped before it came to a good end within {service.settings.grace_seconds:.0f} s "
            f"(setting `grace_seconds`); what was done since the last checkpoint is lost"
        )


async def _drain(service: Service) -> bool:
    """Let the jobs come to a good end; False when the grace was too short."""
    if service.drain is None:
        return True
    try:
        await asyncio.wait_for(service.drain(), service.settings.grace_seconds)
    except TimeoutError:
        return False
    return True


async def _publish_readiness(health: Health, is_ready: Callable[[], bool]) -> None:
    while True:
        await health.set_ready(is_ready())
        await asyncio.sleep(_READINESS_PERIOD_S)


async def _serve_http(ops: OpsServer, listen: str) -> None:
    try:
        await ops.serve()
    except SystemExit:  # uvicorn's way to say that it cannot bind
        raise SettingsError(
            f"cannot listen on {listen} (setting `ops_listen`): taken or not allowed; set another"
        ) from None
