"""What can be set for a training run: the section `[trainer]` and its subsections. Defaults are the paper's."""

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt, model_validator

from prime.adapters.settings import Address, ComputeSettings, ServiceSettings, Settings, TrackerSettings


class SamplingSettings(Settings):
    """How rollouts are sampled."""

    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    """Below 1, and likewise `top_k` and `min_p`, the sampler leaves tokens out that the trainer's log-probs know, so
    importance weights are too small; a warning says so."""
    max_tokens: int = Field(3072, ge=1)
    top_k: int = Field(0, ge=0)
    """The most probable tokens; 0: all."""
    min_p: float = Field(0.0, ge=0, le=1)
    """Tokens with at least this share of the most probable one's probability."""
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end a response, besides those of tokenizer, `config.json` and `generation_config.json`."""
    stop: tuple[str, ...] = ()
    """Strings that end a response; the token that completes one belongs to it."""

    @property
    def leaves_tokens_out(self) -> bool:
        """Whether some tokens can never be sampled."""
        return self.top_p < 1 or self.top_k > 0 or self.min_p > 0


class FilterSettings(Settings):
    """The online prompt filter and how the batch is filled."""

    low: float = Field(0.2, ge=0, le=1)
    high: float = Field(0.8, ge=0, le=1)
    """Groups whose mean score lies in [low, high] are kept, bounds included."""
    max_rounds: int = Field(8, ge=1)
    """How often more prompts are asked for in one step."""
    max_oversample: float = Field(4.0, ge=1)
    """A round asks for at most this many times the prompts still missing."""
    on_short: Literal["train", "skip", "fail"] = "train"
    """What to do with a batch that is still short after the last round."""
    max_attempts: int = Field(3, ge=1)
    """How often one prompt is asked when its grading gives no score or its rollout fails."""
    rest_epochs: int = Field(0, ge=0)
    """A prompt that was outside the band is left out for so many epochs: a curriculum by measured difficulty; 0: none.
    """

    @model_validator(mode="after")
    def _band_is_not_empty(self) -> "FilterSettings":
        if self.low > self.high:
            raise ValueError(f"low = {self.low} is above high = {self.high}")
        return self


class TrustSettings(Settings):
    """How much the process advantage counts, by what the token rewards have shown in this run."""

    enabled: bool = False
    """Whether `process_coef` is multiplied by how far the pair accuracy is on its way from 0.5 to `full_at`. It is
    measured on groups that the PRM has not learnt from yet."""
    full_at: float = Field(0.75, gt=0.5, le=1)
    """Pair accuracy from which on the process advantage counts whole."""
    floor: float = Field(0.0, ge=0, le=1)
    """Least share that counts."""
    ceiling: float = Field(1.0, ge=0)
    """Largest share that counts."""
    memory: float = Field(0.8, ge=0, lt=1)
    """What the steps before keep of their weight with every step: in pair accuracy, and in the scale of
    `reward_norm = "running"`."""

    @model_validator(mode="after")
    def _floor_is_below_the_ceiling(self) -> "TrustSettings":
        if self.floor > self.ceiling:
            raise ValueError(f"floor = {self.floor} is above ceiling = {self.ceiling}")
        return self


class AdvantageSettings(Settings):
    """From outcomes and token rewards to advantages."""

    estimator: Literal["rloo", "reinforce", "grpo", "spro"] = "rloo"
    source: Literal["prm", "policy"] = "prm"
    """Where token rewards come from: the PRM, or the policy's own log-ratio against the model that the run started
    with, for which no PRM is started (SPRO)."""
    gamma: float = Field(1.0, ge=0, le=1)
    process_coef: float = Field(1.0, ge=0)
    """0: no PRM is asked at all: plain RLOO, REINFORCE or GRPO on outcomes."""
    outcome_coef: float = Field(1.0, ge=0)
    reward_norm: Literal["batch", "running", "none"] = "batch"
    """By which token rewards are divided: the batch's largest absolute return, a running root mean square of returns,
    or nothing."""
    bound: Literal["none", "clip", "tanh"] = "none"
    """How the reward of a single token is kept within `bound_at`."""
    bound_at: float = Field(1.0, gt=0)
    step_worth: Literal["own", "difference"] = "own"
    """The sum of a step's own token rewards, or by how much it changes the mean of all rewards so far (IPVRM)."""
    credit: Literal["sum", "min"] = "sum"
    """Whether a response is worth the sum of its steps, or about its worst one (PURE)."""
    min_temperature: float = Field(0.1, gt=0)
    """Of the softmax with which `credit = "min"` looks for the worst."""
    combine: Literal["sum", "apart"] = "sum"
    """Process and outcome advantages are added as they are, or each is whitened first (iStar)."""
    process_on: Literal["all", "right", "wrong"] = "all"
    """Responses that have a process advantage."""
    whiten: bool = True
    """Whether the sum is whitened over the batch. Dr. GRPO: `rloo` without, and `trainer.loss.mean = "constant"`."""
    shared_prefix_correction: bool = False
    """Whether the advantage of a token is divided by the number of samples that are equal up to it (lambda-GRPO)."""
    trust: TrustSettings = TrustSettings()
    granularity: Literal["token", "step", "turn", "whole"] = "token"
    """`turn`: of an episode in an environment; an answer has one."""
    step_delimiter: str = Field("\n\n", min_length=1)
    overlong_window: int = Field(0, ge=0)
    """Tokens before `trainer.sampling.max_tokens` in which the outcome falls by up to 1 (DAPO); 0: no penalty."""

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
    warmup_share: float = Field(0.0, ge=0, lt=1)
    """Of the run's steps, over which the rate rises to `lr`."""
    final_lr_share: float = Field(1.0, ge=0, le=1)
    """Of `lr`, which the rate falls to along a cosine after the warm-up; 1: it stays."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of AdamW's moments."""
    weight_decay: float = Field(0.0, ge=0)
    grad_clip: float = Field(1.0, gt=0)
    mini_batches: int = Field(1, ge=1)
    """Optimiser steps per batch."""
    max_skipped: int = Field(3, ge=0)
    """Optimiser steps in a row that may be left out because their gradient was not finite; one more ends the run."""
    token_budget: int = Field(16384, ge=1)
    """Tokens per forward pass."""
    device: str = "auto"
    threads: int = Field(0, ge=0)
    """CPU threads; 0 leaves the choice to torch."""


class LossSettings(Settings):
    """What the policy update minimises."""

    kind: Literal["clip", "gspo", "cispo"] = "clip"
    """PPO's clipped ratio of tokens; of whole responses (GSPO); or a clipped weight on every token's gradient (CISPO).
    """
    mean: Literal["token", "sequence", "constant"] = "token"
    """Over all tokens, over responses, or over as many tokens as a response may have (Dr. GRPO)."""
    clip: float = Field(0.2, gt=0)
    """Ratios below 1 - clip stop pulling further out."""
    clip_high: float = Field(0.0, ge=0)
    """Ratios above 1 + clip_high stop pulling further out; 0: as `clip`. DAPO has 0.28."""
    dual_clip: float = Field(0.0, ge=0)
    """What a token with a negative advantage can lose at most, in advantages; 0: no bound."""
    importance: Literal["auto", "always", "never"] = "auto"
    """Whether tokens are weighted towards the sampler. `auto`: when `max_lag` > 0. With an engine in half precision the
    sampler differs from the trainer even in strict mode."""
    importance_kind: Literal["truncated", "masked", "sequence"] = "truncated"
    """Weights over the cap are cut to it; or tokens outside [1 / cap, cap] are left out; or all tokens of a response
    have one weight."""
    importance_cap: float = Field(2.0, gt=0)
    """Largest importance weight."""
    kl_coef: float = Field(0.0, ge=0)
    """Weight of the divergence from the policy that the run started with, which is then kept as well; 0: none."""
    entropy_coef: float = Field(0.0, ge=0)
    """Weight of the entropy, which is then kept up."""
    router_coef: float = Field(0.0, ge=0)
    """Weight of the load balance of a mixture of experts, a mean over layers and responses that is 1 at best; 0: none.
    Checkpoints name 0.001 to 0.02 (`router_aux_loss_coef`)."""

    @model_validator(mode="after")
    def _bounds_fit(self) -> "LossSettings":
        if 0 < self.dual_clip <= 1 + (self.clip_high or self.clip):
            raise ValueError(f"dual_clip = {self.dual_clip} is inside the clip's range; 3 is usual, 0 is off")
        if self.kind != "clip" and self.dual_clip:
            raise ValueError(f"dual_clip belongs to kind = 'clip', and kind is {self.kind!r}")
        return self


class AlarmSettings(Settings):
    """Figures of a step that are worth a warning; the run goes on."""

    sampler_kl: float = Field(0.02, ge=0)
    """Divergence of the sampler from the trainer, nats per token: beyond it the samples are of another policy."""
    truncated_share: float = Field(0.5, ge=0, le=1)
    """Of samples that reached the token limit."""
    entropy: float = Field(0.0, ge=0)
    """Nats per token; below it the policy hardly explores. 0: never."""
    behind_frozen: int = Field(5, ge=1)
    """Updates in a row in which the PRM had a lower pair accuracy than its copy from the start of the run; needs
    `prm.watch_frozen`."""


class EvaluationSettings(Settings):
    """Accuracy on held-out problems, sampled like training. With `max_lag` > 0 it is measured beside the next steps."""

    problems: str = ""
    """A file or dataset like `trainer.problems`; the set `held_out` of the curve."""
    sets: tuple[str, ...] = ()
    """More sets, as `primectl evaluate` takes them: `gsm8k`, `math500:4` (samples), `NAME=FILE`."""
    data: Path = Path("evaluation-sets")
    """Folder with the files of sets that are known by name."""
    samples: int = Field(1, ge=1)
    """Per problem, where a set says nothing else."""
    limit: int = Field(0, ge=0)
    """The first problems of each set alone; 0: all."""
    every: int = Field(10, ge=1)
    """In steps; the start and the end are always measured."""


class PeerSettings(Settings):
    """Where the other services answer."""

    rollout: tuple[Address, ...] = ("127.0.0.1:50051",)
    """Each name may stand for many replicas; all of them get the weights."""
    prm: Address = "127.0.0.1:50052"
    verifier: Address = "127.0.0.1:50053"
    call_seconds: float = Field(600.0, gt=0)
    """Deadline of one call."""
    patience_seconds: float = Field(60.0, ge=0)
    """For how long a peer that stops answering during the run is waited for, e.g. while it is restarted."""
    stall_seconds: float = Field(600.0, gt=0)
    """The run fails when requests are open and no group arrived for this long."""


class TrainerSettings(ServiceSettings):
    """The loop."""

    listen: Address = "127.0.0.1:50050"
    ops_listen: Address = "127.0.0.1:9150"
    problems: str
    """A .jsonl or .parquet file, or a dataset name."""
    steps: int = Field(ge=1)
    prompts_per_step: int = Field(256, ge=1)
    samples_per_prompt: int = Field(4, ge=2)
    """At least 2: the baseline of a sample is the mean of the others."""
    max_prompt_tokens: int = Field(1024, ge=1)
    long_prompts: Literal["refuse", "drop"] = "refuse"
    max_lag: int = Field(1, ge=0)
    """How many batches may be asked for ahead, and how many updates a finished group may wait for its use. 0 is
    strict: nothing overlaps, and a run repeats to the bit."""
    prm_max_lag: int = Field(0, ge=0)
    """Largest number of updates by which the PRM that scored a batch, always one version, may lag behind."""
    truncated: Literal["keep", "mask", "filter"] = "keep"
    """Samples that reached the token limit: keep them, leave them out of loss and baseline, or drop their group."""
    mode: Literal["train", "generate", "replay"] = "train"
    """`generate`: sample, grade and record, and learn nothing. `replay`: learn from recorded groups, sample nothing."""
    record: bool = False
    """Keep every batch under `recorded/` in the run folder."""
    recorded: Path | None = None
    """With `replay`: the folder of recorded steps of another run."""
    prm_update: Literal["after", "before", "none"] = "after"
    """Score then learn (the paper's choice), learn then score, or a frozen PRM."""
    reference_every: int = Field(0, ge=0)
    """With `prm.reference_mode = "policy"`: the policy is copied every so many steps, and the copy is the PRM's
    reference until the next; memory for one more model. 0: the reference is the policy that learns from the batch."""
    prm_warmup_steps: int = Field(0, ge=0)
    """The first steps, in which the PRM learns and the policy stays as it is."""
    code_score: Literal["share", "binary"] = "share"
    """Outcome of a program: the share of tests passed (the paper's choice), or 1 only when all pass."""
    probe_gap: float = Field(0.0, ge=0)
    """Largest mean difference, in nats, between a replica's and the trainer's log-probs of the probe; 0: four times
    what rounding makes of it in the dtypes at hand, measured at the first push."""
    push: Literal["delta", "full", "nccl", "gloo", "ipc"] = "delta"
    """Over gRPC what changed since the version before, where replicas hold bfloat16, or always all weights; or past
    gRPC all weights: from GPU to GPU, between CPUs, or through memory that both have on one machine."""
    checkpoint_every: int = Field(16, ge=1)
    keep_checkpoints: int = Field(3, ge=1)
    """How many of the newest stay."""
    keep_every: int = Field(0, ge=0)
    """Checkpoints of steps that this divides stay for good; 0: none do."""
    sampling: SamplingSettings = SamplingSettings()
    filter: FilterSettings = FilterSettings()
    advantage: AdvantageSettings = AdvantageSettings()
    processes: int = Field(1, ge=1)
    """How many `primectl up` starts on this machine to hold the policy together; left out on a machine with GPUs: one
    per GPU of the trainer's."""
    gpus: tuple[NonNegativeInt, ...] = ()
    """GPUs on which `primectl up` starts it, counted from 0; empty: it chooses (`primectl plan`)."""
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
