"""The algorithm: PRIME's Algorithm 1 (arXiv 2502.01456), top to bottom. Start reading at `TrainingLoop.step`.

collector ──► graded groups ──► PRM: score, learn ──► advantages ──► policy update ──► weight push ──► collector
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog
from torch import Tensor

from prime.errors import InvalidInput, PrimeError, SettingsError, TokenizerMismatch, VersionConflict
from prime.lm.packing import TokenRow
from prime.ports import RewardModel
from prime.types import FinishReason, GradedGroup, PrmGroup, PrmMetrics, TokenRewards, prm_view
from services.trainer.batch import (
    PolicyBatch,
    UpdateMetrics,
    compute_advantages,
    outcomes_of,
    sampler_logprobs,
    token_rows,
)
from services.trainer.collector import GroupCollector, stable_hash
from services.trainer.evaluate import Evaluator
from services.trainer.progress import Progress
from services.trainer.publisher import Publisher
from services.trainer.run_folder import RunFolder
from services.trainer.settings import TrainerSettings

_log = structlog.get_logger()


class TrainablePolicy(Protocol):
    """The policy's weights (`policy.py`); every method blocks."""

    tokenizer: Any
    fingerprint: str

    def logprobs(self, rows: Sequence[TokenRow]) -> list[Tensor]:
        """Log-probs of every row's response tokens, without gradient."""

    def update(self, batch: PolicyBatch, *, seed: int) -> UpdateMetrics:
        """The policy update of one step."""

    def save(self, folder: Path) -> Path:
        """Write a checkpoint."""

    def restore(self, folder: Path) -> None:
        """Go back to a checkpoint."""


class _StopAsked(Exception):
    """Leaves a step that was stopped while it collected groups."""


@dataclass(kw_only=True)
class TrainingLoop:
    """Runs steps until the last one, a stop, or an error. The policy's version is the number of finished steps."""

    settings: TrainerSettings
    seed: int
    collector: GroupCollector
    reward_model: RewardModel
    policy: TrainablePolicy
    publisher: Publisher
    evaluator: Evaluator | None
    folder: RunFolder
    progress: Progress

    def __post_init__(self) -> None:
        self._uses_prm = self.settings.advantage.process_coef > 0
        self._reference_mode = ""
        self._version = 0
        self._prm_version = 0
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """All steps that are left.

        Raises:
            PrimeError: whatever ended the run early; the last checkpoint is whole.
        """
        keeping_up = asyncio.create_task(self.publisher.keep_up())
        try:
            await self._start()
            with contextlib.suppress(_StopAsked):
                while self._version < self.settings.steps and not self._stop.is_set():
                    await self._one_step_with_metrics()
            if self.folder.latest < self._version:
                await self._save()
            self.progress.phase = "stopped" if self._version < self.settings.steps else "finished"
        except PrimeError as error:
            self.progress.phase, self.progress.error = "failed", str(error)
            raise
        finally:
            keeping_up.cancel()

    def stop(self) -> int:
        """Ask for an end: at once while groups are collected, else after the step at hand; returns that step."""
        self._stop.set()
        return self._version + 1

    # ---------------------------------------------------------------- one step

    async def step(self) -> Mapping[str, float]:
        """Steps 1 to 9 of the design; returns their figures."""
        # 1-4  ask for samples, take finished groups, grade them, keep those that carry signal
        self.progress.phase = "collecting"
        groups = await self._unless_stopped(self.collector.fill(self._version))
        if self.settings.max_lag > 0:
            await self.collector.prefetch(self._version)
        if self._is_too_short(groups):
            self.collector.take_back(groups)
            return {"batch/groups": float(len(groups)), "batch/skipped": 1.0}
        rows = token_rows(groups)
        old_logprobs = await self._old_logprobs(rows)

        # 5-6  token rewards, all from one PRM version; the PRM learns the outcomes
        self.progress.phase = "scoring"
        rewards, learnt = await self._score_and_learn(_for_prm(groups, old_logprobs), outcomes_of(groups))

        # 7    leave-one-out on each source, summed, whitened over the global batch
        advantages, figures = compute_advantages(
            groups, rewards, self.settings.advantage, tokenizer=self.policy.tokenizer
        )

        # 8    the clipped policy update
        self.progress.phase = "updating"
        batch = PolicyBatch(
            rows=rows,
            advantages=advantages,
            sampler_logprobs=sampler_logprobs(groups),
            old_logprobs=old_logprobs,
        )
        update = await asyncio.to_thread(
            self.policy.update, batch, seed=stable_hash(self.seed, "update", self._version)
        )
        self._version += 1

        # 9    the new weights
        self.progress.phase = "pushing"
        pushed = await self._push()

        self.folder.write_rollouts(self._version, groups, rewards, self.policy.tokenizer)
        return {
            "batch/groups": float(len(groups)),
            "batch/mean_outcome": math.fsum(outcomes_of(groups)) / len(rows),
            "batch/response_tokens": float(sum(len(row.response_ids) for row in rows)),
            "batch/truncated_share": _truncated_share(groups),
            "batch/largest_lag": float(max(self._version - 1 - each.group.oldest_version for each in groups)),
            **figures,
            **({} if rewards is None else {"reward/prm_version": float(rewards.prm_version)}),
            **_named("prm", learnt),
            **_named("policy", update),
            **pushed,
        }

    async def _unless_stopped(self, collecting: Coroutine[Any, Any, list[GradedGroup]]) -> list[GradedGroup]:
        """Collecting may take minutes and has changed nothing: a stop need not wait for it.

        The collector keeps the tickets of what is open, so a resumed run asks for it again.
        """
        filling, stopping = asyncio.ensure_future(collecting), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait([filling, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not filling.done():
                raise _StopAsked
            return filling.result()
        finally:
            for task in (filling, stopping):
                task.cancel()
            await asyncio.gather(filling, stopping, return_exceptions=True)

    async def _old_logprobs(self, rows: Sequence[TokenRow]) -> list[Tensor] | None:
        """Needed here only when the policy serves as the PRM's reference."""
        if not self._uses_prm or self._reference_mode != "policy":
            return None
        return await asyncio.to_thread(self.policy.logprobs, rows)

    async def _score_and_learn(
        self, groups: Sequence[PrmGroup], outcomes: Sequence[float]
    ) -> tuple[TokenRewards | None, PrmMetrics | None]:
        """The order is a setting; the rewards of a batch come from one PRM version, and it is the expected one."""
        if not self._uses_prm:
            return None, None
        learnt = None
        if self.settings.prm_update == "before":
            learnt = await self._learn(groups, outcomes)
        rewards = await self.reward_model.score(groups)
        self._expect_prm(rewards.prm_version, self._prm_version)
        if self.settings.prm_update == "after":
            learnt = await self._learn(groups, outcomes)
        return rewards, learnt

    async def _learn(self, groups: Sequence[PrmGroup], outcomes: Sequence[float]) -> PrmMetrics:
        metrics = await self.reward_model.learn(self._version + 1, groups, outcomes)
        self._expect_prm(metrics.prm_version, self._prm_version + 1)
        self._prm_version = metrics.prm_version
        return metrics

    def _expect_prm(self, version: int, expected: int) -> None:
        if version != expected:
            raise VersionConflict(
                f"the PRM answered with version {version}, this run expects {expected}: the service was restarted, or "
                f"another trainer uses it; start again with --resume"
            )

    def _is_too_short(self, groups: Sequence[GradedGroup]) -> bool:
        wanted = self.settings.prompts_per_step
        if len(groups) == wanted:
            return False
        counts = dict(self.collector.counts)
        on_short = self.settings.filter.on_short
        _log.warning("batch is short", groups=len(groups), wanted=wanted, on_short=on_short, **counts)
        if on_short == "fail":
            raise InvalidInput(
                f"step {self._version + 1}: {len(groups)} of {wanted} groups passed the filter after "
                f"{self.settings.filter.max_rounds} rounds ({counts}); widen trainer.filter or change the problems"
            )
        return on_short == "skip" or not groups

    async def _push(self) -> dict[str, float]:
        report = await self.publisher.push(self._version)
        return {
            "push/probe_gap": report.probe_gap,
            "push/replicas": float(report.replicas),
            "push/refused": float(report.refused),
            "time/push_pause_seconds": report.pause_seconds,
        }

    # ---------------------------------------------------------------- around the steps

    async def _start(self) -> None:
        """Check the peers, go to the starting point, and give every replica its weights."""
        self.progress.phase = "starting"
        await self.publisher.check_tokenizers()
        self._version = self.folder.latest
        if self._version:
            await asyncio.to_thread(self.policy.restore, self.folder.checkpoint(self._version))
        # The figures of step 0 are taken anew as well.
        self.folder.rewind_metrics(self._version or -1)
        if self._uses_prm:
            info = await self.reward_model.info()
            if info.tokenizer_fingerprint != self.policy.fingerprint:
                raise TokenizerMismatch(
                    "the PRM has another tokenizer than the policy, so its log-probs would speak of other tokens; "
                    "start both from one checkpoint family (settings run.model and prm.model)"
                )
            self._reference_mode = info.reference_mode
            if info.reference_mode == "policy" and self.settings.sampling.temperature != 1.0:
                raise SettingsError(
                    "prm.reference_mode = 'policy' needs trainer.sampling.temperature = 1: the log-probs carry it"
                )
            self._prm_version = await self.reward_model.restore(self._version)
        dropped = await self.collector.start()
        _log.info("starting", at_step=self._version, requests_and_groups_dropped=dropped)
        await self._push()
        if self._version == 0:
            self.folder.append_metrics({"step": 0, **await self._evaluate()})
        self.progress.step = self._version

    async def _one_step_with_metrics(self) -> None:
        started = time.perf_counter()
        before = self._version
        self.collector.begin_step()
        figures = dict(await self.step())
        if self._version == before:
            # Nothing was learnt, but the step is spent: a run ends even when no batch can be filled.
            self._version += 1
            figures |= await self._push()
        step_seconds = time.perf_counter() - started
        figures |= {f"collect/{name}": float(count) for name, count in sorted(self.collector.counts.items())}
        if self.collector.scores:
            figures["collect/mean_score"] = math.fsum(self.collector.scores) / len(self.collector.scores)
        if self._is_time(self.settings.evaluation.every):
            figures |= await self._evaluate()
        metrics = {
            "step": self._version,
            **figures,
            "time/step_seconds": step_seconds,
            "time/tokens_per_second": figures.get("batch/response_tokens", 0.0) / step_seconds,
        }
        # Before the checkpoint: a crash in between takes the step, and its figures, once more.
        self.folder.append_metrics(metrics)
        if self._is_time(self.settings.checkpoint_every):
            await self._save()
        self.progress.finish_step(self._version, metrics)
        _log.info("step", **{name: round(value, 5) for name, value in metrics.items()})

    def _is_time(self, every: int) -> bool:
        return self._version % every == 0 or self._version == self.settings.steps

    async def _evaluate(self) -> dict[str, float]:
        if self.evaluator is None:
            return {}
        self.progress.phase = "evaluating"
        accuracy = await self.evaluator.accuracy(self._version)
        self.progress.accuracy = accuracy
        return {"eval/accuracy": accuracy}

    async def _save(self) -> None:
        self.progress.phase = "saving"
        if self._uses_prm:
            await self.reward_model.save(self._version)
        await asyncio.to_thread(self.policy.save, self.folder.checkpoint(self._version))
        self.folder.commit_checkpoint(self._version, self.collector.state, keep=self.settings.keep_checkpoints)


def _for_prm(groups: Sequence[GradedGroup], old_logprobs: Sequence[Tensor] | None) -> list[PrmGroup]:
    views = prm_view(groups)
    if old_logprobs is None:
        return views
    rows = iter(old_logprobs)
    return [
        PrmGroup(
            group_id=view.group_id,
            prompt_ids=view.prompt_ids,
            responses=view.responses,
            reference_logprobs=tuple(tuple(next(rows).tolist()) for _ in view.responses),
        )
        for view in views
    ]


def _truncated_share(groups: Sequence[GradedGroup]) -> float:
    reasons = [sample.finish_reason for graded in groups for sample in graded.group.samples]
    return reasons.count(FinishReason.LENGTH) / len(reasons)


def _named(prefix: str, record: PrmMetrics | UpdateMetrics | None) -> dict[str, float]:
    return {} if record is None else {f"{prefix}/{name}": float(value) for name, value in asdict(record).items()}
