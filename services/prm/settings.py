"""What can be set for the PRM: the section `[prm]`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt, model_validator

from prime.adapters.settings import Address, ComputeSettings, ServiceSettings, Settings


class ApiSettings(Settings):
    """The scoring API over HTTP (`docs/prm-api.md`)."""

    require_key: bool = True
    """Whether scoring needs `Authorization: Bearer TOKEN`, the token that the services share."""
    keys: Path | None = None
    """File of further keys, with scopes, limits and shares (`docs/prm-api.md`, "Keys"). Empty: the shared token only.
    """
    open_metrics: bool = True
    """Whether `/metrics` needs no key. Otherwise it needs one with the scope `metrics`."""
    model_id: str = ""
    """The model's name for HTTP clients. Empty: the name of its folder."""
    max_candidates: int = Field(1024, ge=1)
    """Candidates per request, over all its questions."""
    max_waiting: int = Field(64, ge=1)
    """Scoring requests of one key that are accepted and not yet answered. More are refused with 429."""
    max_tokens: int = Field(0, ge=0)
    """Tokens of a prompt with one response. 0: as many as the model has positions."""
    max_body_mib: int = Field(16, ge=1)
    """Larger HTTP bodies are refused before they are read."""
    body_seconds: float = Field(60.0, gt=0)
    """How long an HTTP body may take to arrive."""
    also: tuple[str, ...] = ()
    """More PRMs in this service, chosen by a request's `model`: `NAME=FOLDER`, of an implicit PRM
    `NAME=FOLDER,reference=FOLDER` (or `none`). Set by `primectl serve-prm --also`."""

    @model_validator(mode="after")
    def _keys_are_asked_for(self) -> "ApiSettings":
        if not self.require_key and (self.keys is not None or not self.open_metrics):
            raise ValueError("keys and open_metrics = false need require_key = true")
        return self


ContinuationForm = Literal["vllm", "sglang", "plain"]
"""How an engine is asked to go on with an answer, and to leave the end of a step in its text."""


class BestOfNSettings(Settings):
    """Chat completions chosen by the PRM, in front of an engine that samples (`/v1/chat/completions`)."""

    engine: str = ""
    """What samples: `http://host:port/v1` of an OpenAI-compatible engine, or `grpc://host:port` of a rollout replica.
    Empty: the route does not exist."""
    engine_model: str = ""
    """The engine's name for its model. Empty: the name in the request is passed on."""
    best_of: int = Field(4, ge=1)
    """Candidates per completion when a request does not say."""
    max_best_of: int = Field(64, ge=1)
    """The most candidates that a request may ask for."""
    selection: Literal["best", "majority", "weighted"] = "best"
    """`best`: the highest score. `majority` and `weighted`: a vote over mathematically equal answers, which needs a
    verifier."""
    verifier: str = ""
    """`host:port` of the verifier that decides which answers are equal. Empty: none."""
    votes: bool = False
    """Whether `primectl serve-prm` runs the verifier that votes need. A run has one already, which `verifier` names."""
    continuation: ContinuationForm = "vllm"
    """How a search asks the engine to continue an answer: in the way of `vllm` (our replicas too) or `sglang`, or
    `plain`: an assistant's message at the end, as llama.cpp takes it."""
    engine_seconds: float = Field(600.0, gt=0)
    """How long the engine may take."""


class PrmSettings(ServiceSettings):
    """The implicit PRM, its reference and its optimiser. Defaults are the paper's."""

    listen: Address = "127.0.0.1:50052"
    ops_listen: Address = "127.0.0.1:9152"
    """HTTP address of the scoring API (`docs/prm-api.md`), `/healthz`, `/readyz` and `/metrics`."""
    model: Path | None = None
    """Hugging Face folder where the PRM starts. Empty: `run.model`, as in the paper."""
    reference: Path | None = None
    """Hugging Face folder of the frozen reference. Empty: where the PRM starts, so that rewards begin at exactly 0."""
    reference_mode: Literal["freeze", "policy", "none"] = "freeze"
    """`freeze`: a frozen model. `policy`: the policy's own log-probs serve as reference, and no reference model is
    loaded; needs `trainer.sampling.temperature = 1`. `none`: no reference, a reward is `beta * log pi_prm`; only for a
    frozen PRM."""
    beta: float | None = Field(None, gt=0)
    """Scale of the log-ratio: of token rewards, and of the logit in the loss. Empty: as the model folder's
    `prm_config.json` says, else 0.05."""
    loss: Literal["ce", "dpo", "prefix"] = "ce"
    """`ce`: cross-entropy of the outcome on the sum of a response's rewards. `dpo`: pairs within a group. `prefix`:
    cross-entropy on the mean reward of every prefix (IPVRM, arXiv 2604.13197, which has `beta = 10`, `margin = 5`)."""
    prefix_emphasis: Literal["even", "early", "late"] = "even"
    """Which prefixes count more with `loss = "prefix"`."""
    margin: float = Field(0.0, ge=0)
    """How far beyond 0 the log-odds of an outcome should be, on either side. With `ce` and `prefix`."""
    balance: bool = False
    """Whether right and wrong responses to a prompt count alike, however many there are of each (IPVRM)."""
    shift: bool = False
    """Whether the prompt's share of right responses is added to the log-odds, so that the PRM learns what that share
    does not explain (IPVRM)."""
    lr: float = Field(1e-6, ge=0)
    """Learning rate of AdamW."""
    grad_clip: float = Field(10.0, gt=0)
    """Largest gradient norm."""
    mini_batches: int = Field(1, ge=1)
    """Optimiser steps per Learn call. Each takes whole groups."""
    device: str = "auto"
    """`auto` (CUDA where there is one), `cpu`, `cuda` or another torch device name."""
    token_budget: int = Field(16384, ge=1)
    """Tokens per forward pass. Changes memory and speed, not the result beyond rounding."""
    threads: int = Field(0, ge=0)
    """CPU threads. 0 leaves the choice to torch."""
    processes: int = Field(1, ge=1)
    """How many processes `primectl up` starts on this machine, by torchrun, to hold PRM and reference together. Left
    out on a machine with GPUs: one per GPU of the PRM's."""
    gpus: tuple[NonNegativeInt, ...] = ()
    """GPUs on which `primectl up` starts the PRM, counted from 0. Empty: it chooses (`primectl plan`)."""
    compute: ComputeSettings = ComputeSettings()
    """For a PRM that learns. `prm.dtype` is for one that only serves."""
    watch_frozen: bool = False
    """Keep a copy of the PRM from the start of the run, and report at every update what it would have scored
    (`prm/frozen_pair_accuracy`). Costs memory for one more model and one more pass."""
    frozen: bool = False
    """Serve only: nothing is learnt, and no optimiser is kept. Set by `primectl serve-prm`, and not for a run."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the weights. `bfloat16` is for a frozen PRM only."""
    reference_cache_mib: int = Field(256, ge=0)
    """Memory for the reference's log-probs of sequences that the API has seen, 4 bytes per response token. 0: keep
    none. Training does not use it."""
    api: ApiSettings = ApiSettings()
    best_of_n: BestOfNSettings = BestOfNSettings()

    @model_validator(mode="after")
    def _pairs_have_no_boundary(self) -> "PrmSettings":
        if self.loss == "dpo" and (self.margin or self.balance or self.shift):
            raise ValueError("margin, balance and shift belong to loss = 'ce' and 'prefix', and loss is 'dpo'")
        if self.loss != "prefix" and self.prefix_emphasis != "even":
            raise ValueError(f"prefix_emphasis belongs to loss = 'prefix', and loss is {self.loss!r}")
        return self
