"""Keys and values of rows in flight, written in place, and the attention that reads them.

Rows end at the same position of the cache, the newest; those that have fewer positions are padded on the left.

Shapes: R rows, L positions so far, N newest positions, H query heads, G key-value heads, D head size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from prime.errors import EngineError
from prime.lm.attention import attention_dtype, refuse_what_is_not_computed

CACHED = "prime_cached"
"""The name under which transformers knows `cached_attention`."""
_MORE_SLOTS = 32
"""Positions by which it grows. Doubling would be fewer copies, and half of gigabytes would lie idle."""


class KeyValueCache:
    """Keys and values of every row and layer, in the dtype of attention; grows by a few positions at a time."""

    def __init__(self, mask_RL: Tensor | None) -> None:
        """`mask_RL`: which positions of the prompts count, where some are padded on the left; None: all do."""
        self._mask_RL = mask_RL
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._rows = 0
        self.length = 0

    def append(self, layer: int, key_RGND: Tensor, value_RGND: Tensor) -> tuple[Tensor, Tensor]:
        """Take in the newest positions of a layer; returns all of them so far. [R, G, L, D] each."""
        end = self.length + key_RGND.shape[2]
        if layer not in self._layers or self._layers[layer][0].shape[2] < end:
            self._grow(layer, (key_RGND, value_RGND), end)
        keys, values = self._layers[layer]
        keys[:, :, self.length : end] = key_RGND
        values[:, :, self.length : end] = value_RGND
        return keys[:, :, :end], values[:, :, :end]

    def advance(self, positions: int) -> None:
        """All layers have taken in so many positions."""
        self.length += positions
        if not self._layers:
            raise EngineError("the model has no attention layer that keys and values could be kept of")
        self._rows = next(iter(self._layers.values()))[0].shape[0]
        if self._mask_RL is not None:
            new = self.length - self._mask_RL.shape[1]  # the prompts' own positions are there from the start
            self._mask_RL = nn.functional.pad(self._mask_RL, (0, new), value=True)

    def visible(self, positions: int) -> Tensor | None:
        """Which keys the newest positions may see, as a mask [R, 1, N, L]; None: all up to themselves."""
        if self._mask_RL is None:
            return None
        if positions == 1:
            return nn.functional.pad(self._mask_RL, (0, 1), value=True)[:, None, None, :]
        causal_LL = torch.ones(positions, positions, dtype=torch.bool, device=self._mask_RL.device).tril()
        # Padding sees itself: without any key its states would be no numbers, and spoil those that weigh them with 0.
        itself_LL = torch.eye(positions, dtype=torch.bool, device=self._mask_RL.device)
        return ((self._mask_RL[:, None, :] & causal_LL) | itself_LL)[:, None]

    def pick(self, rows_R: Tensor) -> None:
        """Keep these rows, in this order, and no position that none of them has; a row may be taken more than once."""
        self._rows = len(rows_R)
        unused = 0
        if self._mask_RL is not None:
            mask_RL = self._mask_RL.index_select(0, rows_R)
            unused = int(mask_RL.any(dim=0).int().argmax())
            self._mask_RL = None if bool(mask_RL[:, unused:].all()) else mask_RL[:, unused:]
        # One layer after the other, so that no second copy of all of them is held.
        for layer, (keys, values) in self._layers.items():
            picked = keys[:, :, unused:].index_select(0, rows_R), values[:, :, unused:].index_select(0, rows_R)
            self._layers[layer] = picked
        self.length -= unused

    def join(self, other: "KeyValueCache") -> None:
        """Put another cache's rows below these."""
        length = max(self.length, other.length)
        masks = [cache._full_mask(length) for cache in (self, other)]
        self._mask_RL = None if all(bool(mask.all()) for mask in masks) else torch.cat(masks)
        for layer, theirs in other._layers.items():
            mine = self._layers[layer]
            room = max(mine[0].shape[2] - self.length, theirs[0].shape[2] - other.length)
            keys, values = (
                torch.cat([_aligned(one, self.length, length, room), _aligned(two, other.length, length, room)])
                for one, two in zip(mine, theirs, strict=True)
            )
            self._layers[layer] = (keys, values)
        self._rows += other._rows
        self.length = length

    def _full_mask(self, length: int) -> Tensor:
        """For `length` positions, the last of which are these."""
        mask_RL = self._mask_RL
        if mask_RL is None:
            device = next(iter(self._layers.values()))[0].device
            mask_RL = torch.ones(self._rows, self.length, dtype=torch.bool, device=device)
        return nn.functional.pad(mask_RL, (length - self.length, 0), value=False)

    def _grow(self, layer: int, newest: tuple[Tensor, Tensor], end: int) -> None:
        """Values may have another size than keys (MLA)."""
        room = -(-end // _MORE_SLOTS) * _MORE_SLOTS
        grown = tuple(
            new.new_empty(new.shape[0], new.shape[1], room, new.shape[3], dtype=attention_dtype(new)) for new in newest
        )
        for new, old in zip(grown, self._layers.get(layer, ()), strict=False):
            new[:, :, : self.length] = old[:, :, : self.length]
        self._layers[layer] = (grown[0], grown[1])


def _aligned(tensor_RGLD: Tensor, used: int, length: int, room: int) -> Tensor:
    """The `used` positions at the end of `length`, zeros before them, and room behind them."""
    return nn.functional.pad(tensor_RGLD[:, :, :used], (0, 0, length - used, room))


def cached_attention(
    module: nn.Module,
    query_RHND: Tensor,
    key_RGND: Tensor,
    value_RGND: Tensor,
    attention_mask: Tensor | None,
    *,
    cache: KeyValueCache,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of the N newest positions to all so far, in the form transformers calls it. Returns [R, N, H, D].

    Raises:
        EngineError: the model wants what this does not compute.
    """
    positions = query_RHND.shape[2]
    refuse_what_is_not_computed(options)
    keys, values = cache.append(int(module.layer_idx), key_RGND, value_RGND)  # type: ignore[arg-type]
    dtype, query_RHND = query_RHND.dtype, query_RHND.to(keys.dtype)
    share = query_RHND.shape[1] // keys.shape[1]
    mask = _inside_window(cache.visible(positions), keys, positions, options.get("sliding_window"))
    if positions == 1:
        # Heads that share keys stand in for positions, so that no key is copied.
        query_RGSD = query_RHND.view(query_RHND.shape[0], keys.shape[1], share, query_RHND.shape[3])
        out = nn.functional.scaled_dot_product_attention(query_RGSD, keys, values, attn_mask=mask, scale=scaling)
        return out.reshape(query_RHND.shape[0], 1, query_RHND.shape[1], values.shape[3]).to(dtype), None
    if share != 1:
        keys, values = (tensor.repeat_interleave(share, dim=1) for tensor in (keys, values))
    out = nn.functional.scaled_dot_product_attention(
        query_RHND, keys, values, attn_mask=mask, is_causal=mask is None, scale=scaling
    )
    return out.transpose(1, 2).to(dtype), None


def _inside_window(mask: Tensor | None, keys_RGLD: Tensor, positions: int, window: int | None) -> Tensor | None:
    """The mask without keys that are `window` positions or more before the query; [1 or R, 1, N, L] or None: no mask.

    Rows end at the same position, so distances in the cache are distances in the row.
    """
    length = keys_RGLD.shape[2]
    if window is None or length <= window:
        return mask
    places_L = torch.arange(length, device=keys_RGLD.device)
    distance_NL = places_L[-positions:, None] - places_L[None, :]
    near_11NL = ((distance_NL >= 0) & (distance_NL < window))[None, None]
    return near_11NL if mask is None else mask & near_11NL


def register_cached_attention() -> None:
    """Make CACHED known to transformers. Harmless when repeated."""
    AttentionInterface.register(CACHED, cached_attention)
