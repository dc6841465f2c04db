"""What can be set for a training run: the section `[trainer]` and its subsections. Defaults are the paper's."""

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt, model_validator

from prime.adapters.settings import Address, ComputeSettings, ServiceSettings, Settings, TrackerSettings


class SamplingSettings(Settings):
    """How rollouts are sampled."""

    temperature: float = Field(1.0, gt=0)
    """Sampling temperature. The trainer computes its log-probs at the same temperature."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Share of the probability that is sampled from. The sampler's log-probs are of that nucleus, the trainer's of the
    whole distribution; 1 keeps them equal. Below 1, and likewise with `top_k` and `min_p`, importance weights are
    biased, and a warning says so."""
    max_tokens: int = Field(3072, ge=1)
    """Longest response. A longer one is cut and counted in `batch/truncated_share`."""
    top_k: int = Field(0, ge=0)
    """Sample from this many of the most probable tokens. 0: all."""
    min_p: float = Field(0.0, ge=0, le=1)
    """Sample from tokens with at least this share of the most probable one's probability. Tokens are left out in the
    order `min_p`, `top_k`, `top_p`."""
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end a response, besides those of tokenizer, `config.json` and `generation_config.json`."""
    stop: tuple[str, ...] = ()
    """Strings that end a response. The token that completes one belongs to it. vLLM samples on, and the response is cut
    afterwards."""

    @property
    def leaves_tokens_out(self) -> bool:
        """Whether some tokens can never be sampled."""
        return self.top_p < 1 or self.top_k > 0 or self.min_p > 0


class FilterSettings(Settings):
    """The online prompt filter, and how the batch is filled."""

    low: float = Field(0.2, ge=0, le=1)
    """Groups whose mean score is in [`low`, `high`] are kept, bounds included."""
    high: float = Field(0.8, ge=0, le=1)
    """See `low`."""
    max_rounds: int = Field(8, ge=1)
    """How often prompts are asked for in one step."""
    max_oversample: float = Field(4.0, ge=1)
    """A round asks for at most this many times the prompts still missing. How many depends on the share of groups kept
    lately."""
    on_short: Literal["train", "skip", "fail"] = "train"
    """What to do with a batch that is still short after the last round: `train` on it, `skip` the step, or `fail`. An
    empty batch is skipped under `train` too."""
    max_attempts: int = Field(3, ge=1)
    """How often one prompt is asked when its grading gives no score or its rollout fails."""
    rest_epochs: int = Field(0, ge=0)
    """A prompt outside the band is left out for this many epochs: a curriculum by measured difficulty. 0: none."""

    @model_validator(mode="after")
    def _band_is_not_empty(self) -> "FilterSettings":
        if self.low > self.high:
            raise ValueError(f"low = {self.low} is above high = {self.high}")
        return self


class TrustSettings(Settings):
    """How much the process advantage counts, by the pair accuracy that the token rewards have shown in this run."""

    enabled: bool = False
    """Whether `process_coef` is multiplied by how far the PRM's pair accuracy is on its way from 0.5 to `full_at`. It
    is measured on groups that the PRM has not learnt from yet."""
    full_at: float = Field(0.75, gt=0.5, le=1)
    """Pair accuracy from which on the process advantage counts fully."""
    floor: float = Field(0.0, ge=0, le=1)
    """Smallest share that counts."""
    ceiling: float = Field(1.0, ge=0)
    """Largest share that counts."""
    memory: float = Field(0.8, ge=0, lt=1)
    """Share of their weight that earlier steps keep with every step: in the pair accuracy, and in the scale of
    `reward_norm = "running"`."""

    @model_validator(mode="after")
    def _floor_is_below_the_ceiling(self) -> "TrustSettings":
        if self.floor > self.ceiling:
            raise ValueError(f"floor = {self.floor} is above ceiling = {self.ceiling}")
        return self


class AdvantageSettings(Settings):
    """From outcomes and token rewards to advantages."""

    estimator: Literal["rloo", "reinforce", "grpo", "spro"] = "rloo"
    """How samples of a group are compared. `spro`: rewards are summed up to each token and compared with the group at
    that token (SPRO, arXiv 2507.01551)."""
    source: Literal["prm", "policy"] = "prm"
    """Where token rewards come from: the `prm`, or the `policy`: its own log-ratio against the model that the run
    started with, which is then kept as well. No PRM is started then (SPRO)."""
    gamma: float = Field(1.0, ge=0, le=1)
    """Discount of later token rewards."""
    process_coef: float = Field(1.0, ge=0)
    """Weight of the process advantage. 0: no PRM is started or asked: plain RLOO, REINFORCE or GRPO on outcomes."""
    outcome_coef: float = Field(1.0, ge=0)
    """Weight of the outcome advantage. Only the ratio of the two matters, because the sum is whitened."""
    reward_norm: Literal["batch", "running", "none"] = "batch"
    """What token rewards are divided by. `batch`: the largest absolute reverse cumulative sum of the batch. `running`:
    a running root mean square of these sums. `none`: nothing."""
    bound: Literal["none", "clip", "tanh"] = "none"
    """How the reward of a single token is kept within `bound_at`. `none`: it is not."""
    bound_at: float = Field(1.0, gt=0)
    """See `bound`."""
    step_worth: Literal["own", "difference"] = "own"
    """`own`: the sum of a step's own token rewards. `difference`: by how much the step changes the mean of all rewards
    so far (IPVRM, arXiv 2604.13197; goes with `prm.loss = "prefix"`)."""
    credit: Literal["sum", "min"] = "sum"
    """A response is worth the `sum` of its steps, or about its worst one (`min`; PURE, arXiv 2504.15275)."""
    min_temperature: float = Field(0.1, gt=0)
    """Temperature of the softmax that finds the worst step with `credit = "min"`."""
    combine: Literal["sum", "apart"] = "sum"
    """Process and outcome advantages are added as they are (`sum`), or each is whitened first (`apart`; iStar, arXiv
    2509.19199)."""
    process_on: Literal["all", "right", "wrong"] = "all"
    """Which responses have a process advantage."""
    whiten: bool = True
    """Whether the sum is whitened over the batch. Dr. GRPO (arXiv 2503.20783): `rloo` without it, and
    `trainer.loss.mean = "constant"`."""
    shared_prefix_correction: bool = False
    """Whether the advantage of a token is divided by the number of samples that are equal up to it (lambda-GRPO, arXiv
    2509.21154)."""
    trust: TrustSettings = TrustSettings()
    granularity: Literal["token", "step", "turn", "whole"] = "token"
    """Where token rewards are put: on every `token`, on the last token of every `step`, of every `turn` of an episode
    (`docs/environments.md`), or of the `whole` response."""
    step_delimiter: str = Field("\n\n", min_length=1)
    """Text that ends a step. Read only when `granularity` is `step`."""
    overlong_window: int = Field(0, ge=0)
    """Tokens before `trainer.sampling.max_tokens` in which the outcome that the policy learns from falls by up to 1
    (DAPO, arXiv 2503.14476, eq. 13). The PRM and the filter see it as it was. 0: no penalty."""

    @model_validator(mode="after")
    def _something_is_learnt(self) -> "AdvantageSettings":
        if self.process_coef == self.outcome_coef == 0:
            raise ValueError("process_coef and outcome_coef are both 0, so nothing would be learnt")
        return self

    @property
    def asks_a_prm(self) -> bool:
        """Whether token rewards are asked of a PRM."""
        return self.process_coef > 0 and self.source == "prm"

    @property
    def asks_the_policy(self) -> bool:
        """Whether token rewards are the policy's own log-ratios."""
        return self.process_coef > 0 and self.source == "policy"


class OptimiserSettings(Settings):
    """The policy update."""

    lr: float = Field(5e-7, ge=0)
    """Learning rate of AdamW."""
    warmup_share: float = Field(0.0, ge=0, lt=1)
    """Share of the run's steps over which the rate rises to `lr`."""
    final_lr_share: float = Field(1.0, ge=0, le=1)
    """Share of `lr` that the rate falls to, along a cosine after the warm-up. 1: it stays."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's moments."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay of AdamW."""
    grad_clip: float = Field(1.0, gt=0)
    """Largest gradient norm."""
    mini_batches: int = Field(1, ge=1)
    """Optimiser steps per batch."""
    max_skipped: int = Field(3, ge=0)
    """Optimiser steps in a row that may be left out because their gradient was not finite. One more ends the run."""
    token_budget: int = Field(16384, ge=1)
    """Tokens per forward pass. Changes memory and speed, not the result beyond rounding."""
    device: str = "auto"
    """`auto` (CUDA where there is one), `cpu`, `cuda` or another torch device name."""
    threads: int = Field(0, ge=0)
    """CPU threads. 0 leaves the choice to torch."""


class LossSettings(Settings):
    """What the policy update minimises."""

    kind: Literal["clip", "gspo", "cispo"] = "clip"
    """`clip`: PPO's clipped ratio of tokens. `gspo`: the ratio of whole responses (GSPO; clip about 3e-4). `cispo`: a
    clipped weight, and every token keeps its gradient (CISPO)."""
    mean: Literal["token", "sequence", "constant"] = "token"
    """Mean over all tokens of the batch (`token`), over responses (`sequence`), or over as many tokens as a response
    may have (`constant`; Dr. GRPO)."""
    clip: float = Field(0.2, gt=0)
    """Ratios below 1 - `clip` stop pulling further out."""
    clip_high: float = Field(0.0, ge=0)
    """Ratios above 1 + `clip_high` stop pulling further out. 0: as `clip`. DAPO has 0.28."""
    dual_clip: float = Field(0.0, ge=0)
    """The most that a token with a negative advantage can lose, in advantages. 0: no bound."""
    importance: Literal["auto", "always", "never"] = "auto"
    """Whether tokens are weighted towards the sampler. `auto`: when `max_lag` > 0. With an engine in half precision the
    sampler differs from the trainer even in strict mode."""
    importance_kind: Literal["truncated", "masked", "sequence"] = "truncated"
    """`truncated`: weights over the cap are cut to it. `masked`: tokens outside [1 / cap, cap] are left out.
    `sequence`: all tokens of a response have one weight."""
    importance_cap: float = Field(2.0, gt=0)
    """Largest importance weight."""
    kl_coef: float = Field(0.0, ge=0)
    """Weight of the divergence from the policy that the run started with, which is then kept as well. 0: none."""
    entropy_coef: float = Field(0.0, ge=0)
    """Weight of an entropy bonus, which keeps the entropy up."""
    router_coef: float = Field(0.0, ge=0)
    """Weight of the load balance of a mixture of experts, a mean over layers and responses that is 1 at best. 0: none.
    Checkpoints name 0.001 to 0.02 (`router_aux_loss_coef`)."""

    @model_validator(mode="after")
    def _bounds_fit(self) -> "LossSettings":
        if 0 < self.dual_clip <= 1 + (self.clip_high or self.clip):
            raise ValueError(f"dual_clip = {self.dual_clip} is inside the clip's range; 3 is usual, 0 is off")
        if self.kind != "clip" and self.dual_clip:
            raise ValueError(f"dual_clip belongs to kind = 'clip', and kind is {self.kind!r}")
        return self


class AlarmSettings(Settings):
    """Figures of a step that log a warning. The run goes on."""

    sampler_kl: float = Field(0.02, ge=0)
    """Warn when the sampler diverges further from the trainer, in nats per token: the samples are then of another
    policy."""
    truncated_share: float = Field(0.5, ge=0, le=1)
    """Warn when a larger share of samples reached the token limit."""
    entropy: float = Field(0.0, ge=0)
    """Warn when the entropy, in nats per token, is lower: the policy then hardly explores. 0: never."""
    behind_frozen: int = Field(5, ge=1)
    """Warn when the PRM had a lower pair accuracy than its copy from the start of the run in this many updates in a
    row. Needs `prm.watch_frozen`."""


class EvaluationSettings(Settings):
    """Accuracy on held-out problems, sampled like training (`docs/evaluation.md`). With `max_lag` > 0 it is measured
    concurrently with the next steps."""

    problems: str = ""
    """Held-out problems, given like `trainer.problems`: the set `held_out`."""
    sets: tuple[str, ...] = ()
    """More sets, as `primectl evaluate` takes them: `gsm8k`, `math500:4` (samples per problem), `NAME=FILE`. Without
    any set nothing is evaluated."""
    data: Path = Path("evaluation-sets")
    """Folder with the files of sets that are known by name."""
    samples: int = Field(1, ge=1)
    """Samples per problem, unless a set says otherwise."""
    limit: int = Field(0, ge=0)
    """The first problems of each set only. 0: all."""
    every: int = Field(10, ge=1)
    """Steps between evaluations. The start and the end are always measured."""


class PeerSettings(Settings):
    """Addresses of the other services. `primectl up` and `primectl train` overwrite the three of them."""

    rollout: tuple[Address, ...] = ("127.0.0.1:50051",)
    """Addresses of the rollout replicas. A name may stand for many replicas: every address it resolves to gets the
    weights."""
    prm: Address = "127.0.0.1:50052"
    """Address of the PRM service."""
    verifier: Address = "127.0.0.1:50053"
    """Address of the verifier."""
    call_seconds: float = Field(600.0, gt=0)
    """Deadline of one attempt of a call."""
    patience_seconds: float = Field(60.0, ge=0)
    """How long to wait for a peer that stops answering during the run, e.g. while it is restarted."""
    stall_seconds: float = Field(600.0, gt=0)
    """The run fails when requests are open and no group arrived for this long."""


class TrainerSettings(ServiceSettings):
    """The training loop and the policy. Defaults are the paper's."""

    listen: Address = "127.0.0.1:50050"
    ops_listen: Address = "127.0.0.1:9150"
    grace_seconds: float = Field(20.0, ge=0)
    """How long the current step, and the checkpoint after it, may run on after the trainer was asked to stop. A longer
    step is lost."""
    problems: str
    """A `.jsonl` or `.parquet` file, or a dataset name, `name` or `name:split`, for the `datasets` library (split
    `train` unless named)."""
    steps: int = Field(ge=1)
    """Steps of the whole run, including those before a `--resume`."""
    prompts_per_step: int = Field(256, ge=1)
    """Groups in a batch."""
    samples_per_prompt: int = Field(4, ge=2)
    """Samples in a group. At least 2, because the baseline of a sample is the mean of the others."""
    max_prompt_tokens: int = Field(1024, ge=1)
    """Longest prompt, after the chat template."""
    long_prompts: Literal["refuse", "drop"] = "refuse"
    """What to do with a longer prompt: `refuse` the run, or `drop` the problem."""
    max_lag: int = Field(1, ge=0)
    """How many batches may be asked for ahead, and how many updates a finished group may wait for its use (ADR 34). 0
    is strict: nothing overlaps, and a run repeats to the bit. Above 0, groups are sampled, graded and scored while the
    policy learns from the batch before, and importance weights are used."""
    prm_max_lag: int = Field(0, ge=0)
    """Largest number of updates by which the PRM that scored a batch (always one version) may lag behind."""
    truncated: Literal["keep", "mask", "filter"] = "keep"
    """Samples that reached the token limit: `keep` them, `mask` them out of loss and baseline, or `filter` out their
    group."""
    mode: Literal["train", "generate", "replay"] = "train"
    """`generate`: sample, grade and record, and learn nothing. `replay`: learn from recorded groups, and sample
    nothing."""
    record: bool = False
    """Keep every batch under `recorded/` in the run folder."""
    recorded: Path | None = None
    """With `mode = "replay"`: the folder of recorded steps of another run."""
    prm_update: Literal["after", "before", "none"] = "after"
    """`after`: score, then learn (the paper's choice). `before`: learn, then score. `none`: a frozen PRM."""
    reference_every: int = Field(0, ge=0)
    """With `prm.reference_mode = "policy"`: steps between copies of the policy; the PRM's reference is the latest copy.
    Costs memory for one more model. 0: the reference is the policy that learns from the batch."""
    prm_warmup_steps: int = Field(0, ge=0)
    """The first steps, in which the PRM learns and the policy keeps its weights (its learning rate is 0)."""
    code_score: Literal["share", "binary"] = "share"
    """Outcome of a program: `share` of tests passed (the paper's choice), or `binary`: 1 only when all pass."""
    probe_gap: float = Field(0.0, ge=0)
    """Largest mean difference, in nats, between a replica's and the trainer's log-probs of the probe. 0: four times the
    rounding error of the dtypes in use, measured at the first push."""
    push: Literal["delta", "full", "nccl", "gloo", "ipc"] = "delta"
    """How weights reach the replicas. Over gRPC: `delta` sends what changed since the version before, where replicas
    hold bfloat16; `full` sends all weights. Bypassing gRPC, always all weights: `nccl` from GPU to GPU, `gloo` between
    CPUs, `ipc` through memory on one machine (`docs/scaling.md`)."""
    checkpoint_every: int = Field(16, ge=1)
    """Steps between checkpoints. The end, or a stop, is always saved."""
    keep_checkpoints: int = Field(3, ge=1)
    """How many of the newest checkpoints are kept."""
    keep_every: int = Field(0, ge=0)
    """Checkpoints of steps that this divides are kept for good. 0: none are."""
    sampling: SamplingSettings = SamplingSettings()
    filter: FilterSettings = FilterSettings()
    advantage: AdvantageSettings = AdvantageSettings()
    processes: int = Field(1, ge=1)
    """How many processes `primectl up` starts on this machine, by torchrun, to hold the policy together. Left out on a
    machine with GPUs: one per GPU of the trainer's."""
    gpus: tuple[NonNegativeInt, ...] = ()
    """GPUs on which `primectl up` starts the trainer, counted from 0. Empty: it chooses (`primectl plan`)."""
    compute: ComputeSettings = ComputeSettings()
    loss: LossSettings = LossSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    alarm: AlarmSettings = AlarmSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    trackers: TrackerSettings = TrackerSettings()
    peers: PeerSettings = PeerSettings()

    @model_validator(mode="after")
    def _there_is_something_to_replay(self) -> "TrainerSettings":
        if (self.mode == "replay") != (self.recorded is not None):
            raise ValueError("trainer.recorded, a folder of recorded steps, goes with trainer.mode = 'replay'")
        return self

    @model_validator(mode="after")
    def _trust_is_earned_before_learning(self) -> "TrainerSettings":
        if self.advantage.trust.enabled and self.prm_update == "before":
            raise ValueError(
                "advantage.trust counts groups that the PRM has not learnt from, and prm_update = 'before' learns them "
                "first; take 'after'"
            )
        if self.prm_warmup_steps and (self.prm_update == "none" or not self.advantage.asks_a_prm):
            raise ValueError("prm_warmup_steps needs a PRM that learns: prm_update, advantage.source and process_coef")
        return self

    @model_validator(mode="after")
    def _a_copy_is_of_whole_weights(self) -> "TrainerSettings":
        if self.reference_every and self.compute.lora_rank:
            raise ValueError(
                "reference_every copies the policy's weights, and with compute.lora_rank they never change; take one"
            )
        return self

    @model_validator(mode="after")
    def _penalty_leaves_room(self) -> "TrainerSettings":
        if self.advantage.overlong_window >= self.sampling.max_tokens:
            raise ValueError(
                f"advantage.overlong_window = {self.advantage.overlong_window} leaves no length without a penalty: "
                f"sampling.max_tokens is {self.sampling.max_tokens}"
            )
        return self
