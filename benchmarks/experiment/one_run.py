"""One run of the trial: the trainer's own loop over the services' own parts, all in this process.

Nothing crosses a socket, and nothing else differs from a run of the services: a test holds both to the same figures.
"""

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.experiment.arms import Arm
from benchmarks.experiment.family import Family
from benchmarks.experiment.parts import Judge, NearVerifier, PassingPolicy, PassingRewards, Shuffled
from prime.adapters.memory import MemoryBroker, MemoryQueue
from prime.adapters.settings import merged
from prime.adapters.trackers.jsonl_files import JsonlTracker
from prime.data.problems import load_problems
from prime.data.prompts import encode_prompts
from prime.evaluation.reading import AskedSet, open_sets
from prime.lm.model import settle_torch
from prime.ports import GroupingVerifier, RewardModel, Rollout
from prime.tracking import TrackedRun
from prime.types import SamplingParams
from services.prm.reward_model import ImplicitPrm
from services.prm.settings import PrmSettings
from services.rollout.episodes import Episodes
from services.rollout.loop import RolloutWorker
from services.rollout.near import NearReplica
from services.rollout.staging import WeightStore
from services.rollout.transformers_engine import TransformersEngine
from services.trainer.collector import CollectorState, GroupCollector, ProblemSequence
from services.trainer.credit import CreditAssigner
from services.trainer.evaluate import Evaluator
from services.trainer.loop import TrainingLoop
from services.trainer.policy import Policy
from services.trainer.progress import Progress
from services.trainer.publisher import Publisher
from services.trainer.run_folder import RunFolder
from services.trainer.settings import TrainerSettings
from services.trainer.tracking import Tracking

_LEASE_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run: `Job(family="chain-16", arm="rloo", seed=101, lr=1e-3, prm_lr=0.0, steps=20, evaluate_every=2)`."""

    family: str
    arm: str
    seed: int
    lr: float
    prm_lr: float
    """0 for arms without a PRM of their own."""
    steps: int
    evaluate_every: int

    @property
    def name(self) -> str:
        """Of its result: no two jobs share one."""
        rates = f"lr{self.lr:g}.prm{self.prm_lr:g}"
        return f"{self.family}.{self.arm}.{rates}.steps{self.steps}.every{self.evaluate_every}.seed{self.seed}"


def settings_of(job: Job, family: Family, arm: Arm, material: Path) -> tuple[TrainerSettings, PrmSettings]:
    """Of trainer and PRM."""
    trainer: dict[str, Any] = {
        "problems": str(material / "problems.jsonl"),
        "steps": job.steps,
        "max_lag": 0,
        "checkpoint_every": 1_000_000,
        "evaluation": {
            "problems": str(material / "held_out.jsonl"),
            "every": job.evaluate_every,
            "samples": 1,
        },
    }
    shared = {"optimiser": {"lr": job.lr}, **({"prm_update": "none"} if arm.rewards == "judged" else {})}
    for more in (family.trainer, arm.trainer, {"advantage": arm.advantage}, shared):
        trainer = merged(trainer, more)
    if arm.advantage.get("granularity") == "step":
        trainer = merged(trainer, {"advantage": {"granularity": family.step}})
    return TrainerSettings(**trainer), PrmSettings(**{**family.prm, **arm.prm, "lr": job.prm_lr})


def run_one(job: Job, family: Family, arm: Arm, *, material: Path, folder: Path) -> list[dict[str, float]]:
    """Train; the figures of every step. `folder` is for the run's files and is removed at the end."""
    trainer, prm = settings_of(job, family, arm, material)
    settle_torch(device=trainer.optimiser.device, threads=trainer.optimiser.threads)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        asyncio.run(_run(job, family, arm, trainer, prm, material / "sft", folder))
        return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _run(
    job: Job, family: Family, arm: Arm, settings: TrainerSettings, prm: PrmSettings, start: Path, folder: Path
) -> None:
    policy = PassingPolicy(start, settings)
    problems = load_problems(settings.problems)
    prompts = encode_prompts(
        policy.tokenizer, problems, source=settings.problems, max_tokens=settings.max_prompt_tokens, drop_long=False
    )
    broker = MemoryBroker()
    engine = TransformersEngine(model=start, device=family.device, dtype=family.dtype)
    await engine.start()
    worker = RolloutWorker(
        queue=MemoryQueue(broker, consumer="rollout", lease_seconds=_LEASE_S),
        engine=engine,
        store=WeightStore(),
        max_groups=4 * settings.prompts_per_step,
        lease_seconds=_LEASE_S,
        max_context=family.max_context,
        sampler=Episodes(engine, tokenizer=policy.tokenizer),
    )
    replica = NearReplica(worker, policy.fingerprint)
    verifier = NearVerifier()
    loop = TrainingLoop(
        settings=settings,
        seed=job.seed,
        collector=GroupCollector(
            queue=MemoryQueue(broker, consumer="trainer"),
            verifier=verifier,
            problems=ProblemSequence(prompts, seed=job.seed),
            tokenizer=policy.tokenizer,
            settings=settings,
            seed=job.seed,
            state=CollectorState(),
        ),
        reward_model=_reward_model(job, arm, policy, prm, start, folder),
        credit=CreditAssigner(settings.advantage, tokenizer=policy.tokenizer, longest=settings.sampling.max_tokens),
        policy=policy,
        publisher=Publisher(_just(replica), source=policy, probe_ids=prompts[0][1]),
        evaluator=_evaluator(settings, policy, replica, verifier),
        folder=RunFolder(folder, identity={"job": job.name}, resume=False),
        tracking=Tracking(TrackedRun(name=job.name, folder=folder, settings={}), JsonlTracker()),
        progress=Progress(run=job.name, total_steps=settings.steps),
    )
    sampling = asyncio.create_task(worker.run())
    training = asyncio.create_task(loop.run())
    try:
        # A worker that breaks would be waited for in vain.
        await asyncio.wait([sampling, training], return_when=asyncio.FIRST_COMPLETED)
        if not training.done():
            sampling.result()
        await training
    finally:
        for task in (sampling, training):
            task.cancel()
        await asyncio.gather(sampling, training, return_exceptions=True)
        await engine.close()


def _reward_model(job: Job, arm: Arm, policy: Policy, prm: PrmSettings, start: Path, folder: Path) -> RewardModel:
    if not arm.has_prm:
        # For arms that ask no PRM, one that would have nothing to say; nobody calls it.
        return Judge(policy.tokenizer, policy.fingerprint)
    service = PassingRewards(ImplicitPrm(prm, start=start), checkpoints=folder / "checkpoints")
    return Shuffled(service, seed=job.seed) if arm.rewards == "shuffled" else service


def _just(replica: Rollout) -> Callable[[], Awaitable[list[tuple[str, Rollout]]]]:
    async def find() -> list[tuple[str, Rollout]]:
        return [("near", replica)]

    return find


def _evaluator(settings: TrainerSettings, policy: Policy, replica: Rollout, verifier: GroupingVerifier) -> Evaluator:
    asked: list[AskedSet] = open_sets(
        [f"held_out={settings.evaluation.problems}"], Path(), samples=settings.evaluation.samples
    )
    return Evaluator(
        asked,
        find_replicas=_just(replica),
        verifier=verifier,
        tokenizer=policy.tokenizer,
        sampling=SamplingParams(**settings.sampling.model_dump()),
        # The same for all: a difference between arms is not one of evaluation seeds.
        seed=0,
    )
