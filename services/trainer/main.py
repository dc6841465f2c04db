"""Wires the trainer and runs it."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import structlog

from prime.adapters.grpc_clients import GrpcRewardModel, GrpcRollout, GrpcVerifier, resolve
from prime.adapters.redis_queue import RedisQueue
from prime.adapters.service import Service, serve
from prime.adapters.settings import RunSettings, redis_password
from prime.adapters.telemetry import Meters, configure_telemetry
from prime.adapters.tls import Tls
from prime.adapters.trackers.choice import check_installed, open_trackers
from prime.adapters.trackers.jsonl_files import JsonlTracker
from prime.data.problems import load_problems
from prime.data.prompts import encode_prompts
from prime.errors import SettingsError
from prime.evaluation.reading import AskedSet, open_sets
from prime.lm.model import settle_torch
from prime.lm.world import World, follow, join_world
from prime.ports import Rollout, Tracker
from prime.tracking import Outcome, TrackedRun, settings_to_show
from prime.types import Problem, SamplingParams
from prime.v1 import trainer_pb2_grpc
from services.trainer import metric_specs
from services.trainer.collector import CollectorState, GroupCollector, ProblemSequence
from services.trainer.credit import CreditAssigner
from services.trainer.direct import DirectPush
from services.trainer.evaluate import Evaluator
from services.trainer.loop import TrainingLoop
from services.trainer.policy import Policy
from services.trainer.progress import Progress
from services.trainer.publisher import Publisher
from services.trainer.recording import RecordedGroups
from services.trainer.rpc import TrainerServicer
from services.trainer.run_folder import RunFolder, identity_of
from services.trainer.settings import EvaluationSettings, TrainerSettings
from services.trainer.tracking import Tracking

_PROBE_TOKENS = 64
_log = structlog.get_logger()
_HELD_OUT = "held_out"
_OUTCOMES: dict[str, Outcome] = {"finished": "finished", "stopped": "stopped"}


def main(run: RunSettings, settings: TrainerSettings, token: str, *, resume: bool) -> None:
    """Train until the last step, a stop or an error."""
    configure_telemetry("trainer")
    check_installed(settings.trackers.use)
    settle_torch(device=settings.optimiser.device, threads=settings.optimiser.threads)
    world = join_world(settings.optimiser.device)
    if world.is_leader:
        asyncio.run(_run(run, settings, token, world, resume=resume))
    else:
        follow(Policy(run.model, settings, world))
    world.leave()


async def _run(run: RunSettings, settings: TrainerSettings, token: str, world: World, *, resume: bool) -> None:
    if not run.redis_url:
        raise SettingsError("run.redis_url is empty: give the URL of the Redis that trainer and rollout share")
    # Whatever can be wrong with the input is found before anything is written.
    problems = load_problems(settings.problems)
    asked = _evaluation_sets(settings.evaluation)
    async with RedisQueue(run.redis_url, password=redis_password(), run=run.name, consumer="trainer") as queue:
        policy = Policy(run.model, settings, world)
        if settings.sampling.leaves_tokens_out:
            _log.warning(
                "the sampler leaves out tokens that the trainer's log-probs know: importance weights are biased",
                sampling=settings.sampling.model_dump(),
            )
        prompts = _encode(policy, settings, problems, settings.problems)
        for each in asked:
            # So that a prompt that is too long is found before anything is trained.
            _encode(policy, settings, each.problems.problems, each.problems.title)
        identity = identity_of(
            settings, problems, model=run.model, seed=run.seed, tokenizer_fingerprint=policy.fingerprint
        )
        folder = RunFolder(run.path, identity=identity, resume=resume)
        peers = settings.peers
        tls = Tls.of(run.tls_folder)
        reach: dict[str, Any] = {
            "deadline_s": peers.call_seconds,
            "patience_s": peers.patience_seconds,
            "tls": tls,
        }
        replicas = _Replicas(peers.rollout, token, reach)
        verifier = GrpcVerifier(peers.verifier, token, **reach)
        state = folder.load_state(folder.latest) if folder.latest else CollectorState()
        collector: GroupCollector | RecordedGroups
        if settings.recorded is not None:
            collector = RecordedGroups(settings.recorded, state=state)
        else:
            collector = GroupCollector(
                queue=queue,
                verifier=verifier,
                problems=ProblemSequence(prompts, seed=run.seed),
                tokenizer=policy.tokenizer,
                settings=settings,
                seed=run.seed,
                state=state,
            )
        samples = settings.mode != "replay"
        publisher = Publisher(
            replicas.find,
            source=policy,
            probe_ids=_probe(prompts),
            max_gap=settings.probe_gap,
            patience_s=peers.patience_seconds,
            deltas=settings.push == "delta",
            direct=_direct_push(settings, policy),
        )
        evaluator = Evaluator(
            asked,
            find_replicas=replicas.find,
            verifier=verifier,
            tokenizer=policy.tokenizer,
            sampling=SamplingParams(**settings.sampling.model_dump()),
            seed=run.seed,
        )
        meters = Meters()
        tracking = _tracking(run, settings, meters)
        loop = TrainingLoop(
            settings=settings,
            seed=run.seed,
            collector=collector,
            reward_model=GrpcRewardModel(peers.prm, token, **reach),
            credit=CreditAssigner(
                settings.advantage,
                tokenizer=policy.tokenizer,
                longest=settings.sampling.max_tokens,
                record=folder.load_record(folder.latest) if folder.latest else None,
            ),
            policy=policy,
            publisher=publisher if samples else None,
            evaluator=evaluator if samples and asked else None,
            folder=folder,
            tracking=tracking,
            progress=Progress(run=run.name, total_steps=settings.steps),
        )
        try:
            await _serve(settings, token, loop, tls, meters)
        finally:
            outcome = _OUTCOMES.get(loop.progress.phase, "failed")
            await asyncio.to_thread(tracking.close, outcome, patience_s=settings.trackers.flush_seconds)
        world.send(None)


def _tracking(run: RunSettings, settings: TrainerSettings, meters: Meters) -> Tracking:
    """The run's own record, and the trackers that the settings name."""
    lost = meters.counter(metric_specs.TRACKER_LOST)
    trackers: list[Tracker] = open_trackers(settings.trackers)
    for each in trackers:
        lost.labels(each.name)
    return Tracking(
        TrackedRun(
            name=run.name,
            folder=run.path,
            settings=settings_to_show(run.model_dump(mode="json"), settings.model_dump(mode="json")),
        ),
        JsonlTracker(),
        trackers,
        on_lost=lambda tracker: lost.labels(tracker).inc(),
    )


async def _serve(settings: TrainerSettings, token: str, loop: TrainingLoop, tls: Tls | None, meters: Meters) -> None:
    for spec, name in (
        (metric_specs.STEP, "step"),
        (metric_specs.MEAN_SCORE, "mean_score"),
        (metric_specs.ACCURACY, "accuracy"),
        (metric_specs.SAMPLER_KL, "sampler_kl"),
        (metric_specs.TOKENS_PER_SECOND, "tokens_per_second"),
    ):
        meters.gauge(spec).set_function(partial(getattr, loop.progress, name))
    ended = asyncio.Event()

    async def run_to_the_end() -> None:
        try:
            await loop.run()
        finally:
            ended.set()

    async def drain() -> None:
        loop.stop()
        await ended.wait()

    await serve(
        Service(
            name="prime.v1.TrainerService",
            settings=settings,
            token=token,
            meters=meters,
            add_servicers=lambda server: trainer_pb2_grpc.add_TrainerServiceServicer_to_server(
                TrainerServicer(loop, loop.progress), server
            ),
            jobs=(run_to_the_end,),
            drain=drain,
            tls=tls,
        )
    )


def _direct_push(settings: TrainerSettings, policy: Policy) -> DirectPush | None:
    if settings.push in ("delta", "full"):
        return None
    if settings.push == "nccl" and policy.device.type != "cuda":
        raise SettingsError("trainer.push = 'nccl' goes from GPU to GPU, and the policy is on a CPU; take 'delta'")
    return DirectPush(settings.push, deadline_s=settings.peers.call_seconds)


def _evaluation_sets(settings: EvaluationSettings) -> list[AskedSet]:
    given = [*([f"{_HELD_OUT}={settings.problems}"] if settings.problems else []), *settings.sets]
    return open_sets(given, settings.data, samples=settings.samples, limit=settings.limit)


def _encode(
    policy: Policy, settings: TrainerSettings, problems: Sequence[Problem], source: str
) -> list[tuple[Problem, tuple[int, ...]]]:
    return encode_prompts(
        policy.tokenizer,
        problems,
        source=source,
        max_tokens=settings.max_prompt_tokens,
        drop_long=settings.long_prompts == "drop",
    )


def _probe(prompts: Sequence[tuple[Problem, tuple[int, ...]]]) -> tuple[int, ...]:
    """Prompt tokens laid end to end: real text, the same in every push of a run."""
    ids: list[int] = []
    for _, prompt_ids in prompts:
        ids += prompt_ids
        if len(ids) >= _PROBE_TOKENS:
            break
    return tuple(ids[:_PROBE_TOKENS]) if len(ids) > 1 else (ids[0], ids[0])


class _Replicas:
    """The rollout replicas behind the configured names, with one channel each."""

    def __init__(self, addresses: Sequence[str], token: str, reach: Mapping[str, Any]) -> None:
        self._addresses = addresses
        self._token = token
        self._reach = reach
        self._known: dict[str, GrpcRollout] = {}

    async def find(self) -> list[tuple[str, Rollout]]:
        """All replicas that the names stand for now. Looking names up blocks, so a thread does it."""
        per_name = await asyncio.gather(*(asyncio.to_thread(resolve, address) for address in self._addresses))
        # Their certificates say the name, not the address.
        names = {
            replica: address.rpartition(":")[0]
            for address, replicas in zip(self._addresses, per_name, strict=True)
            for replica in replicas
        }
        for replica, name in names.items():
            if replica not in self._known:
                self._known[replica] = GrpcRollout(replica, self._token, name=name, **self._reach)
        return [(replica, self._known[replica]) for replica in sorted(names)]
