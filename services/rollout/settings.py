"""What can be set for a rollout replica: the section `[rollout]`."""

from typing import Literal

from pydantic import Field, NonNegativeInt, model_validator

from prime.adapters.settings import Address, ServiceSettings


class RolloutSettings(ServiceSettings):
    """One replica."""

    listen: Address = "127.0.0.1:50051"
    ops_listen: Address = "127.0.0.1:9151"
    engine: Literal["transformers", "vllm"] = "transformers"
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    """`auto`, `cpu` or `cuda`; the vLLM engine picks by itself."""
    threads: int = Field(0, ge=0)
    """CPU threads of the transformers engine; 0 leaves the choice to torch."""
    max_groups: int = Field(64, ge=1)
    """Groups in flight at once. The transformers engine samples them as one batch."""
    max_context: int = Field(4096, ge=8)
    """Prompt and response tokens together; a request beyond it is refused."""
    lease_seconds: float = Field(30.0, gt=0)
    """How long a claimed request stays ours without a sign of life."""
    gpus: tuple[NonNegativeInt, ...] = ()
    """GPUs on which `primectl up` starts replicas, counted from 0; empty: it chooses (`primectl plan`)."""
    tensor_parallel: int = Field(1, ge=1)
    """vLLM: GPUs over which each replica spreads the model."""
    memory_share: float = Field(0.0, ge=0, le=1)
    """vLLM on a GPU: share of its memory for weights and cache; 0: as `primectl up` finds right, else vLLM's own."""
    lora_rank: int = Field(0, ge=0, le=512)
    """vLLM: rank of the largest adapters that pushes may bring beside the weights, as `trainer.compute.lora_rank` says.
    0: pushes bring weights with the adapters added in."""
    kv_cache_gib: float = Field(1.0, gt=0)
    """vLLM on CPU: memory for its key-value cache."""

    @model_validator(mode="after")
    def _engine_can_spread(self) -> "RolloutSettings":
        if self.tensor_parallel > 1 and self.engine != "vllm":
            raise ValueError(f"tensor_parallel = {self.tensor_parallel} needs engine = 'vllm'")
        if self.lora_rank and self.engine != "vllm":
            raise ValueError("lora_rank is for engine = 'vllm'; the transformers engine takes adapters of any rank")
        return self
