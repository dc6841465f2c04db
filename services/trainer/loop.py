"""The algorithm: PRIME's Algorithm 1 (arXiv 2502.01456), top to bottom. Start reading at `TrainingLoop.step`.

collector ──► graded groups ──► PRM: score, learn ──► advantages ──► policy update ──► weight push ──► collector

With `max_lag` > 0 the parts overlap: groups are sampled, graded and scored while the batch before is learnt from. The
PRM learns beside the policy in any case.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import structlog
from torch import Tensor

from prime import tracing
from prime.errors import InvalidInput, PrimeError, SettingsError, TokenizerMismatch
from prime.lm.packing import TokenRow
from prime.lm.training import lr_share
from prime.ports import PendingCheckpoint, RewardModel
from prime.seeds import stable_hash
from prime.types import FinishReason, GradedGroup, PrmGroup, PrmMetrics, TokenRewards, prm_view
from services.trainer.batch import (
    PolicyBatch,
    UpdateMetrics,
    outcomes_of,
    sampler_logprobs,
    token_rows,
)
from services.trainer.collector import CollectorState, GroupCollector
from services.trainer.credit import CreditAssigner
from services.trainer.evaluate import Evaluation, Evaluator
from services.trainer.outgoing import OutgoingWeights
from services.trainer.progress import Progress
from services.trainer.publisher import Publisher, PushReport
from services.trainer.recording import RecordedGroups, record
from services.trainer.rewards_ahead import RewardsAhead, check_prm_version
from services.trainer.run_folder import RunFolder
from services.trainer.settings import TrainerSettings
from services.trainer.timeline import Timeline
from services.trainer.track_record import TrackRecord
from services.trainer.tracking import Tracking

_log = structlog.get_logger()


class TrainablePolicy(Protocol):
    """The policy's weights (`policy.py`); every method blocks."""

    tokenizer: Any
    fingerprint: str

    def logprobs(self, rows: Sequence[TokenRow]) -> list[Tensor]:
        """Log-probs of every row's response tokens, without gradient."""

    def log_ratios(self, rows: Sequence[TokenRow]) -> list[Tensor]:
        """Log-probs of every row's response tokens less those of the model that the run started with."""

    def copy_as_reference(self) -> None:
        """Keep the weights at hand as the PRM's reference."""

    def reference_logprobs(self, rows: Sequence[TokenRow]) -> list[Tensor]:
        """Log-probs of every row's response tokens by the copy that was kept last."""

    def update(self, batch: PolicyBatch, *, seed: int, lr: float | None = None) -> UpdateMetrics:
        """The policy update of one step, at the rate `lr`; None: the one before."""

    def begin_save(self, folder: Path) -> PendingCheckpoint:
        """Copy a checkpoint, to be written while training goes on."""

    def restore(self, folder: Path) -> None:
        """Go back to a checkpoint."""


class _StopAsked(Exception):
    """Leaves a step that was stopped while it collected groups."""


@dataclass(kw_only=True)
class TrainingLoop:
    """Runs steps until the last one, a stop, or an error. The policy's version is the number of finished steps."""

    settings: TrainerSettings
    seed: int
    collector: GroupCollector | RecordedGroups
    reward_model: RewardModel
    credit: CreditAssigner
    policy: TrainablePolicy
    publisher: Publisher | None
    """None: there are no replicas, for nothing is sampled."""
    evaluator: Evaluator | None
    folder: RunFolder
    tracking: Tracking
    progress: Progress
    timeline: Timeline = field(default_factory=Timeline)

    def __post_init__(self) -> None:
        self.rewards = RewardsAhead(
            self.reward_model,
            max_lag=self.settings.prm_max_lag,
            batch_size=self.settings.prompts_per_step,
            timeline=self.timeline,
        )
        self._saving: asyncio.Task[None] | None = None
        self._prm_saving: asyncio.Future[str] | None = None
        self._pushing: asyncio.Task[None] | None = None
        self._pushed: PushReport | None = None
        self._evaluating: asyncio.Task[Evaluation] | None = None
        self._old_logprobs: list[Tensor] | None = None
        self._uses_prm = self.settings.advantage.asks_a_prm and self.settings.mode != "generate"
        self._reference_mode = ""
        self._version = 0
        self._prm_version = 0
        self._sampled_before = 0.0
        self._behind_frozen = 0
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """All steps that are left.

        Raises:
            PrimeError: whatever ended the run early; the last checkpoint is whole.
        """
        keeping_up = asyncio.create_task(_nothing() if self.publisher is None else self.publisher.keep_up())
        try:
            await self._start()
            with contextlib.suppress(_StopAsked):
                while self._version < self.settings.steps and not self._stop.is_set():
                    with tracing.span("step", step=self._version + 1):
                        await self._one_step_with_metrics()
            await self._finish_push()
            await self._finish_saving()
            if self.folder.latest < self._version:
                await self._save()
                await self._finish_saving()
            self.progress.phase = "stopped" if self._version < self.settings.steps else "finished"
        except PrimeError as error:
            self.progress.phase, self.progress.error = "failed", str(error)
            raise
        finally:
            keeping_up.cancel()
            if self._evaluating is not None:
                self._evaluating.cancel()
            await self.collector.close()
            with contextlib.suppress(PrimeError):  # on the way out of another error; else it was awaited already
                await self._finish_push()
                await self._finish_saving()

    def stop(self) -> int:
        """Ask for an end: at once while groups are collected, else after the step at hand; returns that step."""
        self._stop.set()
        return self._version + 1

    # ---------------------------------------------------------------- one step

    async def step(self) -> Mapping[str, float]:
        """Steps 1 to 9 of the design; returns their figures."""
        # 1-4  ask for samples, take finished groups, grade them, keep those that carry signal
        self.progress.phase = "collecting"
        groups, waited = await self._collect()
        tracing.link(each.trace for each in groups)
        if self.settings.record or self.settings.mode == "generate":
            await asyncio.to_thread(record, self.folder.path / "recorded", self._version + 1, groups)
        if self.settings.mode == "generate":
            return {"batch/groups": float(len(groups)), **waited}
        if self._is_too_short(groups):
            self.collector.take_back(groups)
            self.rewards.forget([each.group.group_id for each in groups])
            return {"batch/groups": float(len(groups)), "batch/skipped": 1.0}
        rows = token_rows(groups)

        # 5-6  token rewards, all from one PRM version; the PRM learns the outcomes, beside what follows
        self.progress.phase = "scoring"
        started = self.timeline.now()
        views, outcomes = await self._views(groups, rows), outcomes_of(groups)
        prm_update = self.settings.prm_update if self._uses_prm else "none"
        learnt = await self._learn(views, outcomes) if prm_update == "before" else None
        rewards = await self._rewards(views, rows)
        waited["wait/rewards_seconds"] = self.timeline.now() - started
        learning = asyncio.create_task(self._learn(views, outcomes)) if prm_update == "after" else None
        self.rewards.go_on()

        # 7    leave-one-out on each source, summed, whitened over the global batch
        advantages, figures = self.credit.assign(groups, rewards)

        # 8    the clipped policy update
        self.progress.phase = "updating"
        batch = PolicyBatch(
            rows=rows,
            advantages=advantages,
            sampler_logprobs=sampler_logprobs(groups),
            old_logprobs=self._old_logprobs,
        )
        with self.timeline.working("policy"):
            update = await asyncio.to_thread(
                self.policy.update, batch, seed=stable_hash(self.seed, "update", self._version), lr=self._rate()
            )
        self._version += 1

        # 9    the new weights
        self.progress.phase = "pushing"
        pushed = await self._push()

        started = self.timeline.now()
        learnt = learnt if learning is None else await learning
        waited["wait/prm_learning_seconds"] = self.timeline.now() - started
        self._watch(update, learnt, groups)
        self.folder.write_rollouts(self._version, groups, rewards, self.policy.tokenizer)
        return {
            "batch/groups": float(len(groups)),
            "batch/mean_outcome": math.fsum(outcomes) / len(rows),
            "batch/response_tokens": float(sum(len(row.written) for row in rows)),
            "batch/truncated_share": _truncated_share(groups),
            "batch/largest_lag": float(max(self._version - 1 - each.group.oldest_version for each in groups)),
            **figures,
            **({} if rewards is None else {"reward/prm_version": float(rewards.prm_version)}),
            **_named("prm", learnt),
            **_named("policy", update),
            **pushed,
            **waited,
        }

    async def _rewards(self, views: Sequence[PrmGroup], rows: Sequence[TokenRow]) -> TokenRewards | None:
        """Token rewards of the batch, from the PRM or from the policy itself; None: only outcomes count."""
        if self._uses_prm:
            return await self.rewards.of(views, prm_version=self._prm_version)
        if not self.settings.advantage.asks_the_policy:
            return None
        with self.timeline.working("policy"):
            ratios = await asyncio.to_thread(self.policy.log_ratios, rows)
        by_row = tuple(tuple(ratio_T.tolist()) for ratio_T in ratios)
        return TokenRewards(rows=by_row, prm_version=self._version, beta=1.0, reference_id="start")

    def _rate(self) -> float:
        """The learning rate of the step at hand; 0 while only the PRM learns."""
        if self._version < self.settings.prm_warmup_steps:
            return 0.0
        optimiser = self.settings.optimiser
        return optimiser.lr * lr_share(
            self._version + 1,
            steps=self.settings.steps,
            warmup_share=optimiser.warmup_share,
            final_share=optimiser.final_lr_share,
        )

    def _watch(self, update: UpdateMetrics, learnt: PrmMetrics | None, groups: Sequence[GradedGroup]) -> None:
        """Warn of figures that have ended runs badly."""
        if learnt is not None and learnt.frozen_pair_accuracy is not None:
            self._behind_frozen = self._behind_frozen + 1 if learnt.pair_accuracy < learnt.frozen_pair_accuracy else 0
            if self._behind_frozen >= self.settings.alarm.behind_frozen:
                _log.warning(
                    "the PRM orders outcomes worse than it did when the run began; lower prm.lr, or freeze it",
                    updates_in_a_row=self._behind_frozen,
                    pair_accuracy=learnt.pair_accuracy,
                    frozen_pair_accuracy=learnt.frozen_pair_accuracy,
                )
        alarm, truncated = self.settings.alarm, _truncated_share(groups)
        self.progress.sampler_kl = update.sampler_kl
        if update.sampler_kl > alarm.sampler_kl:
            _log.warning("sampler and trainer disagree", sampler_kl=update.sampler_kl, limit=alarm.sampler_kl)
        if truncated > alarm.truncated_share:
            _log.warning("most samples are cut off; raise trainer.sampling.max_tokens", share=truncated)
        if update.entropy < alarm.entropy:
            _log.warning("the policy hardly explores", entropy=update.entropy, limit=alarm.entropy)

    async def _collect(self) -> tuple[list[GradedGroup], dict[str, float]]:
        """The batch, how long it was waited for, and for how much of that replicas sampled and nobody else worked."""
        started = self.timeline.now()
        groups = await self._unless_stopped(self.collector.fill(self._version))
        seconds, covered = self.timeline.now() - started, self.timeline.anybody_seconds(since=started)
        sampled = await self._sampling_seconds() - self._sampled_before
        return groups, {
            "wait/groups_seconds": seconds,
            "wait/sampling_seconds": max(0.0, min(sampled, seconds) - covered),
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

    async def _views(self, groups: Sequence[GradedGroup], rows: Sequence[TokenRow]) -> list[PrmGroup]:
        """What the PRM sees, with the policy's log-probs where they serve as its reference."""
        self._old_logprobs = None
        if not self._uses_prm or self._reference_mode != "policy":
            return prm_view(groups)
        with self.timeline.working("policy"):
            by_row = iter(await asyncio.to_thread(self._reference_logprobs, rows))
        return [
            replace(view, reference_logprobs=tuple(tuple(next(by_row).tolist()) for _ in view.responses))
            for view in prm_view(groups)
        ]

    def _reference_logprobs(self, rows: Sequence[TokenRow]) -> list[Tensor]:
        """Of the policy at hand, or of its last copy."""
        every = self.settings.reference_every
        if not every:
            self._old_logprobs = self.policy.logprobs(rows)
            return self._old_logprobs
        if self._version % every == 0:
            self.policy.copy_as_reference()
        return self.policy.reference_logprobs(rows)

    async def _learn(self, groups: Sequence[PrmGroup], outcomes: Sequence[float]) -> PrmMetrics:
        step = self._version + 1  # the policy may get to it while this waits
        # The checkpoint is of the version before. Calls may overtake each other on their way, so it is waited for.
        if self._prm_saving is not None:
            await asyncio.wait([self._prm_saving])
        with self.timeline.working("prm"):
            metrics = await self.reward_model.learn(step, groups, outcomes)
        check_prm_version(metrics.prm_version, expected=self._prm_version + 1)
        self._prm_version = metrics.prm_version
        return metrics

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
        """Push the weights at hand; with `max_lag` > 0 the sending goes on beside the next step.

        The figures are of the push that ended last.
        """
        self.collector.advance(self._version)
        if self.publisher is None:
            return {}
        started = self.timeline.now()
        await self._finish_push()
        with self.timeline.working("push"):
            outgoing = await self.publisher.read(self._version)
        read_seconds = self.timeline.now() - started
        self._pushing = asyncio.create_task(self._send(outgoing))
        if self.settings.max_lag == 0:
            await self._finish_push()
        waited = {"wait/push_seconds": self.timeline.now() - started, "time/push_read_seconds": read_seconds}
        return waited if self._pushed is None else {**waited, **self._pushed.figures()}

    async def _send(self, outgoing: OutgoingWeights) -> None:
        if self.publisher is not None:
            with self.timeline.working("push"):
                self._pushed = await self.publisher.send(outgoing)

    async def _finish_push(self) -> None:
        pushing, self._pushing = self._pushing, None
        if pushing is not None:
            await pushing

    # ---------------------------------------------------------------- around the steps

    async def _start(self) -> None:
        """Check the peers, go to the starting point, and give every replica its weights."""
        self.progress.phase = "starting"
        if self.publisher is not None:
            await self.publisher.check_tokenizers()
        self._version = self.folder.latest
        if self._version:
            await asyncio.to_thread(self.policy.restore, self.folder.checkpoint(self._version))
        # The figures of step 0 are taken anew as well.
        self.tracking.start(first_step=self._version + 1 if self._version else 0)
        if self._uses_prm:
            info = await self.reward_model.info()
            if info.tokenizer_fingerprint != self.policy.fingerprint:
                raise TokenizerMismatch(
                    "the PRM has another tokenizer than the policy, so its log-probs would speak of other tokens; "
                    "start both from one checkpoint family (settings run.model and prm.model)"
                )
            self._reference_mode = info.reference_mode
            reference = {"prm_beta": info.beta, "prm_reference": info.reference_id}
            self.folder.pin({"prm_reference_mode": info.reference_mode, **reference})
            if info.reference_mode == "policy" and self.settings.sampling.temperature != 1.0:
                raise SettingsError(
                    "prm.reference_mode = 'policy' needs trainer.sampling.temperature = 1: the log-probs carry it"
                )
            if self.settings.reference_every and info.reference_mode != "policy":
                raise SettingsError(
                    "trainer.reference_every copies the policy for the PRM, which has a reference of its own; set "
                    "prm.reference_mode = 'policy'"
                )
            self._prm_version = await self.reward_model.restore(self._version)
        # Scored before it learns, or against log-probs that only the batch's own step knows, rewards cannot be early.
        self.rewards.is_open = (
            self._uses_prm
            and self.settings.max_lag > 0
            and self.settings.prm_update != "before"
            and self._reference_mode != "policy"
        )
        dropped = await self.collector.start(self.rewards.offer, self.timeline)
        _log.info("starting", at_step=self._version, requests_and_groups_dropped=dropped)
        await self._push()
        await self._finish_push()
        if self._version == 0:
            self.tracking.log_step({"step": 0, **await self._measured()})
        self.progress.step = self._version

    async def _one_step_with_metrics(self) -> None:
        started = time.perf_counter()
        before = self._version
        self._sampled_before = await self._sampling_seconds()
        if self._saving is not None and self._saving.done():
            await self._finish_saving()
        self.timeline.begin_step()
        figures = dict(await self.step())
        if self._version == before:
            # Nothing was learnt, but the step is spent: a run ends even when no batch can be filled.
            self._version += 1
            figures |= await self._push()
        step_seconds = time.perf_counter() - started
        figures |= self._busy_shares(step_seconds, figures.get("wait/sampling_seconds", 0.0))
        figures["busy/rollout"] = (await self._sampling_seconds() - self._sampled_before) / step_seconds
        figures |= self.collector.take_figures()
        figures |= await self._evaluate()
        metrics = {
            "step": self._version,
            **figures,
            "time/step_seconds": step_seconds,
            "time/tokens_per_second": figures.get("batch/response_tokens", 0.0) / step_seconds,
        }
        # Before the checkpoint: a crash in between takes the step, and its figures, once more.
        self.tracking.log_step(metrics)
        if self._is_time(self.settings.checkpoint_every):
            await self._save()
        self.progress.finish_step(self._version, metrics)
        _log.info("step", **{name: round(value, 5) for name, value in metrics.items()})

    def _busy_shares(self, step_seconds: float, sampled: float) -> dict[str, float]:
        """Shares of the step: per worker, and in which nobody is known to have worked."""
        shares = {f"busy/{who}": seconds / step_seconds for who, seconds in self.timeline.seconds().items()}
        return {**shares, "busy/nobody": max(0.0, 1.0 - (self.timeline.anybody_seconds() + sampled) / step_seconds)}

    async def _sampling_seconds(self) -> float:
        return 0.0 if self.publisher is None else await self.publisher.sampling_seconds()

    def _is_time(self, every: int) -> bool:
        return self._version % every == 0 or self._version == self.settings.steps

    async def _evaluate(self) -> dict[str, float]:
        """Figures of the evaluation that has ended, if one has; begins the next when it is its time.

        With `max_lag` > 0 it goes on beside the next steps. The last version is waited for.
        """
        figures = {}
        is_last = self._version == self.settings.steps
        if self._evaluating is not None and (self._evaluating.done() or is_last):
            figures = await self._finish_evaluation()
        if self.evaluator is None or not self._is_time(self.settings.evaluation.every):
            return figures
        if self.settings.max_lag == 0 or is_last:
            return await self._measured()
        if self._evaluating is not None:
            _log.warning("the evaluation before still runs, so this version is left out", version=self._version)
            return figures
        await self._finish_push()
        self._evaluating = asyncio.create_task(self.evaluator.measure(self._version, beside_training=True))
        return figures

    async def _measured(self) -> dict[str, float]:
        """An evaluation of the version at hand, waited for."""
        if self.evaluator is None:
            return {}
        self.progress.phase = "evaluating"
        await self._finish_push()
        return self._keep(await self.evaluator.measure(self._version, beside_training=False))

    async def _finish_evaluation(self) -> dict[str, float]:
        """Figures of the one that runs beside; one that fails is no reason to end a run."""
        evaluating, self._evaluating = self._evaluating, None
        if evaluating is None:
            return {}
        try:
            return self._keep(await evaluating)
        except PrimeError as error:
            _log.warning("the evaluation failed", reason=str(error))
            return {}

    def _keep(self, evaluation: Evaluation) -> dict[str, float]:
        self.progress.accuracy = evaluation.accuracy
        self.tracking.log_evaluation(evaluation.line())
        return evaluation.figures()

    async def _save(self) -> None:
        """Copy the checkpoint of this step; it is written while the next steps run."""
        self.progress.phase = "saving"
        await self._finish_saving()
        step, state, record = self._version, self.collector.state, self.credit.record
        pending = await asyncio.to_thread(self.policy.begin_save, self.folder.checkpoint(step))
        if self._uses_prm:
            self._prm_saving = asyncio.ensure_future(self.reward_model.save(step))
        self._saving = asyncio.create_task(self._write(step, state, record, pending))

    async def _write(self, step: int, state: CollectorState, record: TrackRecord, pending: PendingCheckpoint) -> None:
        policy = asyncio.to_thread(pending.wait)
        await (policy if self._prm_saving is None else asyncio.gather(self._prm_saving, policy))
        kept = {"keep": self.settings.keep_checkpoints, "every": self.settings.keep_every}
        self.folder.commit_checkpoint(step, state, record, **kept)

    async def _finish_saving(self) -> None:
        saving, self._saving = self._saving, None
        if saving is not None:
            await saving


async def _nothing() -> None:
    """In place of what there is no need for."""


def _truncated_share(groups: Sequence[GradedGroup]) -> float:
    reasons = [sample.finish_reason for graded in groups for sample in graded.group.samples]
    return reasons.count(FinishReason.LENGTH) / len(reasons)


def _named(prefix: str, record: PrmMetrics | UpdateMetrics | None) -> dict[str, float]:
    named = {} if record is None else asdict(record)
    return {f"{prefix}/{name}": float(value) for name, value in named.items() if value is not None}
