"""The verifier's composition root: builds the parts, proves the sandbox, serves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from prime.adapters.service import Service, serve
from prime.adapters.settings import RunSettings
from prime.adapters.telemetry import Meters, configure_telemetry
from prime.adapters.tls import Tls
from prime.errors import SandboxError, SettingsError
from prime.v1 import verifier_pb2_grpc
from services.verifier import metric_specs
from services.verifier.algebra.pool import MathPool
from services.verifier.canaries import Canaries
from services.verifier.grade import Grader
from services.verifier.metrics import VerdictMeters
from services.verifier.programs.compiler import Compiler
from services.verifier.programs.grader import ProgramGrader
from services.verifier.rpc import VerifierServicer
from services.verifier.sandbox.executions import Limits
from services.verifier.sandbox.sandbox import Sandbox
from services.verifier.sandbox.zygotes import Tier
from services.verifier.settings import VerifierSettings

_log = structlog.get_logger()

# So that callers find verifiers that have joined.
_CONNECTION_S = 60.0


def main(run: RunSettings, settings: VerifierSettings, token: str) -> None:
    """Run the verifier until it is told to stop.

    Raises:
        SandboxError: programs cannot be isolated on this machine. There is no way to serve without.
    """
    configure_telemetry("verifier")
    structlog.contextvars.bind_contextvars(run=run.name)
    asyncio.run(_serve(settings, token, Tls.of(run.tls_folder)))


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A verifier at work, without an edge."""

    grader: Grader
    sandbox: Sandbox
    pool: MathPool
    canaries: Canaries


@contextlib.asynccontextmanager
async def open_verifier(settings: VerifierSettings, meters: Meters) -> AsyncIterator[Parts]:
    """Build a verifier whose sandbox has just been shown to hold; ends its processes when left.

    Raises:
        SandboxError: a layer of isolation cannot be had here, or does not hold; names it and what to change.
        SettingsError: a file that the settings name cannot be read.
    """
    watcher = VerdictMeters(meters)
    sandbox = await _start_sandbox(settings)
    pool = MathPool(settings.workers, sandbox.tier, settings.math_seconds)
    try:
        compiler = Compiler(sandbox, _testlib(settings.testlib_path))
        canaries = Canaries(sandbox, pool, compiler)
        await canaries.check()
        limits = Limits(
            cpu_seconds=settings.cpu_seconds,
            wall_seconds=settings.wall_seconds,
            memory_mib=settings.memory_mib,
            output_kib=settings.output_kib,
            idle_seconds=settings.idle_seconds,
        )
        programs = ProgramGrader(
            sandbox, compiler, limits, max_tests=settings.max_tests, program_seconds=settings.program_seconds
        )
        grader = Grader(
            settings,
            programs=programs,
            pool=pool,
            proof=canaries,
            watcher=watcher,
            tier=sandbox.tier.value,
            isolation=sandbox.layers,
        )
        watcher.follow(metric_specs.CANARY_AGE_SECONDS, lambda: canaries.age_seconds)
        watcher.follow(metric_specs.SANDBOX_RESTARTS, lambda: sandbox.restarts)
        watcher.follow(metric_specs.TESTS_DROPPED, lambda: programs.dropped_tests)
        watcher.follow(metric_specs.MATH_WORKERS_REPLACED, lambda: pool.replaced)
        try:
            yield Parts(grader=grader, sandbox=sandbox, pool=pool, canaries=canaries)
        finally:
            await grader.close()
    finally:
        sandbox.close()
        pool.close()


def _testlib(path: str) -> bytes:
    if not path:
        return b""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"verifier.testlib_path: {path!r} cannot be read ({error.strerror})") from None


async def _start_sandbox(settings: VerifierSettings) -> Sandbox:
    sandbox = Sandbox(settings.workers, Tier.A, libraries=settings.libraries)
    try:
        await sandbox.start()
    except SandboxError as error:
        if settings.min_tier is Tier.A:
            raise
        _log.warning("tier B: namespaces cannot be had, and `min_tier` allows to do without", detail=str(error))
        sandbox = Sandbox(settings.workers, Tier.B, libraries=settings.libraries)
        await sandbox.start()
    return sandbox


async def _serve(settings: VerifierSettings, token: str, tls: Tls | None) -> None:
    meters = Meters()
    async with open_verifier(settings, meters) as parts:
        sandbox = parts.sandbox
        _log.info("sandbox proven", tier=sandbox.tier.value, layers=sandbox.layers, libraries=sandbox.libraries)

        def add_servicers(server: grpc.aio.Server) -> None:
            verifier_pb2_grpc.add_VerifierServiceServicer_to_server(VerifierServicer(parts.grader), server)

        service = Service(
            name="prime.v1.VerifierService",
            settings=settings,
            token=token,
            meters=meters,
            add_servicers=add_servicers,
            is_ready=lambda: parts.canaries.healthy,
            jobs=(parts.canaries.watch,),
            connection_s=_CONNECTION_S,
            tls=tls,
        )
        await serve(service)
