"""What can be set for a rollout replica: the section `[rollout]`."""

from typing import Literal

from pydantic import Field, NonNegativeInt, model_validator

from prime.adapters.settings import Address, ServiceSettings


class RolloutSettings(ServiceSettings):
    """One rollout replica."""

    listen: Address = "127.0.0.1:50051"
    ops_listen: Address = "127.0.0.1:9151"
    engine: Literal["transformers", "vllm"] = "transformers"
    """What samples. For `vllm` see `docs/vllm.md`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type that the replica computes in."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`. The vLLM engine decides for itself."""
    threads: int = Field(0, ge=0)
    """CPU threads of the transformers engine. 0 leaves the choice to torch."""
    max_groups: int = Field(64, ge=1)
    """Groups in flight at once, sampled together. vLLM samples 8 times as many sequences at once, at most 512."""
    max_context: int = Field(4096, ge=8)
    """Prompt and response tokens together. A request beyond it is refused."""
    lease_seconds: float = Field(30.0, gt=0)
    """How long a claimed request stays this replica's without a sign of life. The lease is renewed three times as
    often."""
    gpus: tuple[NonNegativeInt, ...] = ()
    """GPUs on which `primectl up` starts replicas, counted from 0. Empty: it chooses (`primectl plan`)."""
    tensor_parallel: int = Field(1, ge=1)
    """vLLM: GPUs over which each replica spreads the model. Weights then come over gRPC, whatever `trainer.push` says.
    """
    memory_share: float = Field(0.0, ge=0, le=1)
    """vLLM on a GPU: share of its memory for weights and cache (`gpu_memory_utilization`). 0: as `primectl up` finds
    right, else vLLM's own."""
    lora_rank: int = Field(0, ge=0, le=512)
    """vLLM: rank of the largest adapters that a push may bring along with the weights, as `trainer.compute.lora_rank`
    says. 0: pushes bring weights with the adapters added in. The transformers engine takes adapters of any rank."""
    kv_cache_gib: float = Field(1.0, gt=0)
    """vLLM on a CPU: memory for its key-value cache. On a GPU vLLM takes what is free."""

    @model_validator(mode="after")
    def _engine_can_spread(self) -> "RolloutSettings":
        if self.tensor_parallel > 1 and self.engine != "vllm":
            raise ValueError(f"tensor_parallel = {self.tensor_parallel} needs engine = 'vllm'")
        if self.lora_rank and self.engine != "vllm":
            raise ValueError("lora_rank is for engine = 'vllm'; the transformers engine takes adapters of any rank")
        return self
