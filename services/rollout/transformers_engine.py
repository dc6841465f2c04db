"""The engine for machines without vLLM: a batched decode loop over a `transformers` model, in this process.

Weights change between two decode steps; rows in flight go on with them.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prime.errors import WeightPushError
from prime.lm.model import load_module, load_tokenizer, pick_device, stop_token_ids
from prime.types import RolloutGroup, RolloutRequest, TensorSpec
from services.rollout.decoding import CACHED, Batch, prompt_logprobs, register_cached_attention

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TransformersEngine:
    """`Engine` over `transformers`; samples one batch to its end before the next."""

    name = "transformers"
    continuous = False

    def __init__(self, *, model: Path, device: str, dtype: str) -> None:
        self._folder = model
        self._device = pick_device(device)
        self.dtype = dtype
        self._dtype = DTYPES[dtype]
        self._version = 0
        self._module: Any = None
        self._stop_ids: tuple[int, ...] = ()
        self._one_batch = asyncio.Lock()
        self._between_steps = asyncio.Lock()
        self._is_wanted = threading.Event()
        """Somebody waits for the model: the decode loop lets go after the step at hand."""

    async def start(self) -> None:
        """Load the model."""
        register_cached_attention()
        self._stop_ids = stop_token_ids(self._folder, load_tokenizer(self._folder))
        self._module = load_module(self._folder, dtype=self._dtype, attention=CACHED).to(self._device).eval()

    async def generate(self, requests: Sequence[RolloutRequest]) -> AsyncIterator[RolloutGroup]:
        """Groups in the order in which they finish."""
        async with self._one_batch:
            batch = Batch(requests, self._module, self._stop_ids)
            while batch.is_alive:
                async with self._between_steps:
                    finished = await asyncio.to_thread(self._decode, batch)
                for group in finished:
                    yield group

    def _decode(self, batch: Batch) -> list[RolloutGroup]:
        """Steps until a group is finished, or somebody else wants the model."""
        while batch.is_alive:
            finished = batch.step(self._version)
            if finished or self._is_wanted.is_set():
                return finished
        return []

    async def load_weights(self, version: int, tensors: Sequence[tuple[TensorSpec, memoryview]]) -> float:
        """Replace all weights between two decode steps; returns the seconds in which nothing was sampled.

        On a CPU the model computes from the memory that was given, which stays its own until the next weights.

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
        async with self._hold():
            started = time.perf_counter()
            with torch.no_grad():
                for spec, data in tensors:
                    self._put(spec.name, torch.frombuffer(data, dtype=DTYPES[spec.dtype]).view(spec.shape))
            self._version = version
            return time.perf_counter() - started

    def _put(self, name: str, tensor: Tensor) -> None:
        """Where it can be used as it lies, it is; otherwise it is copied."""
        owner, _, leaf = name.rpartition(".")
        parameter = self._module.get_submodule(owner)._parameters.get(leaf)
        if parameter is not None and (parameter.dtype, parameter.device) == (tensor.dtype, tensor.device):
            parameter.data = tensor
        else:
            self._module.get_submodule(owner).state_dict()[leaf].copy_(tensor)

    async def logprobs(self, ids: Sequence[int]) -> tuple[float, ...]:
        """Log-prob of each token after the first."""
        async with self._hold():
            return await asyncio.to_thread(prompt_logprobs, self._module, ids)

    async def close(self) -> None:
        """Nothing to free."""

    @contextlib.asynccontextmanager
    async def _hold(self) -> AsyncIterator[None]:
        """The model between two steps."""
        self._is_wanted.set()
        async with self._between_steps:
            self._is_wanted.clear()
            yield
