"""The loop with a real tiny policy and PRM over in-memory parts; the publisher; the run folder."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
import torch

from prime.adapters.memory import MemoryBroker, MemoryQueue, MemoryTracker
from prime.adapters.trackers.jsonl_files import JsonlTracker
from prime.errors import (
    CheckpointError,
    EngineError,
    InvalidInput,
    PeerUnavailable,
    SettingsError,
    StaleBase,
    TokenizerMismatch,
    VersionConflict,
    WeightPushError,
)
from prime.evaluation.outcomes import GradedProblem, Outcome
from prime.evaluation.summary import summarise
from prime.lm.model import CausalLM, tensor_bytes
from prime.ports import Tracker
from prime.tracking import TrackedRun
from prime.types import (
    FinishReason,
    GradedGroup,
    GradeItem,
    PrmGroup,
    PrmMetrics,
    PushManifest,
    PushReceipt,
    RolloutStatus,
    TensorAlias,
    TokenRewards,
    VerdictStatus,
)
from services.prm.reward import RewardService
from services.prm.reward_model import ImplicitPrm
from services.prm.settings import PrmSettings
from services.trainer.batch import PolicyBatch, sampler_logprobs, token_rows
from services.trainer.collector import CollectorState, GroupCollector, ProblemSequence, Ticket
from services.trainer.credit import CreditAssigner
from services.trainer.evaluate import Evaluation
from services.trainer.loop import TrainingLoop
from services.trainer.outgoing import as_pushed
from services.trainer.policy import Policy
from services.trainer.progress import Progress
from services.trainer.publisher import Publisher
from services.trainer.recording import RecordedGroups
from services.trainer.run_folder import RunFolder, identity_of
from services.trainer.settings import AdvantageSettings, TrainerSettings
from services.trainer.track_record import TrackRecord
from services.trainer.tracking import Tracking
from tests.builders import Fleet, IdsTokenizer, Score, ScriptedVerifier, finder, graded, perturb, problem, tiny_model

GROUPS = [
    graded((1.0, 0.0), ((3, 4, 1), (9, 1)), "0.0-a"),
    graded((0.0, 1.0), ((30, 31, 32, 1), (5, 1)), "1.0-b"),
]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return perturb(tiny_model(tmp_path_factory.mktemp("start")), seed=1)


def _settings(**changes: Any) -> TrainerSettings:
    return TrainerSettings.model_validate(
        {
            "problems": "x",
            "steps": 2,
            "prompts_per_step": 2,
            "samples_per_prompt": 2,
            "checkpoint_every": 1,
            "max_lag": 0,
            **changes,
            "optimiser": {"lr": 1e-2, "device": "cpu", **changes.get("optimiser", {})},
        }
    )


def _batch(advantage_scale: float = 1.0) -> PolicyBatch:
    rows = token_rows(GROUPS)
    generator = torch.Generator().manual_seed(0)
    return PolicyBatch(
        rows=rows,
        advantages=[advantage_scale * torch.randn(len(row.response_ids), generator=generator) for row in rows],
        sampler_logprobs=sampler_logprobs(GROUPS),
    )


# ---------------------------------------------------------------- the policy


def test_packs_change_no_update(start: Path) -> None:
    """How rows are packed into passes does not change an update."""
    probes = []
    for token_budget in (1, 7, 1000):
        policy = Policy(start, _settings(optimiser={"token_budget": token_budget, "lr": 1e-4}))
        metrics = policy.update(_batch(), seed=0)
        probes.append((metrics, torch.cat(policy.logprobs(token_rows(GROUPS)))))
    for metrics, logprobs_N in probes[1:]:
        assert metrics.loss == pytest.approx(probes[0][0].loss, abs=1e-6)
        assert metrics.grad_norm == pytest.approx(probes[0][0].grad_norm, rel=1e-4)
        torch.testing.assert_close(logprobs_N, probes[0][1], atol=2e-3, rtol=1e-3)


def test_an_update_raises_what_had_positive_advantage(start: Path) -> None:
    policy = Policy(start, _settings())
    rows = token_rows(GROUPS)
    before = policy.logprobs(rows)
    advantages = [torch.full((len(row.response_ids),), 1.0 if number == 0 else -1.0) for number, row in enumerate(rows)]
    policy.update(PolicyBatch(rows=rows, advantages=advantages, sampler_logprobs=before), seed=0)
    assert policy.logprobs(rows)[0].sum() > before[0].sum()


def test_zero_advantages_move_nothing(start: Path) -> None:
    policy = Policy(start, _settings())
    metrics = policy.update(_batch(0.0), seed=0)
    assert metrics.grad_norm == 0.0
    assert metrics.kl_to_old == 0.0


@pytest.mark.parametrize("mean", ["token", "sequence", "constant"])
@pytest.mark.parametrize("kind", ["clip", "gspo", "cispo"])
def test_packs_change_no_loss_of_any_kind(start: Path, kind: str, mean: str) -> None:
    losses = []
    for token_budget in (1, 7, 1000):
        loss = {"kind": kind, "mean": mean, "entropy_coef": 0.1}
        policy = Policy(start, _settings(loss=loss, optimiser={"token_budget": token_budget, "lr": 0.0}))
        metrics = policy.update(_batch(), seed=0)
        losses.append((metrics.loss, metrics.grad_norm))
    for each in losses[1:]:
        assert each == pytest.approx(losses[0], rel=1e-4)


def test_an_entropy_bonus_keeps_the_entropy_up(start: Path) -> None:
    found = []
    for entropy_coef in (0.0, 1.0):
        policy = Policy(start, _settings(loss={"entropy_coef": entropy_coef}, optimiser={"lr": 1e-3}))
        for seed in range(4):
            metrics = policy.update(_batch(0.0), seed=seed)
        found.append(metrics.entropy)
    assert found[1] > found[0] + 1e-3


def test_a_step_without_a_finite_gradient_is_left_out_and_counted(start: Path) -> None:
    policy = Policy(start, _settings(optimiser={"max_skipped": 2}))
    before = torch.cat(policy.logprobs(token_rows(GROUPS)))
    for seed in range(2):
        assert policy.update(_batch(math.nan), seed=seed).skipped == 1
    assert torch.equal(torch.cat(policy.logprobs(token_rows(GROUPS))), before)
    assert policy.update(_batch(), seed=2).skipped == 0
    for seed in range(2):
        policy.update(_batch(math.nan), seed=seed)
    with pytest.raises(EngineError, match="3 times in a row"):
        policy.update(_batch(math.nan), seed=3)


def test_several_mini_batches_use_the_old_policy_of_before_the_first(start: Path) -> None:
    policy = Policy(start, _settings(optimiser={"mini_batches": 2, "lr": 1e-2}))
    assert policy.update(_batch(), seed=0).kl_to_old > 0


@pytest.mark.parametrize(
    ("importance", "max_lag", "is_weighted"),
    [("auto", 0, False), ("auto", 1, True), ("always", 0, True), ("never", 1, False)],
)
def test_when_importance_weights_are_used(start: Path, importance: str, max_lag: int, is_weighted: bool) -> None:
    policy = Policy(start, _settings(max_lag=max_lag, loss={"importance": importance}))
    assert (policy.update(_batch(), seed=0).mean_importance != 1.0) is is_weighted


def test_at_a_rate_of_zero_nothing_moves_and_at_none_the_settings_rate_counts(start: Path) -> None:
    moved = []
    for lr in (0.0, 1e-2, None):
        policy = Policy(start, _settings())
        before = torch.cat(policy.logprobs(token_rows(GROUPS)))
        policy.update(_batch(), seed=0, lr=lr)
        moved.append(torch.cat(policy.logprobs(token_rows(GROUPS))) - before)
    assert not moved[0].any()
    assert torch.equal(moved[1], moved[2])
    assert moved[1].any()


def test_weight_decay_and_betas_reach_the_optimiser(start: Path) -> None:
    found = set()
    for changes in ({}, {"weight_decay": 1.0}, {"betas": (0.5, 0.9)}):
        policy = Policy(start, _settings(optimiser=changes))
        for seed in range(2):
            policy.update(_batch(0.5 + seed), seed=seed)
        found.add(tuple(torch.cat(policy.logprobs(token_rows(GROUPS))).tolist()))
    assert len(found) == 3


def test_a_saved_policy_loads_with_transformers_alone_and_restores_to_the_bit(start: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy = Policy(start, _settings())
    policy.update(_batch(), seed=0)
    pending = policy.begin_save(tmp_path)
    pending.wait()
    folder = pending.folder
    AutoTokenizer.from_pretrained(folder)
    AutoModelForCausalLM.from_pretrained(folder)
    policy.update(_batch(), seed=1)
    other = Policy(start, _settings())
    other.restore(tmp_path)
    other.update(_batch(), seed=1)
    for mine, theirs in zip(policy.logprobs(token_rows(GROUPS)), other.logprobs(token_rows(GROUPS)), strict=True):
        assert torch.equal(mine, theirs)


def test_the_divergence_from_the_first_policy_holds_the_policy_back(start: Path) -> None:
    travelled = []
    for kl_coef in (0.0, 1.0):
        policy = Policy(start, _settings(loss={"kl_coef": kl_coef}))
        first = policy.update(_batch(), seed=0)
        assert first.kl_to_reference == pytest.approx(0.0, abs=1e-6)
        for seed in range(1, 6):
            last = policy.update(_batch(), seed=seed)
        before = torch.cat(Policy(start, _settings()).logprobs(token_rows(GROUPS)))
        travelled.append(float((torch.cat(policy.logprobs(token_rows(GROUPS))) - before).abs().mean()))
        assert (last.kl_to_reference > 0) is (kl_coef > 0)
    assert travelled[1] < 0.8 * travelled[0]


def test_a_resumed_run_is_held_to_the_policy_that_it_started_with_by_the_formula(start: Path, tmp_path: Path) -> None:
    """k3 (Schulman): exp(ref - new) - 1 - (ref - new), averaged over the batch's tokens, times the coefficient."""
    away = Policy(start, _settings())
    for seed in range(3):
        away.update(_batch(), seed=seed)
    away.begin_save(tmp_path).wait()
    held = Policy(start, _settings(loss={"kl_coef": 0.5}, optimiser={"lr": 0.0}))
    rows, reference = token_rows(GROUPS), held.logprobs(token_rows(GROUPS))
    held.restore(tmp_path)
    logprobs = held.logprobs(rows)
    gaps_N = torch.cat(reference) - torch.cat(logprobs)
    expected = float((gaps_N.exp() - 1 - gaps_N).mean())
    zeros = [torch.zeros(len(each)) for each in reference]
    metrics = held.update(PolicyBatch(rows=rows, advantages=zeros, sampler_logprobs=logprobs), seed=0)
    assert expected > 1e-4
    assert metrics.kl_to_reference == pytest.approx(expected, rel=1e-4)
    assert metrics.loss == pytest.approx(0.5 * expected, rel=1e-4)


# ---------------------------------------------------------------- advantages of a batch


def _rewards(scale: float = 0.1) -> TokenRewards:
    generator = torch.Generator().manual_seed(3)
    rows = tuple(
        tuple((scale * torch.randn(len(row.response_ids), generator=generator)).tolist()) for row in token_rows(GROUPS)
    )
    return TokenRewards(rows=rows, prm_version=0, beta=0.05, reference_id="r")


class PieceTokenizer:
    """Token 4 and token 31 read as a delimiter."""

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return "".join(";" if token in (4, 31) else "x" for token in ids)


@pytest.mark.parametrize("estimator", ["rloo", "reinforce", "grpo"])
@pytest.mark.parametrize("granularity", ["token", "step", "whole"])
def test_every_estimator_and_granularity_gives_a_number_per_token(estimator: Any, granularity: Any) -> None:
    settings = AdvantageSettings(estimator=estimator, granularity=granularity, step_delimiter=";")
    rows, _ = CreditAssigner(settings, tokenizer=PieceTokenizer(), longest=100).assign(GROUPS, _rewards())
    assert [len(row) for row in rows] == [3, 2, 4, 2]
    values_N = torch.cat(rows)
    assert torch.isfinite(values_N).all()
    assert float(values_N.mean()) == pytest.approx(0.0, abs=1e-5)


def test_batch_norm_makes_the_scale_of_beta_irrelevant() -> None:
    small, _ = CreditAssigner(AdvantageSettings(), tokenizer=None, longest=100).assign(GROUPS, _rewards(0.1))
    large, _ = CreditAssigner(AdvantageSettings(), tokenizer=None, longest=100).assign(GROUPS, _rewards(10.0))
    torch.testing.assert_close(torch.cat(small), torch.cat(large), atol=1e-3, rtol=1e-3)


def test_the_order_of_groups_changes_no_advantage() -> None:
    """Baselines are per prompt, wherever its samples are in the batch."""
    rewards = _rewards()
    swapped = replace(rewards, rows=(*rewards.rows[2:], *rewards.rows[:2]))
    ours, _ = CreditAssigner(AdvantageSettings(), tokenizer=None, longest=100).assign(GROUPS, rewards)
    theirs, _ = CreditAssigner(AdvantageSettings(), tokenizer=None, longest=100).assign(GROUPS[::-1], swapped)
    torch.testing.assert_close(torch.cat(ours), torch.cat([*theirs[2:], *theirs[:2]]))


def test_long_responses_lose_outcome_and_the_rest_learns_as_before() -> None:
    """Responses of 3, 2, 4 and 2 tokens, of which 4 are allowed."""
    settings = AdvantageSettings(process_coef=0.0, overlong_window=2)
    long, figures = CreditAssigner(settings, tokenizer=None, longest=4).assign(GROUPS, None)
    assert figures["reward/overlong"] == pytest.approx(-(0.5 + 0.0 + 1.0 + 0.0) / 4)
    far, figures = CreditAssigner(settings, tokenizer=None, longest=100).assign(GROUPS, None)
    plain, _ = CreditAssigner(AdvantageSettings(process_coef=0.0), tokenizer=None, longest=100).assign(GROUPS, None)
    assert figures["reward/overlong"] == 0.0
    assert torch.equal(torch.cat(far), torch.cat(plain))
    assert float(long[2].mean()) < float(plain[2].mean())


# ---------------------------------------------------------------- the publisher


class OneReplica:
    """Takes every push, or fails as told."""

    def __init__(self, *, error: Exception | None = None, fingerprint: str = "f") -> None:
        self.error = error
        self.fingerprint = fingerprint
        self.version = -1
        self.bytes = b""
        self.dtype = "float32"
        self.refuses_deltas = False
        self.manifests: list[PushManifest] = []

    async def generate(self, requests: Sequence[Any]) -> list[Any]:
        return []

    async def push(
        self, manifest: PushManifest, chunks: AsyncIterator[bytes | memoryview], digest: Callable[[], Awaitable[bytes]]
    ) -> PushReceipt:
        self.manifests.append(manifest)
        if self.error is not None:
            raise self.error
        if manifest.base_version is not None and self.refuses_deltas:
            raise StaleBase("a restarted replica holds nothing")
        self.bytes = b"".join([chunk async for chunk in chunks])
        assert len(await digest()) == 16
        self.version = manifest.version
        return PushReceipt(
            version=manifest.version, probe_logprobs=manifest.probe_logprobs, stage_seconds=0.0, pause_seconds=0.25
        )

    async def status(self) -> RolloutStatus:
        return RolloutStatus(
            engine="x",
            ready=self.version >= 0,
            version=max(self.version, 0),
            groups_delivered=0,
            tokens_generated=0,
            groups_in_flight=0,
            tokenizer_fingerprint=self.fingerprint,
            dtype=self.dtype,
        )


class FixedWeights:
    """Two tensors; of the larger one, `step` changes one value in a hundred."""

    fingerprint = "f"

    def __init__(self) -> None:
        self.large = torch.zeros(1_250_000)

    def step(self) -> None:
        self.large[::100] += 1.0

    has_adapters = False

    def weights(
        self, dtype: str, *, on_cpu: bool = True, merged: bool = True
    ) -> tuple[list[tuple[str, torch.Tensor]], list[TensorAlias]]:
        return as_pushed([("large", self.large), ("small", torch.ones(3))], dtype), []

    def probe_logprobs(self, ids: tuple[int, ...]) -> tuple[float, ...]:
        return (-1.0,)

    def plain_logprobs(self, ids: tuple[int, ...], named: Mapping[str, torch.Tensor]) -> tuple[float, ...]:
        return (-1.0,)


def _publisher(*replicas: OneReplica) -> Publisher:
    return Publisher(finder(*replicas), source=FixedWeights(), probe_ids=(1, 2))


async def test_every_replica_gets_all_bytes_in_chunks() -> None:
    replicas = [OneReplica(), OneReplica()]
    report = await _publisher(*replicas).push(3)
    assert (report.replicas, report.refused, report.pause_seconds) == (2, 0, 0.25)
    ones = bytes(tensor_bytes(torch.ones(3)))
    assert all(replica.version == 3 and replica.bytes == bytes(5_000_000) + ones for replica in replicas)


async def test_replicas_that_hold_the_version_before_get_what_changed_and_others_everything() -> None:
    source, steady, restarted = FixedWeights(), OneReplica(), OneReplica()
    steady.dtype = restarted.dtype = "bfloat16"
    publisher = Publisher(finder(steady, restarted), source=source, probe_ids=(1, 2))
    await publisher.push(1)
    source.step()
    restarted.refuses_deltas = True
    report = await publisher.push(2)
    assert (report.replicas, report.refused) == (2, 0)
    assert 0.01 < report.delta_share < 0.02  # 1 % of the values, three bytes instead of two
    assert [manifest.base_version for manifest in steady.manifests] == [None, 1]
    assert [manifest.base_version for manifest in restarted.manifests] == [None, 1, None]
    assert len(restarted.bytes) == 2_500_006


@pytest.mark.parametrize(("dtype", "deltas"), [("float32", True), ("bfloat16", False)])
async def test_everything_is_sent_where_most_changes_or_deltas_are_off(dtype: str, deltas: bool) -> None:
    replica = OneReplica()
    replica.dtype = dtype
    publisher = Publisher(finder(replica), source=FixedWeights(), probe_ids=(1, 2), deltas=deltas)
    await publisher.push(1)
    assert (await publisher.push(2)).delta_share == 1.0
    assert [manifest.base_version for manifest in replica.manifests] == [None, None]


async def test_replicas_of_different_dtypes_are_refused() -> None:
    coarse = OneReplica()
    coarse.dtype = "bfloat16"
    with pytest.raises(WeightPushError, match=r"different dtypes.*set rollout\.dtype alike"):
        await _publisher(OneReplica(), coarse).push(1)


async def test_one_failing_replica_does_not_stop_the_others() -> None:
    report = await _publisher(OneReplica(error=WeightPushError("gap")), OneReplica()).push(1)
    assert (report.replicas, report.refused) == (1, 1)


async def test_no_replica_left_is_an_error() -> None:
    with pytest.raises(WeightPushError, match="no replica took version 1: gap"):
        await _publisher(OneReplica(error=WeightPushError("gap"))).push(1)
    with pytest.raises(PeerUnavailable, match="no rollout replica answers"):
        await _publisher(OneReplica(error=PeerUnavailable("r0: refused"))).push(1)


async def test_a_replica_with_another_tokenizer_is_refused() -> None:
    with pytest.raises(TokenizerMismatch, match="r0"):
        await _publisher(OneReplica(fingerprint="g")).check_tokenizers()


# ---------------------------------------------------------------- the loop


class FixedCollector:
    """Always the same groups."""

    def __init__(self, groups: Sequence[GradedGroup]) -> None:
        self.groups = list(groups)
        self.counts: dict[str, int] = {}
        self.state = CollectorState(next_number=7)

    def take_figures(self) -> dict[str, float]:
        return {"collect/mean_score": 0.5}

    async def start(self, on_kept: Any, timeline: Any) -> int:
        return 0

    async def close(self) -> None:
        pass

    def advance(self, version: int) -> None:
        pass

    async def fill(self, version: int) -> list[GradedGroup]:
        return [GradedGroup(group=_at_version(each.group, version), outcomes=each.outcomes) for each in self.groups]

    def take_back(self, groups: Sequence[GradedGroup]) -> None:
        pass


def _at_version(group: Any, version: int) -> Any:
    samples = tuple(
        replace(sample, spans=tuple(replace(span, version=version) for span in sample.spans))
        for sample in group.samples
    )
    return replace(group, samples=samples)


class LookingCollector(FixedCollector):
    """Looks at something whenever a batch is asked for."""

    look: Callable[[], torch.Tensor]

    def __init__(self, groups: Sequence[GradedGroup]) -> None:
        super().__init__(groups)
        self.seen: list[torch.Tensor] = []

    async def fill(self, version: int) -> list[GradedGroup]:
        self.seen.append(self.look())
        return await super().fill(version)


class RecordingPrm:
    """Writes down the order of calls in front of a real reward service."""

    def __init__(self, inner: RewardService) -> None:
        self.inner = inner
        self.calls: list[str] = []
        self.learnt: list[str] = []
        self.references: list[tuple[tuple[float, ...], ...]] = []
        """Supplied reference log-probs of the first group, per score."""
        self.way_of_save_s = 0.0
        """For how long a save is under way before it arrives."""

    async def score(self, groups: Sequence[PrmGroup]) -> TokenRewards:
        self.calls.append("score")
        self.references.append(groups[0].reference_logprobs)
        return await self.inner.score(groups)

    async def learn(self, step: int, groups: Sequence[PrmGroup], outcomes: Sequence[float]) -> PrmMetrics:
        self.calls.append("learn")
        self.learnt += [group.group_id for group in groups]
        return await self.inner.learn(step, groups, outcomes)

    async def save(self, step: int) -> str:
        await asyncio.sleep(self.way_of_save_s)
        return await self.inner.save(step)

    async def restore(self, step: int) -> int:
        return await self.inner.restore(step)

    async def info(self) -> Any:
        return await self.inner.info()


def _loop(
    start: Path,
    path: Path,
    *,
    groups: Sequence[GradedGroup] = GROUPS,
    prm: dict[str, Any] | None = None,
    collector: Any = None,
    publisher: bool = True,
    evaluator: Any = None,
    trackers: Sequence[Tracker] = (),
    resume: bool = False,
    **changes: Any,
) -> tuple[TrainingLoop, RecordingPrm]:
    settings = _settings(**changes)
    weights = ImplicitPrm(PrmSettings(**{"lr": 1e-2, "device": "cpu", **(prm or {})}), start=start)
    reward_model = RecordingPrm(RewardService(weights, checkpoints=path / "checkpoints"))
    policy = Policy(start, settings)
    replicas = finder(OneReplica(fingerprint=policy.fingerprint))
    loop = TrainingLoop(
        settings=settings,
        seed=0,
        collector=collector or FixedCollector(groups),  # type: ignore[arg-type]
        reward_model=reward_model,
        credit=CreditAssigner(settings.advantage, tokenizer=policy.tokenizer, longest=settings.sampling.max_tokens),
        policy=policy,
        publisher=Publisher(replicas, source=policy, probe_ids=(5, 6, 7), max_gap=1e-3) if publisher else None,
        evaluator=evaluator,
        folder=RunFolder(path, identity={"seed": 0}, resume=resume),
        tracking=Tracking(TrackedRun(name="x", folder=path, settings={}), JsonlTracker(), trackers),
        progress=Progress(run="x", total_steps=settings.steps),
    )
    return loop, reward_model


def _metrics(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


class SlowEvaluator:
    """Measures for as long as it is held; `fails` at these versions."""

    def __init__(self, *, fails: Sequence[int] = ()) -> None:
        self.asked: list[tuple[int, bool]] = []
        self.held = asyncio.Event()
        self._fails = fails

    async def measure(self, version: int, *, beside_training: bool) -> Evaluation:
        self.asked.append((version, beside_training))
        if beside_training:
            await self.held.wait()
        if version in self._fails:
            raise PeerUnavailable("the verifier is away")
        return Evaluation(version=version, newest=version, sets={"s": summarise([_right_once(version)])})


def _right_once(version: int) -> GradedProblem:
    return GradedProblem(
        problem_id="s-1",
        numbers=(0,),
        outcomes=(Outcome.RIGHT if version else Outcome.WRONG,),
        classes=(),
        reasons=("",),
        num_tokens=(1,),
        truncated=(False,),
    )


class HoldingCollector(FixedCollector):
    """Lets go of the evaluation when the third batch is asked for."""

    def __init__(self, groups: Sequence[GradedGroup], evaluator: SlowEvaluator) -> None:
        super().__init__(groups)
        self._evaluator = evaluator

    async def fill(self, version: int) -> list[GradedGroup]:
        if version == 3:
            self._evaluator.held.set()
            await asyncio.sleep(0.05)
        return await super().fill(version)


@pytest.mark.parametrize("fails", [(), (1,)])
async def test_an_evaluation_does_not_stop_the_loop_and_its_failure_does_not_end_it(
    start: Path, tmp_path: Path, fails: tuple[int, ...]
) -> None:
    evaluator = SlowEvaluator(fails=fails)
    loop, _ = _loop(
        start,
        tmp_path,
        collector=HoldingCollector(GROUPS, evaluator),
        evaluator=evaluator,
        steps=5,
        max_lag=1,
        evaluation={"every": 1},
    )
    await loop.run()
    # Step 0 and the last are waited for; version 1 is measured while versions 2 and 3 are made, which are left out.
    assert [each for each in evaluator.asked if not each[1]] == [(0, False), (5, False)]
    assert (1, True) in evaluator.asked
    assert (2, True) not in evaluator.asked
    measured = {row["step"]: row["eval/version"] for row in _metrics(tmp_path) if "eval/version" in row}
    assert measured[0] == 0.0
    assert measured[5] == 5.0
    assert (1.0 in measured.values()) is not bool(fails)
    lines = [json.loads(line) for line in (tmp_path / "evaluation.jsonl").read_text().splitlines()]
    assert [line["version"] for line in lines][-1] == 5


async def test_a_tracker_gets_every_step_and_evaluation_that_the_run_folder_gets(start: Path, tmp_path: Path) -> None:
    tracker, evaluator = MemoryTracker(), SlowEvaluator()
    loop, _ = _loop(start, tmp_path, evaluator=evaluator, trackers=[tracker], max_lag=0)
    await loop.run()
    loop.tracking.close("finished", patience_s=60)
    assert {step: {"step": step, **figures} for step, figures in tracker.steps.items()} == {
        row["step"]: row for row in _metrics(tmp_path)
    }
    assert {step: each["evaluation/s/average"] for step, each in tracker.evaluations.items()} == {0: 0.0, 2: 1.0}
    assert tracker.outcome == "finished"


@pytest.mark.parametrize(
    ("prm_update", "calls"), [("after", ["score", "learn"]), ("before", ["learn", "score"]), ("none", ["score"])]
)
async def test_every_update_mode_runs_in_its_order(
    start: Path, tmp_path: Path, prm_update: str, calls: list[str]
) -> None:
    """Scoring before learning gives rewards of exactly 0 in the first step."""
    loop, reward_model = _loop(start, tmp_path, prm_update=prm_update)
    await loop.run()
    assert reward_model.calls == calls * 2
    first, second = _metrics(tmp_path)[1:]
    assert (first["reward/largest_token"] == 0.0) is (prm_update != "before")
    assert (second["reward/largest_token"] == 0.0) is (prm_update == "none")
    if "learn" in calls:
        assert first["prm/loss"] == pytest.approx(0.6931, abs=1e-3)


async def test_a_save_that_is_long_on_its_way_is_not_overtaken_by_the_next_step(start: Path, tmp_path: Path) -> None:
    loop, reward_model = _loop(start, tmp_path, checkpoint_every=1, steps=3)
    reward_model.way_of_save_s = 0.3
    await loop.run()
    assert reward_model.calls.count("learn") == 3
    assert (tmp_path / "checkpoints" / "latest").read_text() == "3"


async def test_the_policy_as_reference_runs(start: Path, tmp_path: Path) -> None:
    """The log-probs of the policy serve as reference."""
    loop, _ = _loop(start, tmp_path, prm={"reference_mode": "policy"})
    await loop.run()
    first, second = _metrics(tmp_path)[1:]
    assert first["reward/largest_token"] == pytest.approx(0.0, abs=1e-6)
    assert second["reward/largest_token"] > 0


async def test_a_copy_of_the_policy_is_the_reference_until_the_next(start: Path, tmp_path: Path) -> None:
    every_step, _ = _loop(start, tmp_path / "every", prm={"reference_mode": "policy"}, steps=4)
    await every_step.run()
    loop, reward_model = _loop(start, tmp_path / "copied", prm={"reference_mode": "policy"}, steps=4, reference_every=2)
    at_start = loop.policy.logprobs(token_rows(GROUPS)[:2])
    await loop.run()
    first, second, third, fourth = reward_model.references
    assert list(first) == [pytest.approx(logprobs_T.tolist()) for logprobs_T in at_start]
    assert first == second
    assert third == fourth
    assert third != first


async def test_a_resumed_run_has_the_copy_that_was_its_reference(start: Path, tmp_path: Path) -> None:
    def begin(name: str, *, resume: bool, steps: int) -> tuple[TrainingLoop, RecordingPrm]:
        return _loop(
            start,
            tmp_path / name,
            prm={"reference_mode": "policy"},
            resume=resume,
            steps=steps,
            reference_every=2,
        )

    whole, undisturbed = begin("whole", resume=False, steps=4)
    await whole.run()
    stopped, _ = begin("parts", resume=False, steps=3)
    await stopped.run()
    del stopped
    resumed, after = begin("parts", resume=True, steps=4)
    await resumed.run()
    # The fourth step is the second that the copy of step 2 serves.
    assert after.references == [undisturbed.references[3]]


async def test_a_copy_for_a_prm_with_a_reference_of_its_own_is_refused(start: Path, tmp_path: Path) -> None:
    loop, _ = _loop(start, tmp_path, reference_every=2)
    with pytest.raises(SettingsError, match="reference_mode = 'policy'"):
        await loop.run()


def test_adapters_and_copies_of_whole_weights_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="reference_every"):
        _settings(reference_every=2, compute={"lora_rank": 4})


async def test_while_the_prm_warms_up_it_learns_and_the_policy_stays(start: Path, tmp_path: Path) -> None:
    collector = LookingCollector(GROUPS)
    loop, _ = _loop(start, tmp_path, collector=collector, prm_warmup_steps=2, steps=4)
    collector.look = lambda: torch.cat(loop.policy.logprobs(token_rows(GROUPS)))
    await loop.run()
    first, second, third, fourth = collector.seen
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    assert not torch.equal(first, fourth)
    assert [row["reward/prm_version"] for row in _metrics(tmp_path)[1:]] == [0, 1, 2, 3]


async def test_the_policys_own_log_ratio_needs_no_prm(start: Path, tmp_path: Path) -> None:
    loop, reward_model = _loop(start, tmp_path, advantage={"source": "policy", "estimator": "spro"})
    await loop.run()
    assert reward_model.calls == []
    first, second = _metrics(tmp_path)[1:]
    # It is its own start at first, and another policy after an update.
    assert first["reward/largest_token"] == pytest.approx(0.0, abs=1e-6)
    assert second["reward/largest_token"] > 0


async def test_a_frozen_copy_of_the_prm_is_watched_beside_it(start: Path, tmp_path: Path) -> None:
    loop, _ = _loop(start, tmp_path, prm={"watch_frozen": True}, steps=3, alarm={"behind_frozen": 1})
    await loop.run()
    rows = _metrics(tmp_path)[1:]
    assert rows[0]["prm/frozen_pair_accuracy"] == rows[0]["prm/pair_accuracy"]
    # A copy that learns nothing says the same of the same groups.
    assert len({row["prm/frozen_pair_accuracy"] for row in rows}) == 1


@pytest.mark.parametrize("reference_mode", ["freeze", "policy"])
@pytest.mark.parametrize("granularity", ["token", "step", "whole"])
@pytest.mark.parametrize("loss", ["ce", "dpo"])
@pytest.mark.parametrize("prm_update", ["after", "before", "none"])
async def test_every_way_to_learn_online_runs_with_every_other(
    start: Path, tmp_path: Path, prm_update: str, loss: str, granularity: str, reference_mode: str
) -> None:
    loop, reward_model = _loop(
        start,
        tmp_path,
        prm={"loss": loss, "reference_mode": reference_mode},
        prm_update=prm_update,
        advantage={"granularity": granularity},
    )
    await loop.run()
    for step, row in enumerate(_metrics(tmp_path)[1:], start=1):
        # Learnt once per step, and scored by the version that the mode says.
        learnt = {"after": step - 1, "before": step, "none": 0}[prm_update]
        assert row["reward/prm_version"] == learnt
        assert all(math.isfinite(value) for value in row.values())
    assert (await reward_model.info()).prm_version == (0 if prm_update == "none" else 2)


async def test_without_process_rewards_no_prm_is_asked(start: Path, tmp_path: Path) -> None:
    loop, reward_model = _loop(start, tmp_path, advantage={"process_coef": 0.0})
    await loop.run()
    assert reward_model.calls == []
    assert not list((tmp_path / "checkpoints").glob("*/prm"))


async def test_a_prm_at_an_unexpected_version_stops_the_run(start: Path, tmp_path: Path) -> None:
    loop, reward_model = _loop(start, tmp_path)
    await loop._start()
    await reward_model.inner.learn(9, [PrmGroup(group_id="x", prompt_ids=(1,), responses=((2,), (3,)))], [1.0, 0.0])
    with pytest.raises(VersionConflict, match="another trainer"):
        await loop.step()


async def test_a_prm_that_restarted_between_scoring_and_learning_stops_the_run(start: Path, tmp_path: Path) -> None:
    loop, reward_model = _loop(start, tmp_path)
    await loop._start()
    await loop._one_step_with_metrics()
    scored = reward_model.score

    async def score_then_restart(groups: Sequence[PrmGroup]) -> TokenRewards:
        rewards = await scored(groups)
        await reward_model.inner.restore(0)
        return rewards

    reward_model.score = score_then_restart  # type: ignore[method-assign]
    with pytest.raises(VersionConflict, match="answered with version 1, this run expects 2: the service was restarted"):
        await loop.step()


async def test_a_stop_while_groups_are_collected_saves_at_once(start: Path, tmp_path: Path) -> None:
    loop, _ = _loop(start, tmp_path, steps=5, checkpoint_every=5)
    running = asyncio.create_task(loop.run())
    while loop.progress.step < 1:
        await asyncio.sleep(0.01)
    loop.collector.fill = _never  # type: ignore[method-assign]
    while loop.progress.phase != "collecting" or loop.collector.fill is not _never:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    loop.stop()
    async with asyncio.timeout(10):
        await running
    assert loop.progress.phase == "stopped"
    assert loop.folder.latest == loop.progress.step


async def _never(version: int) -> list[GradedGroup]:
    await asyncio.Event().wait()
    return []


async def test_groups_without_a_score_are_dropped_and_counted_and_nothing_is_learnt_from_them(
    start: Path, tmp_path: Path
) -> None:
    """A verdict that is no number, of each kind, through the whole loop: none becomes a zero."""

    def score(item: GradeItem) -> Score:
        unscored = {
            "0.0-p": VerdictStatus.UNDECIDED,
            "1.0-p": VerdictStatus.INFRA_ERROR,
            "2.0-p": VerdictStatus.INVALID_REQUEST,
        }
        right = 1.0 if item.item_id.endswith("/0") else 0.0
        return unscored.get(item.item_id[:5], right) if item.item_id.endswith("/0") else right

    broker = MemoryBroker()
    collector = GroupCollector(
        queue=MemoryQueue(broker, consumer="trainer"),
        verifier=ScriptedVerifier(score),
        problems=ProblemSequence([(problem(number), (5, 6)) for number in range(12)], seed=0),
        tokenizer=IdsTokenizer(),
        settings=_settings(prompts_per_step=3),
        seed=0,
        state=CollectorState(),
    )
    loop, reward_model = _loop(start, tmp_path, collector=collector, steps=1, prompts_per_step=3)
    fleet = asyncio.create_task(Fleet(broker).run())
    await loop.run()
    fleet.cancel()
    (figures,) = _metrics(tmp_path)[1:]
    dropped = {name: figures[f"collect/{name}"] for name in ("undecided", "infra_error", "ungradable")}
    assert dropped == {"undecided": 1.0, "infra_error": 1.0, "ungradable": 1.0}
    # The first two were asked again; of the third nothing was learnt, nor of any group's first attempt.
    assert [name.partition("-")[0] for name in reward_model.learnt] == ["0.1", "1.1", "3.0"]
    assert figures["collect/mean_score"] == 0.5


@pytest.mark.parametrize(("on_short", "trained"), [("train", True), ("skip", False)])
async def test_a_short_batch_is_trained_on_or_skipped_as_configured(
    start: Path, tmp_path: Path, on_short: str, trained: bool
) -> None:
    loop, reward_model = _loop(start, tmp_path, groups=GROUPS[:1], filter={"on_short": on_short})
    await loop.run()
    assert bool(reward_model.calls) is trained
    assert [row["step"] for row in _metrics(tmp_path)] == [0, 1, 2]


async def test_a_short_batch_can_be_an_error(start: Path, tmp_path: Path) -> None:
    loop, _ = _loop(start, tmp_path, groups=[], filter={"on_short": "fail"})
    with pytest.raises(InvalidInput, match="0 of 2 groups passed the filter"):
        await loop.run()


async def test_a_stop_ends_after_the_step_at_hand_with_a_checkpoint(start: Path, tmp_path: Path) -> None:
    loop, _ = _loop(start, tmp_path, steps=5, checkpoint_every=5)
    await loop._start()
    await loop._one_step_with_metrics()
    loop.stop()
    await loop.run()
    assert loop.progress.phase == "stopped"


async def test_a_recorded_run_replays_to_the_same_figures_without_sampling(start: Path, tmp_path: Path) -> None:
    first, _ = _loop(start, tmp_path / "first", record=True, steps=3)
    await first.run()
    recorded = tmp_path / "first" / "recorded"
    groups = RecordedGroups(recorded, state=CollectorState())
    again, _ = _loop(
        start, tmp_path / "again", collector=groups, mode="replay", recorded=str(recorded), steps=3, publisher=False
    )
    await again.run()
    for before, after in zip(_metrics(tmp_path / "first")[1:], _metrics(tmp_path / "again")[1:], strict=True):
        names = [name for name in before if name.startswith(("policy/", "prm/", "reward/", "advantage/", "batch/"))]
        assert len(names) > 15
        # Versions of the samples are those of the run that was recorded, and so is the lag.
        assert {name: after[name] for name in names} == {name: before[name] for name in names}
        assert not any(name.startswith("push/") for name in after)


async def test_generating_records_groups_and_learns_nothing(start: Path, tmp_path: Path) -> None:
    loop, reward_model = _loop(start, tmp_path, mode="generate")
    before = loop.policy.logprobs(token_rows(GROUPS))
    await loop.run()
    assert reward_model.calls == []
    assert all(map(torch.equal, before, loop.policy.logprobs(token_rows(GROUPS))))
    assert sorted(file.name for file in (tmp_path / "recorded").iterdir()) == ["step_1.jsonl", "step_2.jsonl"]


@pytest.mark.parametrize(
    ("alarm", "warning"),
    [
        ({"sampler_kl": 0.001}, "sampler and trainer disagree"),
        ({"truncated_share": 0.2}, "most samples are cut off; raise trainer.sampling.max_tokens"),
        ({"entropy": 10.0}, "the policy hardly explores"),
        ({"sampler_kl": 1e9, "truncated_share": 1.0}, None),
    ],
)
async def test_figures_that_have_ended_runs_badly_are_warned_of(
    start: Path, tmp_path: Path, alarm: dict[str, float], warning: str | None
) -> None:
    first, *others = GROUPS[0].group.samples
    cut_off = replace(first, finish_reason=FinishReason.LENGTH)
    groups = [replace(GROUPS[0], group=replace(GROUPS[0].group, samples=(cut_off, *others))), GROUPS[1]]
    limits = {"sampler_kl": 1e9, "truncated_share": 1.0, **alarm}
    loop, _ = _loop(start, tmp_path, groups=groups, steps=1, alarm=limits)
    with structlog.testing.capture_logs() as logs:
        await loop.run()
    assert [each["event"] for each in logs if each["log_level"] == "warning"] == ([warning] if warning else [])


# ---------------------------------------------------------------- the run folder


def test_a_run_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(CheckpointError, match=r"runs/mine cannot be written: .*check run\.folder"):
        RunFolder(tmp_path / "runs" / "mine", identity={}, resume=False)


def test_another_runs_folder_is_refused(tmp_path: Path) -> None:
    RunFolder(tmp_path, identity={"model": "a"}, resume=False)
    with pytest.raises(CheckpointError, match="belongs to another run: model was 'a', is 'b'"):
        RunFolder(tmp_path, identity={"model": "b"}, resume=True)


@pytest.mark.parametrize(
    ("changed", "numbers", "key"),
    [
        ({}, (0, 2), "problems_sha256"),
        ({"max_prompt_tokens": 7}, (0, 1), "max_prompt_tokens"),
        ({"sampling": {"max_tokens": 9}}, (0, 1), "max_tokens"),
        ({"optimiser": {"lr": 1.0}, "steps": 9}, (0, 1), ""),
    ],
)
def test_a_run_goes_on_only_with_its_problems_and_limits(
    tmp_path: Path, changed: dict[str, Any], numbers: Sequence[int], key: str
) -> None:
    def open_folder(settings: TrainerSettings, numbers: Sequence[int], *, resume: bool) -> None:
        problems = [problem(number) for number in numbers]
        identity = identity_of(settings, problems, model=Path("m"), seed=0, tokenizer_fingerprint="f")
        RunFolder(tmp_path, identity=identity, resume=resume)

    open_folder(_settings(), (0, 1), resume=False)
    other = _settings(**changed)
    if key:
        with pytest.raises(CheckpointError, match=f"{key} was .* choose another run.name, or put {key} back"):
            open_folder(other, numbers, resume=True)
    else:
        open_folder(other, numbers, resume=True)


def test_a_run_goes_on_only_with_its_prm(tmp_path: Path) -> None:
    RunFolder(tmp_path, identity={}, resume=False).pin({"prm_beta": 0.05})
    RunFolder(tmp_path, identity={}, resume=True).pin({"prm_beta": 0.05})
    with pytest.raises(CheckpointError, match=r"prm_beta was 0\.05, is 0\.5"):
        RunFolder(tmp_path, identity={}, resume=True).pin({"prm_beta": 0.5})


def test_steps_that_are_there_are_not_overwritten_without_resume(tmp_path: Path) -> None:
    RunFolder(tmp_path, identity={"model": "a"}, resume=False)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(CheckpointError, match="--resume"):
        RunFolder(tmp_path, identity={"model": "a"}, resume=False)
    RunFolder(tmp_path, identity={"model": "a"}, resume=True)


def test_only_the_newest_checkpoints_are_kept_and_latest_names_a_whole_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, identity={}, resume=False)
    state = CollectorState(next_number=3, kept_share=0.5, unfinished=[Ticket(number=1, attempt=0)])
    for step in (1, 2, 3):
        folder.checkpoint(step).mkdir(parents=True)
        assert folder.latest == step - 1
        folder.commit_checkpoint(step, state, TrackRecord(pairs=float(step)), keep=2)
    assert sorted(path.name for path in folder.checkpoints.glob("step_*")) == ["step_2", "step_3"]
    assert folder.latest == 3
    assert folder.load_state(3) == state
    assert folder.load_record(3) == TrackRecord(pairs=3.0)
    with pytest.raises(CheckpointError, match="step_1"):
        folder.load_state(1)


def test_the_policys_named_tensors_are_what_a_push_announces(start: Path) -> None:
    policy = Policy(start, _settings())
    tensors, aliases = policy.weights("float32")
    lm = CausalLM(start, device=torch.device("cpu"))
    assert [name for name, _ in tensors] == [name for name, _ in lm.named_tensors()]
    assert all(torch.equal(mine, theirs) for (_, mine), (_, theirs) in zip(tensors, lm.named_tensors(), strict=True))
    assert aliases == []
    assert len(policy.probe_logprobs((5, 6, 7))) == 2


def test_a_tied_head_travels_once(tmp_path: Path) -> None:
    policy = Policy(tiny_model(tmp_path / "tied", tied=True), _settings())
    tensors, aliases = policy.weights("bfloat16")
    assert "lm_head.weight" not in dict(tensors)
    assert aliases == [TensorAlias(name="lm_head.weight", of="model.embed_tokens.weight")]
    assert {tensor.dtype for _, tensor in tensors} == {torch.bfloat16}
