"""Wires the PRM service and runs it."""

import asyncio

from prime.adapters.service import Service, serve
from prime.adapters.settings import RunSettings
from prime.adapters.telemetry import Meters, configure_logging
from prime.lm.model import settle_torch
from prime.v1 import prm_pb2_grpc
from services.prm.reward import RewardService
from services.prm.reward_model import ImplicitPrm
from services.prm.rpc import PrmServicer
from services.prm.settings import PrmSettings


def main(run: RunSettings, settings: PrmSettings, token: str) -> None:
    """Serve until stopped."""
    configure_logging("prm")
    settle_torch(device=settings.device, threads=settings.threads)
    prm = ImplicitPrm(settings, start=run.model)
    reward_service = RewardService(prm, checkpoints=run.path / "checkpoints")
    meters = Meters()
    meters.gauge("prime_prm_version", "Updates of the PRM.").set_function(lambda: prm.version)
    asyncio.run(
        serve(
            Service(
                name="prime.v1.PrmService",
                settings=settings,
                token=token,
                meters=meters,
                add_servicers=lambda server: prm_pb2_grpc.add_PrmServiceServicer_to_server(
                    PrmServicer(reward_service), server
                ),
            )
        )
    )
