"""Attention over a pack: each sequence sees itself alone. Registered with transformers under the name PACKED.

Linear layers run on the packed tokens; only here are sequences laid side by side, padded on the right. With a causal
mask no token looks right, so the padding is never seen and no mask tensor is built.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from prime.errors import EngineError
from prime.lm.packing import Pack

PACKED = "prime_packed"


def packed_attention(
    module: nn.Module,
    query_1HND: Tensor,
    key_1GND: Tensor,
    value_1GND: Tensor,
    attention_mask: Tensor | None,
    *,
    pack: Pack,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention in the form transformers calls it; H query heads, G key-value heads. Returns [1, N, H, D].

    Raises:
        EngineError: the model wants what this does not compute, so its log-probs would be wrong without a word.
    """
    _refuse_what_is_not_computed(options, longest=pack.slots_SL.shape[1])
    num_heads, num_groups = query_1HND.shape[1], key_1GND.shape[1]
    query, key, value = (_side_by_side(tensor, pack) for tensor in (query_1HND, key_1GND, value_1GND))
    if num_groups != num_heads:
        key, value = (tensor.repeat_interleave(num_heads // num_groups, dim=1) for tensor in (key, value))
    out_SHLD = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
    out_XHD = out_SHLD.transpose(1, 2).flatten(0, 1)
    return out_XHD.index_select(0, pack.places_N)[None], None


def _refuse_what_is_not_computed(options: Mapping[str, Any], *, longest: int) -> None:
    for name in ("softcap", "s_aux"):
        if options.get(name) is not None:
            raise EngineError(f"the model's attention uses {name!r}, which packed attention does not compute")
    window = options.get("sliding_window")
    if window is not None and window < longest:
        raise EngineError(
            f"a sequence of {longest} tokens is longer than the model's sliding window of {window}, which packed "
            f"attention does not apply"
        )


def register_packed_attention() -> None:
    """Make PACKED known to transformers. Harmless when repeated."""
    AttentionInterface.register(PACKED, packed_attention)


def _side_by_side(tensor_1HND: Tensor, pack: Pack) -> Tensor:
    """[1, H, N, D] to [S, H, L, D]."""
    num_sequences, longest = pack.slots_SL.shape
    tensor_NHD = tensor_1HND[0].transpose(0, 1)
    picked_XHD = torch.index_select(tensor_NHD, 0, pack.slots_SL.flatten())
    return picked_XHD.view(num_sequences, longest, *picked_XHD.shape[1:]).transpose(1, 2)
