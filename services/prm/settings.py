"""What can be set for the PRM: the section `[prm]`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt, model_validator

from prime.adapters.settings import Address, ComputeSettings, ServiceSettings, Settings


class ApiSettings(Settings):
    """The scoring API, on the HTTP port."""

    require_key: bool = True
    """Scoring needs `Authorization: Bearer TOKEN`, the token that the services share."""
    keys: Path | None = None
    """File of further keys, with scopes and limits; empty: the shared token alone."""
    open_metrics: bool = True
    """Whether `/metrics` needs no key; else one with the scope `metrics`."""
    model_id: str = ""
    """The name that clients use; empty: the name of the model's folder."""
    max_candidates: int = Field(1024, ge=1)
    """Per request, over all its questions."""
    max_waiting: int = Field(64, ge=1)
    """Requests of one key accepted and not yet answered; more are refused with 429."""
    max_tokens: int = Field(0, ge=0)
    """Of a prompt with one response; 0: as many as the model has positions."""
    max_body_mib: int = Field(16, ge=1)
    """Larger bodies are refused before they are read."""
    body_seconds: float = Field(60.0, gt=0)
    """Within which a body has to come."""

    @model_validator(mode="after")
    def _keys_are_asked_for(self) -> "ApiSettings":
        if not self.require_key and (self.keys is not None or not self.open_metrics):
            raise ValueError("keys and open_metrics = false need require_key = true")
        return self


class BestOfNSettings(Settings):
    """Chat completions chosen by the PRM, in front of an engine that samples."""

    engine: str = ""
    """`http://host:port/v1` of an OpenAI-compatible engine, or `grpc://host:port` of a rollout replica; empty: off."""
    engine_model: str = ""
    """The engine's name for its model; empty: the name in the request is passed on."""
    best_of: int = Field(4, ge=1)
    """Candidates per completion when the request does not say."""
    max_best_of: int = Field(64, ge=1)
    selection: Literal["best", "majority", "weighted"] = "best"
    """`majority` and `weighted` vote over mathematically equal answers and need a verifier."""
    verifier: str = ""
    """`host:port` of the verifier that says which answers are equal; empty: none."""
    votes: bool = False
    """Have `primectl serve-prm` run the verifier that votes need; a run has one already, which `verifier` names."""
    continuation: Literal["vllm", "sglang", "plain"] = "vllm"
    """In whose words a search asks the engine to go on with an answer: vLLM's, which our replicas know too, SGLang's,
    or `plain`: an assistant's message at the end and nothing more, as llama.cpp takes it."""
    engine_seconds: float = Field(600.0, gt=0)
    """How long the engine may take."""


class PrmSettings(ServiceSettings):
    """The implicit PRM, its reference and its optimiser. Defaults are the paper's."""

    listen: Address = "127.0.0.1:50052"
    ops_listen: Address = "127.0.0.1:9152"
    model: Path | None = None
    """Where the PRM starts; empty: `run.model`, as in the paper."""
    reference: Path | None = None
    """The frozen reference; empty: where the PRM starts, so that rewards begin at exactly 0."""
    reference_mode: Literal["freeze", "policy", "none"] = "freeze"
    """`policy`: the policy's own log-probs serve as reference, and no reference model is loaded. `none`: there is none,
    and a reward is `beta * log pi_prm`; only for a frozen PRM."""
    beta: float | None = Field(None, gt=0)
    """Scale of the log-ratio; empty: as the folder's `prm_config.json` says, else 0.05."""
    loss: Literal["ce", "dpo", "prefix"] = "ce"
    """Cross-entropy of the outcome on the sum of a response's rewards (PRIME); on pairs of one group; or on the mean
    reward of every prefix (IPVRM)."""
    prefix_emphasis: Literal["even", "early", "late"] = "even"
    """Which prefixes count more with `loss = "prefix"`."""
    margin: float = Field(0.0, ge=0)
    """How far beyond 0 the log-odds of an outcome should be, on either side."""
    balance: bool = False
    """Whether right and wrong responses to a prompt count alike, however many there are of each (IPVRM)."""
    shift: bool = False
    """Whether the prompt's share of right responses is added to the log-odds, so that the PRM learns what that share
    does not explain (IPVRM)."""
    lr: float = Field(1e-6, ge=0)
    grad_clip: float = Field(10.0, gt=0)
    mini_batches: int = Field(1, ge=1)
    """Optimiser steps per Learn; each takes whole groups."""
    device: str = "auto"
    token_budget: int = Field(16384, ge=1)
    """Tokens per forward pass."""
    threads: int = Field(0, ge=0)
    """CPU threads; 0 leaves the choice to torch."""
    processes: int = Field(1, ge=1)
    """How many `primectl up` starts on this machine to hold PRM and reference together; left out on a machine with
    GPUs: one per GPU of the PRM's."""
    gpus: tuple[NonNegativeInt, ...] = ()
    """GPUs on which `primectl up` starts it, counted from 0; empty: it chooses (`primectl plan`)."""
    compute: ComputeSettings = ComputeSettings()
    """Of a PRM that learns; `dtype` is of one that is served."""
    watch_frozen: bool = False
    """Keep a copy of the PRM as the run began, and say at every update what it would have scored: memory for one more
    model, and one more pass."""
    frozen: bool = False
    """Serve only: nothing is learnt, and no optimiser is kept."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights; only a frozen PRM may have bfloat16."""
    reference_cache_mib: int = Field(256, ge=0)
    """Memory for the reference's log-probs of sequences seen before; 4 bytes per response token."""
    api: ApiSettings = ApiSettings()
    best_of_n: BestOfNSettings = BestOfNSettings()

    @model_validator(mode="after")
    def _pairs_have_no_boundary(self) -> "PrmSettings":
        if self.loss == "dpo" and (self.margin or self.balance or self.shift):
            raise ValueError("margin, balance and shift belong to loss = 'ce' and 'prefix', and loss is 'dpo'")
        if self.loss != "prefix" and self.prefix_emphasis != "even":
            raise ValueError(f"prefix_emphasis belongs to loss = 'prefix', and loss is {self.loss!r}")
        return self
