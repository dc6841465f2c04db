"""A batched decode loop over a `transformers` model: prompts read once each, then one token per row and step.

Every row draws from a random stream of its own, seeded by (request seed, sample number), so what it samples does not
depend on its neighbours beyond rounding. All rows are equally far, so token t of every row is sampled in step t.

Shapes: P prompts, R rows alive, L positions so far, H query heads, G key-value heads, D head size, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from prime.lm.attention import refuse_what_is_not_computed
from prime.types import FinishReason, RolloutGroup, RolloutRequest, Sample, SamplingParams, VersionSpan

CACHED = "prime_cached"
"""The name under which transformers knows `cached_attention`."""
# Finished rows are dropped from the batch once they are this share of it: each drop copies the cache.
_DROP_SHARE = 0.25
_FIRST_SLOTS = 64


class KeyValueCache:
    """Keys and values of every row and layer, written in place; grows by doubling."""

    def __init__(self, mask_RL: Tensor | None) -> None:
        """`mask_RL`: which prompt positions count, where prompts are padded on the left; None: all do."""
        self._mask_RL = mask_RL
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        self.length = 0

    def append(self, layer: int, key_RGND: Tensor, value_RGND: Tensor) -> tuple[Tensor, Tensor]:
        """Take in the newest positions of a layer; returns all of them so far. [R, G, L, D] each."""
        end = self.length + key_RGND.shape[2]
        if layer not in self._layers or self._layers[layer][0].shape[2] < end:
            self._grow(layer, key_RGND, end)
        keys, values = self._layers[layer]
        keys[:, :, self.length : end] = key_RGND
        values[:, :, self.length : end] = value_RGND
        return keys[:, :, :end], values[:, :, :end]

    def advance(self, positions: int) -> None:
        """All layers have taken in so many positions."""
        self.length += positions
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
        """Keep these rows, in this order; a row may be taken more than once."""
        self._layers = {
            layer: (keys.index_select(0, rows_R), values.index_select(0, rows_R))
            for layer, (keys, values) in self._layers.items()
        }
        if self._mask_RL is not None:
            self._mask_RL = self._mask_RL.index_select(0, rows_R)

    def _grow(self, layer: int, like_RGND: Tensor, end: int) -> None:
        rows, heads, _, size = like_RGND.shape
        room = max(_FIRST_SLOTS, 1 << (end - 1).bit_length())
        grown = tuple(like_RGND.new_empty(rows, heads, room, size) for _ in range(2))
        for new, old in zip(grown, self._layers.get(layer, ()), strict=False):
            new[:, :, : self.length] = old[:, :, : self.length]
        self._layers[layer] = (grown[0], grown[1])


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
    refuse_what_is_not_computed(options, longest=cache.length + positions)
    keys, values = cache.append(int(module.layer_idx), key_RGND, value_RGND)  # type: ignore[arg-type]
    share = query_RHND.shape[1] // keys.shape[1]
    mask = cache.visible(positions)
    if positions == 1:
        # Heads that share keys stand in for positions, so that no key is copied.
        query_RGSD = query_RHND.view(query_RHND.shape[0], keys.shape[1], share, query_RHND.shape[3])
        out = nn.functional.scaled_dot_product_attention(query_RGSD, keys, values, attn_mask=mask, scale=scaling)
        return out.reshape(query_RHND.shape[0], 1, query_RHND.shape[1], query_RHND.shape[3]), None
    if share != 1:
        keys, values = (tensor.repeat_interleave(share, dim=1) for tensor in (keys, values))
    out = nn.functional.scaled_dot_product_attention(
        query_RHND, keys, values, attn_mask=mask, is_causal=mask is None, scale=scaling
    )
    return out.transpose(1, 2), None


def register_cached_attention() -> None:
    """Make CACHED known to transformers. Harmless when repeated."""
    AttentionInterface.register(CACHED, cached_attention)


@torch.no_grad()
def prompt_logprobs(module: Any, ids: Sequence[int]) -> tuple[float, ...]:
    """Log-prob of each token after the first, at temperature 1."""
    ids_1L = torch.tensor([list(ids)], device=module.device)
    logits_LV = module(input_ids=ids_1L, use_cache=False, cache=KeyValueCache(None)).logits[0, :-1].float()
    chosen_L = logits_LV.log_softmax(dim=1).gather(1, ids_1L[0, 1:, None]).squeeze(1)
    return tuple(chosen_L.tolist())


@dataclass(frozen=True, slots=True)
class _Row:
    """One sample on its way: which request it is of, and where its tokens are written."""

    request: int
    place: int


class Batch:
    """Requests sampled together, to the end of the longest."""

    def __init__(self, requests: Sequence[RolloutRequest], module: Any, stop_ids: Sequence[int]) -> None:
        """Nothing is computed yet."""
        self._requests = requests
        self._module = module
        device = module.device
        rows = [number for number, request in enumerate(requests) for _ in range(request.num_samples)]
        self._rows = [_Row(request=number, place=place) for place, number in enumerate(rows)]
        self._open = {number: request.num_samples for number, request in enumerate(requests)}
        self._stop_V = torch.zeros(module.config.vocab_size, dtype=torch.bool, device=device)
        self._stop_V[list(stop_ids)] = True
        longest = max(request.sampling.max_tokens for request in requests)
        self._limit_R = torch.tensor([requests[number].sampling.max_tokens for number in rows], device=device)
        self._uniforms_RT = torch.from_numpy(_uniforms(requests, longest)).to(device)
        self._choose = _Chooser([requests[number].sampling for number in rows], device)
        # What was sampled, by the row's first place, which it keeps when others are dropped.
        self._ids_RT = torch.zeros(len(rows), longest, dtype=torch.long, device=device)
        self._logprobs_RT = torch.zeros(len(rows), longest, device=device)
        self._is_done_R = torch.zeros(len(rows), dtype=torch.bool, device=device)
        self._places_R = torch.arange(len(rows), device=device)
        self._cache: KeyValueCache | None = None
        self._positions_R1 = torch.zeros(0)
        self._steps = 0
        self._versions: list[VersionSpan] = []
        """Which version sampled how many steps, in order."""

    @property
    def is_alive(self) -> bool:
        """Whether any row goes on."""
        return bool(self._rows)

    @torch.no_grad()
    def step(self, version: int) -> list[RolloutGroup]:
        """Sample one token per row; returns the groups that this finished."""
        logits_RV = self._read_prompts() if self._cache is None else self._read_last_tokens(self._cache)
        chosen_R, logprobs_R = self._choose(logits_RV.float(), self._uniforms_RT[self._places_R, self._steps])
        self._ids_RT[self._places_R, self._steps] = chosen_R
        self._logprobs_RT[self._places_R, self._steps] = logprobs_R
        self._steps += 1
        if self._versions and self._versions[-1].version == version:
            self._versions[-1] = VersionSpan(version=version, length=self._versions[-1].length + 1)
        else:
            self._versions.append(VersionSpan(version=version, length=1))
        ends_R = (self._stop_V[chosen_R] | (self._limit_R == self._steps)) & ~self._is_done_R
        if not bool(ends_R.any()):
            return []
        self._is_done_R |= ends_R
        finished = self._groups_without(ends_R.nonzero().flatten().tolist())
        self._drop_finished_rows()
        return finished

    def _read_prompts(self) -> Tensor:
        prompts = [request.prompt_ids for request in self._requests]
        longest = max(map(len, prompts))
        device = self._places_R.device
        ids_PL = torch.tensor([[0] * (longest - len(ids)) + list(ids) for ids in prompts], device=device)
        lengths_P = torch.tensor([len(ids) for ids in prompts], device=device)
        offsets_PL = torch.arange(longest, device=device) - (longest - lengths_P[:, None])
        is_padded = int(lengths_P.min()) < longest
        self._cache = KeyValueCache(offsets_PL >= 0 if is_padded else None)
        logits_PV = self._module(
            input_ids=ids_PL,
            position_ids=offsets_PL.clamp(min=0),
            use_cache=False,
            logits_to_keep=1,
            cache=self._cache,
        ).logits[:, -1]
        self._cache.advance(longest)
        prompt_R = torch.tensor([row.request for row in self._rows], device=device)
        self._cache.pick(prompt_R)
        self._positions_R1 = lengths_P[prompt_R][:, None]
        return torch.as_tensor(logits_PV[prompt_R])

    def _read_last_tokens(self, cache: KeyValueCache) -> Tensor:
        logits_RV = self._module(
            input_ids=self._ids_RT[self._places_R, self._steps - 1][:, None],
            position_ids=self._positions_R1,
            use_cache=False,
            logits_to_keep=1,
            cache=cache,
        ).logits[:, -1]
        cache.advance(1)
        self._positions_R1 = self._positions_R1 + 1
        return torch.as_tensor(logits_RV)

    def _groups_without(self, ended: Sequence[int]) -> list[RolloutGroup]:
        """Groups none of whose samples goes on, now that the rows with these numbers have ended."""
        complete = []
        for row in (self._rows[number] for number in ended):
            self._open[row.request] -= 1
            if not self._open[row.request]:
                complete.append(self._group(row.request))
        return complete

    def _group(self, number: int) -> RolloutGroup:
        request = self._requests[number]
        first = sum(each.num_samples for each in self._requests[:number])
        return RolloutGroup(
            group_id=request.group_id,
            problem_id=request.problem_id,
            attempt=request.attempt,
            prompt_ids=request.prompt_ids,
            samples=tuple(
                self._sample(place, request.sampling.max_tokens) for place in range(first, first + request.num_samples)
            ),
        )

    def _sample(self, place: int, limit: int) -> Sample:
        ids_T = self._ids_RT[place, : self._steps]
        stops = self._stop_V[ids_T].nonzero()
        length = min(int(stops[0]) + 1 if len(stops) else limit, limit)
        reason = FinishReason.STOP if len(stops) and int(stops[0]) < limit else FinishReason.LENGTH
        return Sample(
            response_ids=tuple(ids_T[:length].tolist()),
            logprobs=tuple(self._logprobs_RT[place, :length].tolist()),
            spans=_first(self._versions, length),
            finish_reason=reason,
        )

    def _drop_finished_rows(self) -> None:
        num_done = int(self._is_done_R.sum())
        if num_done < len(self._rows) and num_done < _DROP_SHARE * len(self._rows):
            return
        alive_R = (~self._is_done_R).nonzero().flatten()
        self._rows = [self._rows[number] for number in alive_R.tolist()]
        if self._cache is None or not self._rows:
            return
        self._cache.pick(alive_R)
        self._positions_R1 = self._positions_R1[alive_R]
        self._places_R, self._limit_R = self._places_R[alive_R], self._limit_R[alive_R]
        self._is_done_R = self._is_done_R[alive_R]
        self._choose.pick(alive_R)


class _Chooser:
    """A token per row by inverting the cumulative distribution at the row's next uniform number."""

    def __init__(self, parameters: Sequence[SamplingParams], device: torch.device) -> None:
        self._temperature_R1 = torch.tensor([[each.temperature] for each in parameters], device=device)
        self._top_p_R1 = torch.tensor([[each.top_p] for each in parameters], device=device)
        self._settle()

    def __call__(self, logits_RV: Tensor, uniforms_R: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and log-probs under the distribution that is drawn from. [R] each."""
        if self._is_tempered:
            logits_RV = logits_RV / self._temperature_R1
        logprobs_RV = logits_RV.log_softmax(dim=1)
        if self._is_cut:
            logprobs_RV = _keep_nucleus(logprobs_RV, self._top_p_R1)
        cumulative_RV = logprobs_RV.double().exp().cumsum(dim=1)
        chosen_R1 = torch.searchsorted(cumulative_RV, uniforms_R[:, None] * cumulative_RV[:, -1:], right=True)
        chosen_R1 = chosen_R1.clamp_(max=logprobs_RV.shape[1] - 1)
        return chosen_R1.squeeze(1), logprobs_RV.gather(1, chosen_R1).squeeze(1)

    def pick(self, rows_R: Tensor) -> None:
        """Keep these rows."""
        self._temperature_R1, self._top_p_R1 = self._temperature_R1[rows_R], self._top_p_R1[rows_R]
        self._settle()

    def _settle(self) -> None:
        self._is_tempered = bool((self._temperature_R1 != 1.0).any())
        self._is_cut = bool((self._top_p_R1 < 1.0).any())


def _uniforms(requests: Sequence[RolloutRequest], longest: int) -> Any:
    """The random streams, a row per sample: as many numbers as it may have tokens."""
    rows = []
    for request in requests:
        for sample in range(request.num_samples):
            bits = numpy.random.Philox(key=[request.seed, sample])
            drawn = numpy.random.Generator(bits).random(request.sampling.max_tokens)
            rows.append(numpy.pad(drawn, (0, longest - len(drawn))))
    return numpy.stack(rows)


def _first(spans: Sequence[VersionSpan], length: int) -> tuple[VersionSpan, ...]:
    """The spans of the first `length` tokens."""
    found: list[VersionSpan] = []
    for span in spans:
        if length > 0:
            found.append(VersionSpan(version=span.version, length=min(span.length, length)))
            length -= span.length
    return tuple(found)


def _keep_nucleus(logprobs_RV: Tensor, top_p_R1: Tensor) -> Tensor:
    """Log-probs renormalised over the smallest set of tokens that holds `top_p` of the mass."""
    ordered_RV, order_RV = logprobs_RV.sort(dim=1, descending=True)
    before_RV = ordered_RV.exp().cumsum(dim=1) - ordered_RV.exp()
    kept_RV = ordered_RV.masked_fill(before_RV >= top_p_R1, float("-inf")).log_softmax(dim=1)
    return torch.empty_like(kept_RV).scatter_(1, order_RV, kept_RV)
