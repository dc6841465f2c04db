"""The engine for machines without vLLM: a batched decode loop over a `transformers` model, in this process.

Requests join and weights change between two decode steps; rows in flight go on with them.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
import torch
from torch import Tensor

from prime.errors import WeightPushError
from prime.lm.adapters import adapters_of, add_adapters, can_adapt, rank_of
from prime.lm.inbox import Inbox, total_checksum, transports_of
from prime.lm.memory import give_back_freed
from prime.lm.model import load_module, load_tokenizer, pick_device, stop_token_ids
from prime.types import PushManifest, RolloutGroup, RolloutRequest, TensorSpec
from services.rollout.decoding import Batch, Cohort
from services.rollout.readers import CachedReader, PlainReader, choose_reader
from services.rollout.stops import StopStrings

_log = structlog.get_logger()
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TransformersEngine:
    """`Engine` over `transformers`.

    Requests join those in flight, unless they want the newest weights alone: these wait until nothing is in flight. So
    in strict mode which rows are computed together does not depend on when they arrive, and a run repeats to the bit.
    """

    name = "transformers"

    def __init__(self, *, model: Path, device: str, dtype: str) -> None:
        self._folder = model
        self._device = pick_device(device)
        self.dtype = dtype
        self._dtype = DTYPES[dtype]
        self.transports = transports_of(self._device.type)
        self.takes_adapters = can_adapt()
        self._inbox = Inbox(self._device)
        self._fetched: list[Tensor] = []
        self._version = 0
        self._module: Any = None
        self._batch: Batch
        self._reader: CachedReader | PlainReader
        self.slow_because = ""
        """Why prompts are sampled from one by one; empty: all together."""
        self._admission = asyncio.Lock()
        self._left = asyncio.Event()
        """Requests have left the batch."""
        self._between_steps = asyncio.Lock()
        self._is_wanted = threading.Event()
        """Somebody waits for the model: the decode loop lets go after the step at hand."""

    async def start(self) -> None:
        """Load the model, and find out how to compute it.

        Raises:
            EngineError: it can be computed in no way that agrees with transformers.
        """
        tokenizer = load_tokenizer(self._folder)
        stop_ids = stop_token_ids(self._folder, tokenizer)
        self._module = load_module(self._folder, dtype=self._dtype, attention=None).to(self._device).eval()
        self._reader, self.slow_because = choose_reader(self._module)
        if self.slow_because:
            _log.warning("prompts are sampled from one by one", because=self.slow_because)
        self._batch = Batch(self._reader, _marked(stop_ids, self._module), StopStrings(tokenizer))

    async def generate(self, requests: Sequence[RolloutRequest]) -> AsyncGenerator[RolloutGroup, None]:
        """Groups in the order in which they finish."""
        if not requests:
            return
        cohort = await self._admit(requests)
        missing = len(requests)
        try:
            while missing:
                async with self._between_steps:
                    # Whoever has the turn decodes for all; these may be finished since.
                    if not cohort.finished:
                        await self._decode()
                missing -= len(cohort.finished)
                while cohort.finished:
                    yield cohort.finished.pop(0)
        finally:
            # Whoever was served has left the batch already, and does not stop the others to say so.
            if missing:
                async with self._hold():
                    self._batch.leave(cohort)
            self._left.set()

    async def _admit(self, requests: Sequence[RolloutRequest]) -> Cohort:
        async with self._admission:
            wants_newest = any(request.min_version >= self._version for request in requests)
            while wants_newest and self._batch.is_alive:
                self._left.clear()
                await self._left.wait()
            return self._batch.join(requests)

    async def _decode(self) -> None:
        """Steps until a group is finished, or somebody else wants the model."""
        decoding = asyncio.ensure_future(asyncio.to_thread(self._steps))
        try:
            await asyncio.shield(decoding)
        except asyncio.CancelledError:
            # A thread cannot be cancelled, and nobody may touch the model before it has let go.
            self._is_wanted.set()
            await decoding
            raise

    def _steps(self) -> None:
        while self._batch.is_alive:
            if self._batch.step(self._version) or self._is_wanted.is_set():
                return

    async def load_weights(self, version: int, tensors: Sequence[tuple[TensorSpec, memoryview]]) -> float:
        """Replace all weights between two decode steps; returns the seconds in which nothing was sampled.

        On a CPU the model computes from the memory that was given, which stays its own until the next weights.

        Raises:
            WeightPushError: names or shapes are not this model's. Nothing was replaced.
        """
        await self._check(version, {spec.name: spec.shape for spec, _ in tensors})
        return await self._replace(
            version,
            [(spec.name, torch.frombuffer(data, dtype=DTYPES[spec.dtype]).view(spec.shape)) for spec, data in tensors],
        )

    async def begin_fetch(self, manifest: PushManifest) -> None:
        """Start to fetch what is offered, in a thread.

        Raises:
            WeightPushError: the tensors are not those of this model, or the offer cannot be reached.
        """
        assert manifest.offer is not None
        await self._check(
            manifest.version, {name: manifest.tensors[number].shape for name, number in manifest.named.items()}
        )
        await asyncio.to_thread(self._inbox.begin, manifest.offer, manifest.tensors)

    async def finish_fetch(self, manifest: PushManifest) -> None:
        """Wait until all is there and proven.

        Raises:
            WeightPushError: what came is not what was sent, or another push came between.
        """
        assert manifest.offer is not None
        fetched = await asyncio.to_thread(self._inbox.take, manifest.offer.key)
        if manifest.offer.transport == "ipc" and self._device.type == "cuda":
            # There it is the trainer's own memory; on a CPU it is a copy that lives as long as it is used.
            fetched = [tensor.clone() for tensor in fetched]
        self._fetched = fetched

    async def load_fetched(self, manifest: PushManifest) -> float:
        """As `load_weights`, with what was fetched."""
        fetched, self._fetched = self._fetched, []
        tensors = [(name, fetched[number]) for name, number in manifest.named.items()]
        return await self._replace(manifest.version, tensors)

    async def _check(self, version: int, announced: Mapping[str, Sequence[int]]) -> None:
        rank = rank_of(announced)
        if rank and not adapters_of(self._module):
            # As the trainer did; they change nothing before their weights come.
            async with self._hold():
                add_adapters(self._module, rank)
        # state_dict lists a tied head under its own name too, so the names are the ones that `named_tensors` sends.
        own: dict[str, Tensor] = self._module.state_dict()
        if announced != {name: tuple(tensor.shape) for name, tensor in own.items()}:
            odd = sorted(set(announced) ^ set(own)) or [
                name for name in own if tuple(own[name].shape) != announced[name]
            ]
            raise WeightPushError(f"push of version {version} is for another model: it differs in {odd[:5]}")

    async def _replace(self, version: int, tensors: Sequence[tuple[str, Tensor]]) -> float:
        async with self._hold():
            started = time.perf_counter()
            with torch.no_grad():
                replaced = [self._put(name, tensor) for name, tensor in tensors]
            self._version = version
            seconds = time.perf_counter() - started
        # Giving a gigabyte back to the operating system takes a while, and nobody has to wait for it.
        await asyncio.to_thread(_forget, replaced)
        return seconds

    def _put(self, name: str, tensor: Tensor) -> Tensor | None:
        """Where it can be used as it lies, it is, and what it replaces is returned; otherwise it is copied."""
        owner, _, leaf = name.rpartition(".")
        parameter = self._module.get_submodule(owner)._parameters.get(leaf)
        if parameter is not None and (parameter.dtype, parameter.device) == (tensor.dtype, tensor.device):
            replaced: Tensor = parameter.data
            parameter.data = tensor
            return replaced
        self._module.get_submodule(owner).state_dict()[leaf].copy_(tensor)
        return None

    async def logprobs(self, ids: Sequence[int]) -> tuple[float, ...]:
        """Log-prob of each token after the first."""
        async with self._hold():
            return await asyncio.to_thread(self._reader.prompt_logprobs, ids)

    async def checksum(self) -> int | None:
        """Of all weights, those with two names once. They change by pushes alone, so sampling goes on meanwhile."""
        unique = {tensor.data_ptr(): tensor for tensor in self._module.state_dict().values()}
        return await asyncio.to_thread(total_checksum, unique.values())

    async def close(self) -> None:
        """Let the trainer go."""
        self._inbox.close()

    @contextlib.asynccontextmanager
    async def _hold(self) -> AsyncIterator[None]:
        """The model between two steps."""
        self._is_wanted.set()
        async with self._between_steps:
            self._is_wanted.clear()
            yield


def _forget(tensors: list[Tensor | None]) -> None:
    tensors.clear()
    give_back_freed()


def _marked(stop_ids: Sequence[int], module: Any) -> Tensor:
    stop_V = torch.zeros(module.get_output_embeddings().weight.shape[0], dtype=torch.bool, device=module.device)
    stop_V[list(stop_ids)] = True
    return stop_V
