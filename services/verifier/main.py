"""The verifier's composition root: builds the parts, proves the sandbox, serves."""

import asyncio

import grpc
import structlog

from prime.adapters.service import Service, serve
from prime.adapters.settings import RunSettings
from prime.adapters.telemetry import Meters, configure_logging
from prime.v1 import verifier_pb2_grpc
from services.verifier import canaries
from services.verifier.grade import Grader
from services.verifier.mathematics import MathPool
from services.verifier.rpc import VerifierServicer
from services.verifier.sandbox import Sandbox
from services.verifier.settings import VerifierSettings

_log = structlog.get_logger()


def main(run: RunSettings, settings: VerifierSettings, token: str) -> None:
    """Run the verifier until it is told to stop.

    Raises:
        SandboxError: programs cannot be isolated on this machine. There is no way to serve without.
    """
    configure_logging("verifier")
    structlog.contextvars.bind_contextvars(run=run.name)
    asyncio.run(_serve(settings, token))


async def prove_sandbox(settings: VerifierSettings) -> tuple[str, ...]:
    """The layers of isolation that this machine gives, each shown to hold. For `primectl doctor`.

    Raises:
        SandboxError: programs cannot be isolated here; names the layer and what to change.
    """
    sandbox = Sandbox(settings.workers)
    pool = MathPool(settings.workers, settings.math_seconds)
    try:
        return await canaries.check(sandbox, pool)
    finally:
        sandbox.close()
        pool.close()


async def _serve(settings: VerifierSettings, token: str) -> None:
    meters = Meters()
    sandbox = Sandbox(settings.workers)
    pool = MathPool(settings.workers, settings.math_seconds)
    grader = Grader(settings, sandbox, pool, meters)

    def add_servicers(server: grpc.aio.Server) -> None:
        verifier_pb2_grpc.add_VerifierServiceServicer_to_server(VerifierServicer(grader), server)

    async def close() -> None:
        sandbox.close()
        pool.close()

    try:
        grader.isolation = await canaries.check(sandbox, pool)
        _log.info("sandbox proven", layers=grader.isolation)
        service = Service(
            name="prime.v1.VerifierService",
            settings=settings,
            token=token,
            meters=meters,
            add_servicers=add_servicers,
            close=close,
        )
        await serve(service)
    finally:
        await close()
