"""What transformers alone makes of a model: no packing, no cache, its slowest attention. Ours are held to it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from prime.lm.adapters import add_adapters, rank_of
from prime.lm.model import load_module
from prime.maths.logprobs import logprobs_of_logits


@torch.no_grad()
def plain_logprobs(folder: Path, named: Mapping[str, Tensor], ids: Sequence[int]) -> tuple[float, ...]:
    """Log-prob of each token after the first, computed with these weights, in their dtype and where they lie.

    Args:
        folder: the model's, for what is not a weight.
        named: every weight by its checkpoint name, or with adapters as they are stored; all of one dtype and on one
            device.

    Raises:
        CheckpointError: the folder holds no model.
    """
    some = next(iter(named.values()))
    module = load_module(folder, dtype=some.dtype, attention="eager").to(some.device).eval()
    rank = rank_of({name: tensor.shape for name, tensor in named.items()})
    if rank:
        add_adapters(module, rank)
    module.load_state_dict(named, assign=True)
    ids_T = torch.tensor(ids, device=some.device)
    logits_TV = module(input_ids=ids_T[None], use_cache=False).logits[0, :-1]
    return tuple(logprobs_of_logits(logits_TV, ids_T[1:]).logprobs_N.tolist())
