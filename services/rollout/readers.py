"""How the rows of a batch are read by a `transformers` model: all in one pass over one cache, or prompt by prompt.

The first is fast, and right for models whose layers are all attention of a plain kind. The second gives each prompt,
with its samples, a pass and a cache of transformers' own, so it is right for any model and its cost grows with prompts.

Shapes: P prompts, R rows, L positions, V vocabulary.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from prime.errors import EngineError
from prime.lm.proof import MOST_NOISE, NOT_COMPUTED, describe_layers, proof_rows
from prime.maths.agreement import mean_gap
from prime.maths.logprobs import logprobs_of_logits
from prime.types import RolloutRequest, SamplingParams
from services.rollout.decoding import Batch, Cohort
from services.rollout.kv_cache import CACHED, KeyValueCache, register_cached_attention

_PROOF_TOKENS = 8


class CachedReader:
    """All rows in one pass; the module's attention is `kv_cache.CACHED`."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._cache: KeyValueCache | None = None

    def read_prompts(self, cohort: Cohort) -> Tensor:
        """Prompts are read once, padded on the left, and their keys and values taken once per sample."""
        ids_PL, offsets_PL = cohort.prompts()
        is_padded = bool((offsets_PL < 0).any())
        cache = KeyValueCache(offsets_PL >= 0 if is_padded else None)
        logits_PV = self._module(
            input_ids=ids_PL, position_ids=offsets_PL.clamp(min=0), use_cache=False, logits_to_keep=1, cache=cache
        ).logits[:, -1]
        cache.advance(ids_PL.shape[1])
        cache.pick(cohort.prompt_R)
        if self._cache is None:
            self._cache = cache
        else:
            self._cache.join(cache)
        return torch.as_tensor(logits_PV[cohort.prompt_R])

    def read_last_tokens(self, cohorts: Sequence[Cohort]) -> list[Tensor]:
        """One pass for all."""
        assert self._cache is not None  # it is there as long as rows are
        logits_RV = self._module(
            input_ids=torch.cat([cohort.last_tokens_R1 for cohort in cohorts]),
            position_ids=torch.cat([cohort.positions_R1 for cohort in cohorts]),
            use_cache=False,
            logits_to_keep=1,
            cache=self._cache,
        ).logits[:, -1]
        self._cache.advance(1)
        return list(torch.split(logits_RV, [cohort.num_rows for cohort in cohorts]))

    def keep(self, alive_R: Tensor) -> None:
        """Drop the others from the cache."""
        if self._cache is not None and len(alive_R):
            self._cache.pick(alive_R)
        else:
            self._cache = None

    @torch.inference_mode()
    def prompt_logprobs(self, ids: Sequence[int]) -> tuple[float, ...]:
        """Log-prob of each token after the first, at temperature 1."""
        ids_1L = torch.tensor([list(ids)], device=self._module.device)
        return _chosen(self._module(input_ids=ids_1L, use_cache=False, cache=KeyValueCache(None)).logits[0], ids_1L[0])


class PlainReader:
    """Prompt by prompt, with transformers' own attention and caches."""

    def __init__(self, module: Any) -> None:
        self._module = module
        takes = inspect.signature(module.forward).parameters
        self._cache_name = "past_key_values" if "past_key_values" in takes else "cache_params"
        self._caches: list[tuple[Any, int]] = []
        """Of every prompt in flight: its cache, and how many rows go on from it."""

    def read_prompts(self, cohort: Cohort) -> Tensor:
        """Each prompt in a pass of its own; its state is then taken once per sample."""
        logits = []
        for request in cohort.requests:
            ids_1L = torch.tensor([request.prompt_ids], device=self._module.device)
            out = self._module(input_ids=ids_1L, use_cache=True)
            cache = out[self._cache_name]
            cache.reorder_cache(torch.zeros(request.num_samples, dtype=torch.long, device=ids_1L.device))
            self._caches.append((cache, request.num_samples))
            logits.append(out.logits[:, -1].expand(request.num_samples, -1))
        return torch.cat(logits)

    def read_last_tokens(self, cohorts: Sequence[Cohort]) -> list[Tensor]:
        """A pass for every prompt."""
        tokens_R1 = torch.cat([cohort.last_tokens_R1 for cohort in cohorts])
        parts = torch.split(tokens_R1, [rows for _, rows in self._caches])
        logits_RV = torch.cat(
            [
                self._module(input_ids=part_R1, use_cache=True, **{self._cache_name: cache}).logits[:, -1]
                for (cache, _), part_R1 in zip(self._caches, parts, strict=True)
            ]
        )
        return list(torch.split(logits_RV, [cohort.num_rows for cohort in cohorts]))

    def keep(self, alive_R: Tensor) -> None:
        """Drop the others from their prompts' caches."""
        kept, start = [], 0
        for cache, rows in self._caches:
            mine_R = alive_R[(alive_R >= start) & (alive_R < start + rows)] - start
            if 0 < len(mine_R) < rows:
                cache.reorder_cache(mine_R)
            if len(mine_R):
                kept.append((cache, len(mine_R)))
            start += rows
        self._caches = kept

    @torch.inference_mode()
    def prompt_logprobs(self, ids: Sequence[int]) -> tuple[float, ...]:
        """Log-prob of each token after the first, at temperature 1."""
        ids_1L = torch.tensor([list(ids)], device=self._module.device)
        return _chosen(self._module(input_ids=ids_1L, use_cache=False).logits[0], ids_1L[0])


def choose_reader(module: Any) -> tuple[CachedReader | PlainReader, str]:
    """The fast reader where eight tokens sampled by it have the log-probs of transformers' own full pass.

    Else the plain one, and why.

    Raises:
        EngineError: not even the plain one agrees.
    """
    register_cached_attention()
    plain = PlainReader(module)
    own_attention = module.config._attn_implementation
    module.set_attn_implementation(CACHED)
    try:
        sampled, why = _sampled(CachedReader(module), module), ""
    except NOT_COMPUTED as error:
        sampled, why = {}, f"{type(error).__name__}: {error}"
    module.set_attn_implementation(own_attention)
    why = why or _fault(sampled, plain, module)
    if not why:
        module.set_attn_implementation(CACHED)
        return CachedReader(module), ""
    try:
        fault = _fault(_sampled(PlainReader(module), module), plain, module)
    except NOT_COMPUTED as error:
        fault = f"{type(error).__name__}: {error}"
    if fault:
        raise EngineError(f"this model cannot be sampled from here; rollout.engine = 'vllm' may serve it. {fault}")
    return plain, why


def _sampled(reader: CachedReader | PlainReader, module: Any) -> dict[tuple[int, ...], tuple[float, ...]]:
    """Log-probs of what is sampled after the prompts of the proof, by prompt and response together."""
    size = module.get_output_embeddings().weight.shape[0]
    batch = Batch(reader, torch.zeros(size, dtype=torch.bool, device=module.device))
    cohort = batch.join([_proof_request(number, row.prompt_ids) for number, row in enumerate(proof_rows(size))])
    while batch.is_alive:
        batch.step(0)
    return {
        (*group.prompt_ids, *sample.response_ids): sample.logprobs
        for group in cohort.finished
        for sample in group.samples
    }


def _fault(found: dict[tuple[int, ...], tuple[float, ...]], plain: PlainReader, module: Any) -> str:
    most = MOST_NOISE["float32" if module.dtype == torch.float32 else "bfloat16"]
    gap = max(mean_gap(logprobs, plain.prompt_logprobs(ids)[-len(logprobs) :]) for ids, logprobs in found.items())
    if gap <= most:
        return ""
    return f"tokens sampled step by step are {gap:.2g} nats off on average: {describe_layers(module)}"


def _proof_request(number: int, prompt_ids: tuple[int, ...]) -> RolloutRequest:
    return RolloutRequest(
        group_id=str(number),
        problem_id="proof",
        attempt=0,
        prompt_ids=prompt_ids,
        num_samples=2,
        sampling=SamplingParams(temperature=1.0, top_p=1.0, max_tokens=_PROOF_TOKENS),
        seed=number,
        min_version=0,
    )


def _chosen(logits_LV: Tensor, ids_L: Tensor) -> tuple[float, ...]:
    return tuple(logprobs_of_logits(logits_LV[:-1], ids_L[1:]).logprobs_N.tolist())
