"""The rollout engine on vLLM: continuous batching, weights exchanged under requests in flight.

Weights come only from pushes. The engine starts with random ones, so nothing can go on answering with what lay in the
model folder, and it refuses to sample before the first push.
"""

import asyncio
import contextlib
import itertools
import random
import shutil
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from prime.errors import EngineError, PrimeError, WeightPushError
from prime.lm.adapters import is_adapter, plain_name, rank_of
from prime.lm.inbox import transports_of
from prime.lm.model import load_tokenizer, stop_token_ids
from prime.lm.shared_memory import SharedMemory
from prime.types import (
    FinishReason,
    PushManifest,
    PushOffer,
    RolloutGroup,
    RolloutRequest,
    Sample,
    TensorSpec,
    VersionSpan,
)
from services.rollout.stops import StopStrings
from services.rollout.vllm_weights import BACKEND, fetch_order

_SEQUENCES_PER_GROUP = 8
_MOST_SEQUENCES = 512
_TOKENS_PER_STEP = 8192
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_UNTIED = {"tie_word_embeddings": False}
"""On CPU a tied head computes from a packed copy that an update of the embedding does not renew. A head of its own is
packed anew by every push, and pushes always name it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Where vLLM computes and what it may take: `Room(tensor_parallel=2, memory_share=0.9)`."""

    tensor_parallel: int = 1
    """GPUs over which the model is spread."""
    memory_share: float = 0.0
    """Of a GPU's memory, for weights and cache; 0: vLLM's own choice."""
    kv_cache_gib: float = 1.0
    """On a CPU alone."""


class VllmEngine:
    """Implements `Engine` (loop.py) on `AsyncLLM`; vLLM runs in processes of its own, started by `start`."""

    name = "vllm"

    def __init__(
        self,
        *,
        model: Path,
        dtype: str = "float32",
        max_context: int,
        max_groups: int,
        room: "Room" = Room(),
        lora_rank: int = 0,
    ) -> None:
        """`model` is a local Hugging Face folder: its configuration and tokenizer are used, its weights are not.

        `lora_rank`: of the largest adapters that pushes may bring beside the weights; 0: none.
        """
        self._model = model
        self.dtype = dtype
        self._lora_rank = lora_rank
        self.takes_adapters = lora_rank > 0
        self._adapter: Any = None
        """vLLM's request for the adapters that were pushed; None: weights alone were."""
        self._adapter_folder = Path(tempfile.gettempdir()) / f"prime-adapters-{uuid.uuid4().hex}"
        # What the trainer offers past gRPC is for one process to fetch.
        is_one = room.tensor_parallel == 1
        self.transports = transports_of("cpu" if _is_on_cpu() else "cuda") if is_one else ()
        self._arguments = engine_arguments(
            model, dtype=dtype, max_context=max_context, max_groups=max_groups, room=room, lora_rank=lora_rank
        )
        self._llm: Any = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._stop_ids: tuple[int, ...] = ()
        self._stops: StopStrings
        self._version: int | None = None
        self._broken = ""
        self._push_lock = asyncio.Lock()
        self._request_numbers = itertools.count()

    async def start(self) -> None:
        """Start vLLM's processes; takes half a minute and does not block the event loop.

        Raises:
            CheckpointError: the folder holds no model or no tokenizer.
            EngineError: vLLM cannot serve the model.
        """
        from vllm import SamplingParams

        tokenizer = load_tokenizer(self._model)
        self._stops = StopStrings(tokenizer)
        self._stop_ids = stop_token_ids(self._model, tokenizer)
        with _engine_errors(f"starting on {self._model}"):
            self._shapes = _pushed_shapes(self._model)
            self._llm = await asyncio.to_thread(self._build)
        # Some models fail only when they first compute, and vLLM compiles a little then: better here than in a push.
        params = SamplingParams(max_tokens=2, logprobs=0, prompt_logprobs=0, detokenize=False)
        try:
            await self._run("warm-up", (0, 0), params)
        except BaseException:
            await self.close()
            raise

    async def generate(self, requests: Sequence[RolloutRequest]) -> AsyncIterator[RolloutGroup]:
        """Groups in the order in which they finish.

        Raises:
            EngineError: vLLM broke, holds no pushed weights, or a push failed half-way.
        """
        self._require_weights()
        tasks = [asyncio.create_task(self._sample(request)) for request in requests]
        try:
            for finished in asyncio.as_completed(tasks):
                yield await finished
        finally:
            # vLLM drops the requests whose consumers are cancelled.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def load_weights(self, version: int, tensors: Sequence[tuple[TensorSpec, memoryview]]) -> float:
        """Exchange the weights; requests in flight wait and go on under the new ones.

        Once begun, it runs to its end even if the caller is cancelled: half-exchanged weights are of no use.

        Raises:
            WeightPushError: the tensors are not those of this model; nothing was changed.
            EngineError: vLLM broke.
        """
        self._require_started()
        self._check_complete(version, [spec for spec, _ in tensors])
        return await asyncio.shield(asyncio.create_task(self._exchange(version, tensors)))

    async def begin_fetch(self, manifest: PushManifest) -> None:
        """Have vLLM's process start to fetch what is offered; it goes on sampling.

        Raises:
            WeightPushError: the tensors are not those of this model; nothing was changed.
            EngineError: the offer cannot be reached, or vLLM broke.
        """
        assert manifest.offer is not None
        self._require_started()
        specs = [replace(manifest.tensors[number], name=name) for name, number in manifest.named.items()]
        self._check_complete(manifest.version, specs)
        with _engine_errors(f"fetching the weights of version {manifest.version}"):
            await self._order(fetch_order(manifest.offer, manifest.tensors))

    async def finish_fetch(self, manifest: PushManifest) -> None:
        """Wait until all is there and proven.

        Raises:
            EngineError: what came is not what was sent, or another push came between; nothing was changed.
        """
        assert manifest.offer is not None
        with _engine_errors(f"fetching the weights of version {manifest.version}"):
            await self._order({"key": manifest.offer.key})

    async def load_fetched(self, manifest: PushManifest) -> float:
        """As `load_weights`, with what was fetched; it runs to its end as well.

        Raises:
            EngineError: vLLM broke.
        """
        return await asyncio.shield(asyncio.create_task(self._load_fetched(manifest)))

    async def _load_fetched(self, manifest: PushManifest) -> float:
        async with self._push_lock:
            self._require_started()
            with _engine_errors(f"taking the weights of version {manifest.version}"):
                return await self._swap(manifest.version, list(manifest.named.items()))

    async def logprobs(self, ids: Sequence[int]) -> tuple[float, ...]:
        """Log-prob of each token after the first, under the weights in use, at temperature 1.

        Raises:
            EngineError: vLLM broke, or there is no room for one token after `ids`.
        """
        from vllm import SamplingParams

        self._require_weights()
        # vLLM never answers prompt log-probs from its prefix cache. One token has to be generated; it is dropped.
        params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        output = await self._run("probe", ids, params)
        return tuple(by_id[token].logprob for token, by_id in zip(ids[1:], output.prompt_logprobs[1:], strict=True))

    async def checksum(self) -> int | None:
        """None: vLLM packs weights for its kernels, and computes from that."""
        return None

    async def close(self) -> None:
        """End vLLM's processes."""
        llm, self._llm = self._llm, None
        if llm is not None:
            await asyncio.to_thread(llm.shutdown)
        shutil.rmtree(self._adapter_folder, ignore_errors=True)

    def _build(self) -> Any:
        from vllm import AsyncEngineArgs, envs
        from vllm.config import WeightTransferConfig
        from vllm.v1.engine.async_llm import AsyncLLM

        # Forking a process that runs gRPC's threads can hang the child.
        envs.VLLM_WORKER_MULTIPROC_METHOD = "spawn"
        weights = {"load_format": "dummy", "weight_transfer_config": WeightTransferConfig(backend=BACKEND)}
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**self._arguments, **weights))

    async def _sample(self, request: RolloutRequest) -> RolloutGroup:
        from vllm import SamplingParams

        params = SamplingParams(**sampling_arguments(request, self._stop_ids))
        output = await self._run(request.group_id, request.prompt_ids, params)
        return RolloutGroup(
            group_id=request.group_id,
            problem_id=request.problem_id,
            attempt=request.attempt,
            prompt_ids=request.prompt_ids,
            samples=tuple(self._cut(_sample_of(request.group_id, each), request) for each in output.outputs),
        )

    def _cut(self, sample: Sample, request: RolloutRequest) -> Sample:
        """Up to the first stop string: vLLM is given no tokenizer, so it does not look for them."""
        length = self._stops.length(sample.response_ids, request.sampling.stop)
        return sample if length is None else sample.first(length)

    async def _run(self, label: str, ids: Sequence[int], params: Any) -> Any:
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind

        params.output_kind = RequestOutputKind.FINAL_ONLY
        prompt = tokens_input(list(ids))
        # A group may come twice, after a lost lease; vLLM wants every request to have a name of its own.
        name = f"{label}#{next(self._request_numbers)}"
        with _engine_errors(f"sampling {label!r}"):
            answers = self._llm.generate(prompt, params, name, lora_request=self._adapter)
            (output,) = [output async for output in answers]
        self._require_started()  # what was sampled across a push that failed half-way is worth nothing
        return output

    async def _exchange(self, version: int, tensors: Sequence[tuple[TensorSpec, memoryview]]) -> float:
        async with self._push_lock:
            self._require_started()  # the push before this one may have failed
            with _engine_errors(f"taking the weights of version {version}"):
                shared = await asyncio.to_thread(SharedMemory, [content for _, content in tensors])
                with contextlib.closing(shared):
                    # Proven before they were put together; vLLM's process only has to map them.
                    key = uuid.uuid4().hex
                    offer = PushOffer(key=key, transport="ipc", place=shared.place(), checksums=(), deadline_s=0.0)
                    await self._order(fetch_order(offer, [spec for spec, _ in tensors]))
                    await self._order({"key": key})
                return await self._swap(version, [(spec.name, index) for index, (spec, _) in enumerate(tensors)])

    async def _order(self, info: dict[str, Any]) -> None:
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        await self._llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info=info))

    async def _swap(self, version: int, names: Sequence[tuple[str, int]]) -> float:
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        started = time.perf_counter()
        try:
            # Also drops every cached key and value: nothing that old weights computed is read under the new ones.
            # What is in flight keeps its tokens and is read in again.
            await self._llm.pause_generation(mode="keep")
            await self._llm.start_weight_update()
            has_adapters = any(is_adapter(name) for name, _ in names)
            info = {"names": list(names), "adapter": str(self._adapter_folder) if has_adapters else ""}
            await self._llm.update_weights(WeightTransferUpdateRequest(update_info=info))
            await self._llm.finish_weight_update(str(version))
            self._adapter = await self._load_adapter() if has_adapters else None
        except BaseException:
            self._broken = f"the push of version {version} failed half-way; restart this replica"
            raise
        finally:
            await self._llm.resume_generation()
        self._version = version
        return time.perf_counter() - started

    async def _load_adapter(self) -> Any:
        """Have vLLM take what lies in the folder in place of what it took from there before."""
        from vllm.lora.request import LoRARequest

        place = {"lora_name": "pushed", "lora_int_id": 1, "lora_path": str(self._adapter_folder)}
        await self._llm.add_lora(LoRARequest(**place, load_inplace=True))
        # Requests in flight go on with it: they name the same adapter.
        return LoRARequest(**place)

    def _check_complete(self, version: int, specs: Sequence[TensorSpec]) -> None:
        rank = rank_of({spec.name: spec.shape for spec in specs})
        if rank > self._lora_rank:
            raise WeightPushError(
                f"push of version {version}: adapters of rank {rank}, and rollout.lora_rank is {self._lora_rank}"
            )
        pushed = {plain_name(spec.name): spec.shape for spec in specs if not is_adapter(spec.name)}
        wrong = sorted(
            name for name in self._shapes.keys() | pushed.keys() if self._shapes.get(name) != pushed.get(name)
        )
        if wrong:
            name = wrong[0]
            raise WeightPushError(
                f"push of version {version}: {len(wrong)} tensors are not those of {self._model}, first {name!r}: "
                f"pushed {pushed.get(name, 'not at all')}, the model has {self._shapes.get(name, 'none')}; "
                "trainer and rollout must be given the same model, and a tied head must be pushed by name too"
            )

    def _require_started(self) -> None:
        if self._broken:
            raise EngineError(self._broken)
        if self._llm is None:
            raise EngineError("the vllm engine is not running; call start() first")

    def _require_weights(self) -> None:
        self._require_started()
        if self._version is None:
            raise EngineError("the vllm engine holds no weights yet; the trainer pushes them when it starts")


def engine_arguments(
    model: Path, *, dtype: str, max_context: int, max_groups: int, room: Room, lora_rank: int = 0, seed: int = 0
) -> dict[str, Any]:
    """How vLLM is started, but for where its weights come from."""
    adapters = {"enable_lora": True, "max_loras": 1, "max_lora_rank": _rank_of_vllm(lora_rank)} if lora_rank else {}
    return {
        "model": str(model),
        "dtype": dtype,
        "seed": seed,
        "max_model_len": max_context,
        "max_num_seqs": min(_SEQUENCES_PER_GROUP * max_groups, _MOST_SEQUENCES),
        "hf_overrides": _UNTIED,
        "skip_tokenizer_init": True,
        "generation_config": "vllm",  # no sampling defaults or end tokens from the model folder
        "logprobs_mode": "processed_logprobs",
        "disable_log_stats": True,
        "tensor_parallel_size": room.tensor_parallel,
        **adapters,
        **_platform_arguments(room, max_context),
    }


def _rank_of_vllm(rank: int) -> int:
    """The least of vLLM's ranks that has room for it."""
    return min(each for each in _LORA_RANKS if each >= rank)


def sampling_arguments(request: RolloutRequest, stop_ids: Sequence[int]) -> dict[str, Any]:
    """What vLLM is asked for: plain values of its `SamplingParams`."""
    return {
        "n": request.num_samples,
        "temperature": request.sampling.temperature,
        "top_p": request.sampling.top_p,
        "top_k": request.sampling.top_k or -1,
        "min_p": request.sampling.min_p,
        "max_tokens": request.sampling.max_tokens,
        # vLLM gives sample i the seed + i: spread, so that neighbouring seeds share no sample's stream.
        "seed": random.Random(request.seed).getrandbits(62),
        "stop_token_ids": [*stop_ids, *request.sampling.stop_token_ids],
        "logprobs": 0,  # the sampled token's only
        "detokenize": False,
    }


def _platform_arguments(room: Room, max_context: int) -> dict[str, Any]:
    """All that differs between CPU and GPU."""
    if not _is_on_cpu():
        return {"gpu_memory_utilization": room.memory_share} if room.memory_share else {}
    return {
        # Compiling takes minutes there, and by default the cache takes most of the machine's memory.
        "enforce_eager": True,
        "kv_cache_memory_bytes": int(room.kv_cache_gib * 2**30),
        # A prompt read in parts makes vLLM wind its sample's random stream back, which CPU generators cannot do: the
        # engine dies of it. So prompts are read whole, and a step has room for the longest.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(max_context, _TOKENS_PER_STEP),
    }


def _is_on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def _pushed_shapes(model: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a push has to bring, the output head always among them."""
    config = AutoConfig.from_pretrained(model, local_files_only=True, **_UNTIED)
    with torch.device("meta"):
        module = AutoModelForCausalLM.from_config(config)
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _sample_of(group_id: str, completion: Any) -> Sample:
    if completion.finish_reason not in ("stop", "length"):
        raise EngineError(f"vLLM ended a sample of group {group_id!r} with {completion.finish_reason!r}")
    if completion.weight_versions is None:
        raise EngineError("this vLLM does not tell which weights sampled a token; install the version that is pinned")
    ids = tuple(completion.token_ids)  # with the end token, where one was sampled
    return Sample(
        response_ids=ids,
        logprobs=tuple(by_id[token].logprob for token, by_id in zip(ids, completion.logprobs, strict=True)),
        spans=tuple(
            VersionSpan(version=int(span.version), length=span.end - span.start) for span in completion.weight_versions
        ),
        finish_reason=FinishReason(completion.finish_reason),
    )


@contextlib.contextmanager
def _engine_errors(doing: str) -> Iterator[None]:
    try:
        yield
    except PrimeError:
        raise
    except Exception as error:  # failed calls into vLLM's processes arrive as plain `Exception`
        raise EngineError(f"vLLM failed while {doing}: {error}") from error
