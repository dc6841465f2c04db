"""Wires a rollout replica and runs it."""

import asyncio
import importlib.util
import os
from pathlib import Path

import torch

from prime.adapters.redis_queue import RedisQueue, consumer_name
from prime.adapters.service import Service, serve
from prime.adapters.settings import RunSettings, redis_password, settle_vllm_environment
from prime.adapters.telemetry import Meters, configure_telemetry
from prime.adapters.tls import Tls
from prime.errors import SettingsError
from prime.lm.model import load_tokenizer, tokenizer_fingerprint
from services.rollout import metric_specs
from services.rollout.episodes import Episodes
from services.rollout.loop import Engine, RolloutWorker
from services.rollout.rpc import RolloutServicer, add_rollout_servicer
from services.rollout.settings import RolloutSettings
from services.rollout.staging import WeightStore


def main(run: RunSettings, settings: RolloutSettings, token: str) -> None:
    """Serve until stopped, or until the engine breaks."""
    configure_telemetry("rollout")
    asyncio.run(_run(run, settings, token))


async def _run(run: RunSettings, settings: RolloutSettings, token: str) -> None:
    if not run.redis_url:
        raise SettingsError("run.redis_url is empty: give the URL of the Redis that trainer and rollout share")
    tokenizer = load_tokenizer(run.model)
    fingerprint = tokenizer_fingerprint(tokenizer)
    async with RedisQueue(
        run.redis_url,
        password=redis_password(),
        run=run.name,
        consumer=consumer_name(os.getpid()),
        lease_seconds=settings.lease_seconds,
    ) as queue:
        engine = build_engine(run.model, settings)
        await engine.start()
        worker = RolloutWorker(
            queue=queue,
            engine=engine,
            store=WeightStore(),
            max_groups=settings.max_groups,
            lease_seconds=settings.lease_seconds,
            max_context=settings.max_context,
            sampler=Episodes(engine, tokenizer=tokenizer),
        )
        await serve(
            Service(
                name="prime.v1.RolloutService",
                settings=settings,
                token=token,
                meters=_meters(worker, fingerprint),
                add_servicers=lambda server: add_rollout_servicer(RolloutServicer(worker, fingerprint), server),
                is_ready=lambda: worker.is_ready,
                jobs=(worker.run,),
                close=engine.close,
                tls=Tls.of(run.tls_folder),
            )
        )


def build_engine(model: Path, settings: RolloutSettings) -> Engine:
    """The engine of the settings, not started yet.

    Raises:
        SettingsError: its library is not installed.
    """
    if settings.engine == "vllm":
        # Imported here: neither engine's library is needed for the other.
        if importlib.util.find_spec("vllm") is None:
            raise SettingsError("rollout.engine = 'vllm' and vLLM is not installed here; see docs/vllm.md")
        settle_vllm_environment(on_gpu=torch.cuda.is_available())
        from services.rollout.vllm_engine import Room, VllmEngine

        return VllmEngine(
            model=model,
            dtype=settings.dtype,
            max_context=settings.max_context,
            max_groups=settings.max_groups,
            lora_rank=settings.lora_rank,
            room=Room(
                tensor_parallel=settings.tensor_parallel,
                memory_share=settings.memory_share,
                kv_cache_gib=settings.kv_cache_gib,
            ),
        )
    from services.rollout.transformers_engine import TransformersEngine

    if settings.threads:
        torch.set_num_threads(settings.threads)

    return TransformersEngine(model=model, device=settings.device, dtype=settings.dtype)


def _meters(worker: RolloutWorker, fingerprint: str) -> Meters:
    meters = Meters()
    for spec, read in (
        (metric_specs.VERSION, lambda: worker.status(fingerprint).version),
        (metric_specs.TOKENS, lambda: worker.status(fingerprint).tokens_generated),
        (metric_specs.GROUPS, lambda: worker.status(fingerprint).groups_delivered),
        (metric_specs.IN_FLIGHT, lambda: worker.status(fingerprint).groups_in_flight),
    ):
        meters.gauge(spec).set_function(read)
    return meters
