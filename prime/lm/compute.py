"""How a causal LM is computed and spread, whatever it computes: precision, sharding, recomputing, compiling, LoRA.

Sharding is PyTorch's FSDP2 (`fully_shard`): fp32 master weights, gradients and moments are cut over the ranks; each
layer's weights are gathered, in the compute precision, when it is its turn.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.utils.checkpoint import checkpoint

from prime.errors import EngineError
from prime.lm.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """Plain fp32 on one device by default: `Compute(dtype="bfloat16", recompute=True)` for a model of some size."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the matrix products. Master weights, gradient sums and log-probs are fp32 in any case."""
    recompute: bool = False
    """Keep one activation per layer and compute the rest again in backward: a third more work, far less memory."""
    compile: bool = False
    """Fuse what lies around attention with `torch.compile`; the first steps take a minute longer."""
    offload: bool = False
    """Keep weights, gradients and moments in the machine's memory, and update there."""
    lora_rank: int = 0
    """Train adapters of this rank on all linear layers instead of the weights; 0: all weights."""

    @classmethod
    def on(cls, device: torch.device, *, dtype: str = "auto", **options: Any) -> "Compute":
        """With `auto`: bfloat16 on a GPU, float32 on a CPU."""
        automatic = "bfloat16" if device.type == "cuda" else "float32"
        return cls(dtype=automatic if dtype == "auto" else dtype, **options)  # type: ignore[arg-type]

    def needs_sharding(self, world: World) -> bool:
        """Whether `fully_shard` is what does it; one fp32 process does without."""
        return world.size > 1 or self.dtype != "float32" or self.offload


def set_up(packed: nn.Module, module: Any, compute: Compute, world: World, device: torch.device) -> None:
    """Put the module on its device in the form that `compute` asks for. `packed` is the root, which is called.

    Only rank 0 has to bring weights.
    """
    layers = decoder_layers(module)
    for layer in layers:
        if compute.compile:
            layer.forward = torch.compile(layer.forward, dynamic=True)
        if compute.recompute:
            layer.forward = _recomputed(layer.forward)
    if not compute.needs_sharding(world):
        module.to(device)
        return
    weights = dict(module.state_dict()) if world.is_leader else {}
    buffers = dict(module.named_buffers()) if world.is_leader else {}
    module.to("meta")
    module.tie_weights()
    _shard(packed, layers, compute, world, device)
    packed.to_empty(device="cpu" if compute.offload else device)
    load_whole(module, weights, world)
    # Rotary frequencies and the like are in no state dict.
    for name, buffer in module.named_buffers():
        if world.is_leader:
            buffer.copy_(buffers[name])
        if world.size > 1:
            dist.broadcast(buffer, src=0)


def load_whole(module: Any, weights: dict[str, Tensor], world: World) -> None:
    """Put whole tensors, which only rank 0 has to have, into a module, sharded or not.

    Raises:
        RuntimeError: names or shapes are not the module's.
    """
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=world.size > 1, strict=True)
    set_model_state_dict(module, dict(weights), options=options)


def _shard(
    packed: nn.Module, layers: Sequence[nn.Module], compute: Compute, world: World, device: torch.device
) -> None:
    policy: OffloadPolicy = CPUOffloadPolicy(pin_memory=device.type == "cuda") if compute.offload else OffloadPolicy()
    options: dict[str, Any] = {
        "mesh": world.mesh(device),
        "mp_policy": MixedPrecisionPolicy(param_dtype=getattr(torch, compute.dtype), reduce_dtype=torch.float32),
        "offload_policy": policy,
    }
    for layer in layers:
        fully_shard(layer, **options)
    # Embedding, last norm and head: the head is used by the loss, after the last layer, and in its backward.
    fully_shard(packed, reshard_after_forward=False, **options)
    for part in packed.modules():
        if isinstance(part, FSDPModule):
            # Losses are sums over a count of the global batch, so gradients are summed and not averaged.
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)


def decoder_layers(module: Any) -> list[nn.Module]:
    """The blocks that repeat.

    Raises:
        EngineError: transformers does not name them for this architecture.
    """
    names = set(getattr(module, "_no_split_modules", None) or ())
    layers = [part for part in module.modules() if type(part).__name__ in names]
    if not layers:
        raise EngineError(f"{type(module).__name__} does not say what its layers are, so it cannot be sharded")
    return layers


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor put together; any other as it is."""
    gather: Callable[[], Tensor] | None = getattr(tensor, "full_tensor", None)
    return tensor.detach() if gather is None else gather().detach()
