"""The engine for machines without vLLM: a batched decode loop over a `transformers` model, in this process.

Every row draws from a random stream of its own, seeded by (request seed, sample number), so what it samples does not
depend on its neighbours beyond rounding. Weights change between two decode steps; rows in flight go on with them.

Shapes: R rows alive, L positions so far, V vocabulary.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import structlog
import torch
from torch import Tensor
from transformers import DynamicCache

from prime.errors import EngineError, WeightPushError
from prime.lm.model import load_module, load_tokenizer, pick_device, stop_token_ids
from prime.types import FinishReason, RolloutGroup, RolloutRequest, Sample, TensorSpec, VersionSpan

_log = structlog.get_logger()
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Finished rows are dropped from the batch once they are this share of it: each drop copies the cache.
_DROP_SHARE = 0.25


class TransformersEngine:
    """`Engine` over `transformers`; samples one batch to its end before the next."""

    name = "transformers"
    continuous = False

    def __init__(self, *, model: Path, device: str, dtype: str) -> None:
        self._folder = model
        self._device = pick_device(device)
        self._dtype = DTYPES[dtype]
        self._version = 0
        self._module: Any = None
        self._stop_ids: tuple[int, ...] = ()
        self._one_batch = asyncio.Lock()
        self._between_steps = asyncio.Lock()

    async def start(self) -> None:
        """Load the model."""
        self._stop_ids = stop_token_ids(self._folder, load_tokenizer(self._folder))
        self._module = load_module(self._folder, dtype=self._dtype, attention="sdpa").to(self._device).eval()

    async def generate(self, requests: Sequence[RolloutRequest]) -> AsyncIterator[RolloutGroup]:
        """Groups in the order in which they finish."""
        async with self._one_batch:
            batch = _Batch(requests, self._module, self._stop_ids)
            while batch.is_alive:
                async with self._between_steps:
                    finished = await asyncio.to_thread(batch.step, self._version)
                for group in finished:
                    yield group

    async def load_weights(self, version: int, tensors: Sequence[tuple[TensorSpec, memoryview]]) -> float:
        """Replace all weights between two decode steps; returns the seconds in which nothing was sampled.

        Raises:
            WeightPushError: names or shapes are not this model's. Nothing was replaced.
        """
        # state_dict lists a tied head under its own name too, so the names are the ones that `named_tensors` sends.
        own: dict[str, Tensor] = self._module.state_dict()
        announced = {spec.name: spec.shape for spec, _ in tensors}
        if announced != {name: tuple(tensor.shape) for name, tensor in own.items()}:
            odd = sorted(set(announced) ^ set(own)) or [
                name for name in own if tuple(own[name].shape) != announced[name]
            ]
            raise WeightPushError(f"push of version {version} is for another model: it differs in {odd[:5]}")
        async with self._between_steps:
            started = time.perf_counter()
            with torch.no_grad():
                for spec, data in tensors:
                    own[spec.name].copy_(torch.frombuffer(data, dtype=DTYPES[spec.dtype]).view(spec.shape))
            self._version = version
            return time.perf_counter() - started

    async def logprobs(self, ids: Sequence[int]) -> tuple[float, ...]:
        """Log-prob of each token after the first."""
        async with self._between_steps:
            return await asyncio.to_thread(self._logprobs, ids)

    async def close(self) -> None:
        """Nothing to free."""

    @torch.no_grad()
    def _logprobs(self, ids: Sequence[int]) -> tuple[float, ...]:
        ids_1L = torch.tensor([list(ids)], device=self._device)
        logits_LV = self._module(input_ids=ids_1L, use_cache=False).logits[0, :-1].float()
        chosen_L = logits_LV.log_softmax(dim=1).gather(1, ids_1L[0, 1:, None]).squeeze(1)
        return tuple(chosen_L.tolist())


@dataclass(slots=True)
class _Row:
    """One sample on its way."""

    request: int
    uniforms: Any
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def to_sample(self) -> Sample:
        """The finished sample; consecutive tokens of one version become a span."""
        if self.finish_reason is None:
            raise EngineError("a sample was asked for before it was finished")
        spans: list[VersionSpan] = []
        for version in self.versions:
            if spans and spans[-1].version == version:
                spans[-1] = VersionSpan(version=version, length=spans[-1].length + 1)
            else:
                spans.append(VersionSpan(version=version, length=1))
        return Sample(
            response_ids=tuple(self.ids),
            logprobs=tuple(self.logprobs),
            spans=tuple(spans),
            finish_reason=self.finish_reason,
        )


class _Batch:
    """Requests sampled together: prompts padded on the left, one token per row and step."""

    def __init__(self, requests: Sequence[RolloutRequest], module: Any, stop_ids: Sequence[int]) -> None:
        self._requests = requests
        self._module = module
        self._stop_ids = frozenset(stop_ids)
        self._rows = [
            _Row(request=number, uniforms=_uniforms(request, sample))
            for number, request in enumerate(requests)
            for sample in range(request.num_samples)
        ]
        self._all_rows = list(self._rows)
        self._delivered: set[int] = set()
        device = module.device
        longest = max(len(request.prompt_ids) for request in requests)
        prompts = [requests[row.request].prompt_ids for row in self._rows]
        self._next_RL = torch.tensor([[0] * (longest - len(ids)) + list(ids) for ids in prompts], device=device)
        self._seen_RL = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts], device=device)
        self._cache = DynamicCache(config=module.config)

    @property
    def is_alive(self) -> bool:
        """Whether any row goes on."""
        return bool(self._rows)

    @torch.no_grad()
    def step(self, version: int) -> list[RolloutGroup]:
        """Sample one token per row; returns the groups that this finished."""
        positions_RL = (self._seen_RL.cumsum(dim=1) - 1).clamp(min=0)[:, -self._next_RL.shape[1] :]
        logits_RV = self._module(
            input_ids=self._next_RL,
            attention_mask=self._seen_RL,
            position_ids=positions_RL,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        chosen_R, logprobs_R = self._choose(logits_RV.float())
        for row, token, logprob in zip(self._rows, chosen_R.tolist(), logprobs_R.tolist(), strict=True):
            if row.finish_reason is not None:
                continue  # waits in the batch until it is dropped
            row.ids.append(token)
            row.logprobs.append(logprob)
            row.versions.append(version)
            if token in self._stop_ids:
                row.finish_reason = FinishReason.STOP
            elif len(row.ids) >= self._requests[row.request].sampling.max_tokens:
                row.finish_reason = FinishReason.LENGTH
        self._next_RL = chosen_R[:, None]
        self._seen_RL = torch.nn.functional.pad(self._seen_RL, (0, 1), value=1)
        finished = self._finished_groups()
        self._drop_finished_rows()
        return finished

    def _choose(self, logits_RV: Tensor) -> tuple[Tensor, Tensor]:
        """A token per row by inverting the cumulative distribution at the row's next uniform number."""
        parameters = [self._requests[row.request].sampling for row in self._rows]
        temperature_R1 = torch.tensor([[each.temperature] for each in parameters], device=logits_RV.device)
        logprobs_RV = (logits_RV / temperature_R1).log_softmax(dim=1)
        if any(each.top_p < 1.0 for each in parameters):
            top_p_R1 = torch.tensor([[each.top_p] for each in parameters], device=logits_RV.device)
            logprobs_RV = _keep_nucleus(logprobs_RV, top_p_R1)
        uniforms_R1 = torch.tensor(
            [[row.uniforms[min(len(row.ids), len(row.uniforms) - 1)]] for row in self._rows], device=logits_RV.device
        )
        cumulative_RV = logprobs_RV.double().exp().cumsum(dim=1)
        chosen_R1 = torch.searchsorted(cumulative_RV, uniforms_R1 * cumulative_RV[:, -1:], right=True)
        chosen_R1 = chosen_R1.clamp(max=logprobs_RV.shape[1] - 1)
        return chosen_R1.squeeze(1), logprobs_RV.gather(1, chosen_R1).squeeze(1)

    def _finished_groups(self) -> list[RolloutGroup]:
        open_requests = {row.request for row in self._all_rows if row.finish_reason is None} | self._delivered
        groups = []
        for number, request in enumerate(self._requests):
            if number in open_requests:
                continue
            self._delivered.add(number)
            groups.append(
                RolloutGroup(
                    group_id=request.group_id,
                    problem_id=request.problem_id,
                    attempt=request.attempt,
                    prompt_ids=request.prompt_ids,
                    samples=tuple(row.to_sample() for row in self._all_rows if row.request == number),
                )
            )
        return groups

    def _drop_finished_rows(self) -> None:
        alive = [index for index, row in enumerate(self._rows) if row.finish_reason is None]
        if alive and len(self._rows) - len(alive) < _DROP_SHARE * len(self._rows):
            return
        self._rows = [self._rows[index] for index in alive]
        if alive:
            keep = torch.tensor(alive, device=self._next_RL.device)
            self._next_RL = self._next_RL[keep]
            self._seen_RL = self._seen_RL[keep]
            self._cache.batch_select_indices(keep)


def _uniforms(request: RolloutRequest, sample: int) -> Any:
    """The random stream of one sample: as many numbers as it may have tokens."""
    bits = numpy.random.Philox(key=[request.seed, sample])
    return numpy.random.Generator(bits).random(request.sampling.max_tokens)


def _keep_nucleus(logprobs_RV: Tensor, top_p_R1: Tensor) -> Tensor:
    """Log-probs renormalised over the smallest set of tokens that holds `top_p` of the mass."""
    ordered_RV, order_RV = logprobs_RV.sort(dim=1, descending=True)
    before_RV = ordered_RV.exp().cumsum(dim=1) - ordered_RV.exp()
    kept_RV = ordered_RV.masked_fill(before_RV >= top_p_R1, float("-inf")).log_softmax(dim=1)
    return torch.empty_like(kept_RV).scatter_(1, order_RV, kept_RV)
