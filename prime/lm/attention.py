"""Attention over a pack: each sequence sees itself alone. Registered with transformers under the name PACKED.

Linear layers run on the packed tokens; so does attention in half precision on a GPU, by a variable-length flash
kernel. Elsewhere sequences are laid side by side for it, padded on the right. With a causal mask no token looks right,
so the padding is never seen and no mask tensor is built. Responses that share a prompt see it before themselves, under
a mask; so does all that is longer than a sliding window.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from prime.errors import EngineError
from prime.lm.packing import Pack, Segments

PACKED = "prime_packed"
_FLASH_DTYPES, _FLASH_HEAD = (torch.bfloat16, torch.float16), 256


# A kernel of its own anyway; traced, it would be compiled anew for packs of other shapes.
@torch.compiler.disable  # type: ignore[untyped-decorator]
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
    refuse_what_is_not_computed(options)
    window = options.get("sliding_window")
    if window is not None and window >= pack.longest:
        window = None
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query_1HND, key_1GND, value_1GND))
    if query.is_cuda and query.dtype in _FLASH_DTYPES and max(query.shape[2], value.shape[2]) <= _FLASH_HEAD:
        return attend_segments(query, key, value, pack.segments, scale=scaling, window=window)[None], None
    slots = pack.slots_SL
    mask = None if window is None else _window_mask(pack.positions_N, slots, slots, window) & _causal(slots)
    out_XHD = _attend(query, key, value, slots, slots, mask=mask, scale=scaling)
    if pack.branches is not None:
        slots, keys, mask = pack.branches.queries_BQ, pack.branches.keys_BK, pack.branches.mask_B1QK
        if window is not None:
            mask = mask & _window_mask(pack.positions_N, slots, keys, window)
        out_XHD = torch.cat([out_XHD, _attend(query, key, value, slots, keys, mask=mask, scale=scaling)])
    return out_XHD.index_select(0, pack.places_N)[None], None


def _window_mask(positions_N: Tensor, queries_SL: Tensor, keys_SK: Tensor, window: int) -> Tensor:
    """Which keys are at most `window - 1` positions before the query, later ones among them. [S, 1, L, K]."""
    distance_SLK = positions_N[queries_SL][:, :, None] - positions_N[keys_SK][:, None, :]
    return (distance_SLK < window)[:, None]


def _causal(slots_SL: Tensor) -> Tensor:
    """[1, 1, L, L]."""
    length = slots_SL.shape[1]
    return torch.ones(length, length, dtype=torch.bool, device=slots_SL.device).tril()[None, None]


def attend_segments(
    query_NHD: Tensor,
    key_NGD: Tensor,
    value_NGD: Tensor,
    segments: Segments,
    *,
    scale: float | None,
    window: int | None = None,
    kernel: Callable[..., Any] = varlen_attn,
) -> Tensor:
    """Attention of each run of queries to its run of keys, aligned at their ends. [N, H, D].

    `window`: how many positions a query sees, its own included; None: all before it.

    `kernel` has the form of `torch.nn.attention.varlen.varlen_attn`, which runs on GPUs alone. That of PyTorch 2.11 has
    no `enable_gqa`; it is given the keys and values of a group once per query head.
    """
    groups: dict[str, bool] = {"enable_gqa": True}
    if not _takes_groups(kernel):
        groups, share = {}, query_NHD.shape[1] // key_NGD.shape[1]
        key_NGD, value_NGD = (tensor.repeat_interleave(share, dim=1) for tensor in (key_NGD, value_NGD))
    keys_X = segments.keys_X
    if keys_X is not None:
        key_NGD, value_NGD = key_NGD.index_select(0, keys_X), value_NGD.index_select(0, keys_X)
    out_NHD: Tensor = kernel(
        query_NHD.contiguous(),
        key_NGD.contiguous(),
        value_NGD.contiguous(),
        segments.query_starts_S,
        segments.key_starts_S,
        segments.most_queries,
        segments.most_keys,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),
        **groups,
    )
    return out_NHD


@functools.cache
def _takes_groups(kernel: Callable[..., Any]) -> bool:
    """Whether the kernel knows that several query heads share a key-value head."""
    return "enable_gqa" in inspect.signature(kernel).parameters


def _attend(
    query_NHD: Tensor,
    key_NGD: Tensor,
    value_NGD: Tensor,
    queries_SL: Tensor,
    keys_SK: Tensor,
    *,
    mask: Tensor | None,
    scale: float | None,
) -> Tensor:
    """Attention of the tokens at `queries_SL` to those at `keys_SK`, causal without a mask. [S * L, H, D]."""
    query_SHLD = _side_by_side(query_NHD, queries_SL)
    key_SHKD, value_SHKD = _side_by_side(key_NGD, keys_SK), _side_by_side(value_NGD, keys_SK)
    share = query_NHD.shape[1] // key_NGD.shape[1]
    if share != 1:
        key_SHKD, value_SHKD = (tensor.repeat_interleave(share, dim=1) for tensor in (key_SHKD, value_SHKD))
    wide = attention_dtype(query_SHLD)
    out_SHLD = nn.functional.scaled_dot_product_attention(
        query_SHLD.to(wide), key_SHKD.to(wide), value_SHKD.to(wide), attn_mask=mask, is_causal=mask is None, scale=scale
    )
    return out_SHLD.to(query_NHD.dtype).transpose(1, 2).flatten(0, 1)


def attention_dtype(tensor: Tensor) -> torch.dtype:
    """What to attend in: the tensor's dtype, but float32 instead of half precision on a CPU.

    The backward of half precision takes three times as long there, and a sampler that attends in the same dtype as the
    trainer gives log-probs nearer to the trainer's.
    """
    return torch.float32 if tensor.device.type == "cpu" and tensor.dtype in _FLASH_DTYPES else tensor.dtype


def refuse_what_is_not_computed(options: Mapping[str, Any]) -> None:
    """Check what a model asks of its attention beyond the plain kind and sliding windows.

    Raises:
        EngineError: says what.
    """
    for name in ("softcap", "s_aux"):
        if options.get(name) is not None:
            raise EngineError(f"the model's attention uses {name!r}, which is not computed here")


def register_packed_attention() -> None:
    """Make PACKED known to transformers. Harmless when repeated."""
    AttentionInterface.register(PACKED, packed_attention)


def _side_by_side(tensor_NHD: Tensor, slots_SL: Tensor) -> Tensor:
    """[N, H, D] to [S, H, L, D]."""
    picked_XHD = torch.index_select(tensor_NHD, 0, slots_SL.flatten())
    return picked_XHD.view(*slots_SL.shape, *picked_XHD.shape[1:]).transpose(1, 2)
