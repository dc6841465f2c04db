"""Tokens per second through the rollout service over raw vLLM: `make bench-rollout`, in vLLM's environment.

Raw is vLLM's own offline `LLM` with the service's engine flags and the same prompts, seeds and sampling parameters.
Through the service the same requests go over Redis to a replica process, which holds weights that were pushed over
gRPC, and come back as groups with log-probs and version spans. Both take turns. The last line is one JSON object.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import give_vllm_all_cores, machine
from benchmarks.prm_pair import Shape, write_model
from prime.adapters.grpc_clients import GrpcRollout
from prime.adapters.redis_queue import RedisQueue
from prime.adapters.settings import settle_vllm_environment
from prime.lm.model import load_module, load_tokenizer, stop_token_ids
from prime.types import RolloutGroup, RolloutRequest, SamplingParams
from primectl.config import RunConfig
from primectl.stack import local_stack
from services.trainer.outgoing import OutgoingWeights, Probe

_GOALS = {"service_vs_raw": 0.97}
_FLAGS = {"dtype": "float32", "max_context": 512, "max_groups": 64, "kv_cache_gib": 2.0}
_PROBE_IDS = (5, 9)
# A head of its own, as vLLM is started with one and a push always names it. The vocabulary is that of Llama 2: with
# Qwen's 151,936, drawing from it would be most of a CPU's work, and hide what the service adds.
_SHAPE = Shape(hidden=512, layers=6, heads=8, groups=2, inner=2048, tied=False, vocabulary=32_000)


def main() -> None:
    """Sample in turns, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=64)
    arguments = parser.parse_args()
    settle_vllm_environment(on_gpu=torch.cuda.is_available())
    give_vllm_all_cores()  # both sides
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(Path(folder) / "model", _SHAPE, seed=0)
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        raw = context.Process(target=_serve_raw, args=(model, theirs))
        raw.start()
        try:
            ours.recv()
            report = asyncio.run(_measure(arguments, model, Path(folder), ours))
        finally:
            ours.send(None)
            raw.join()
    sizes = {key: value for key, value in vars(arguments).items() if key != "rounds"}
    model_name = f"Qwen2, {_SHAPE.body_parameters / 1e6:.0f}M weights in {_SHAPE.layers} layers"
    print(json.dumps({**report, **sizes, "model": model_name, "goals": _GOALS, "machine": machine()}))


def _requests(arguments: argparse.Namespace, number: int) -> list[RolloutRequest]:
    draw = random.Random(number)
    return [
        RolloutRequest(
            group_id=f"{number}.{each}",
            problem_id=str(each),
            attempt=0,
            prompt_ids=tuple(draw.randrange(300, _SHAPE.vocabulary) for _ in range(arguments.prompt_tokens)),
            num_samples=arguments.samples,
            sampling=SamplingParams(temperature=1.0, top_p=1.0, max_tokens=arguments.max_tokens),
            seed=draw.getrandbits(60),
            min_version=0,
        )
        for each in range(arguments.prompts)
    ]


# ---------------------------------------------------------------- raw


def _serve_raw(model: Path, pipe: Connection) -> None:
    """vLLM in a process of its own; answers requests with tokens and seconds until it gets None."""
    from vllm import LLM
    from vllm import SamplingParams as VllmParams
    from vllm.inputs import tokens_input

    from services.rollout.vllm_engine import engine_arguments, sampling_arguments

    llm = LLM(**engine_arguments(model, **_FLAGS))  # type: ignore[arg-type]
    stop_ids = stop_token_ids(model, load_tokenizer(model))
    pipe.send("ready")
    while (requests := pipe.recv()) is not None:
        started = time.perf_counter()
        outputs = llm.generate(
            [tokens_input(list(request.prompt_ids)) for request in requests],
            [VllmParams(**sampling_arguments(request, stop_ids)) for request in requests],
            use_tqdm=False,
        )
        tokens = sum(len(completion.token_ids) for output in outputs for completion in output.outputs)
        pipe.send((tokens, time.perf_counter() - started))
    llm.llm_engine.engine_core.shutdown()  # or its process is waited for at exit, for ever


# ---------------------------------------------------------------- through the service


async def _measure(arguments: argparse.Namespace, model: Path, folder: Path, raw: Connection) -> dict[str, Any]:
    config = RunConfig.model_validate(
        {
            "run": {"name": "bench", "folder": str(folder / "runs"), "model": str(model)},
            "trainer": {"problems": "none", "steps": 1, "mode": "generate"},
            "rollout": {"engine": "vllm", **_FLAGS},
            "verifier": {"min_tier": "B"},
        }
    )
    raw_rates, service_rates, same = [], [], []
    async with local_stack(config) as stack:
        run = stack.config.run
        token = run.token_file.read_text().strip()
        replica = GrpcRollout(stack.config.trainer.peers.rollout[0], token, deadline_s=120.0)
        await _push(replica, model)
        async with RedisQueue(run.redis_url, run=run.name, consumer="trainer") as queue:
            for number in range(arguments.rounds + 1):
                requests = _requests(arguments, number)
                raw.send(requests)
                raw_tokens, raw_seconds = await asyncio.to_thread(raw.recv)
                groups, seconds = await _through_the_service(queue, requests)
                tokens = sum(group.num_response_tokens for group in groups)
                if number:  # the first warms both up
                    raw_rates.append(raw_tokens / raw_seconds)
                    service_rates.append(tokens / seconds)
                    same.append(tokens / raw_tokens)
                    print(json.dumps({"raw": raw_rates[-1], "service": service_rates[-1]}), flush=True)
        await replica.close()
    ratios = [service / bare for service, bare in zip(service_rates, raw_rates, strict=True)]
    return {
        "service_vs_raw": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "tokens_per_second": {
            "service": round(statistics.median(service_rates), 1),
            "raw": round(statistics.median(raw_rates), 1),
        },
        "tokens_service_vs_raw": round(statistics.median(same), 4),
    }


async def _push(replica: GrpcRollout, model: Path) -> None:
    tensors = list(load_module(model, dtype=torch.float32, attention="sdpa").state_dict().items())
    probe = Probe(ids=_PROBE_IDS, logprobs=(-1.0,), max_gap=1e9)
    outgoing = OutgoingWeights(0, tensors, [], probe=probe, base=None, keep_base=False)
    await replica.push(outgoing.manifest(as_delta=False), outgoing.full(), outgoing.digest)


async def _through_the_service(
    queue: RedisQueue, requests: Sequence[RolloutRequest]
) -> tuple[list[RolloutGroup], float]:
    started = time.perf_counter()
    await queue.ask(requests)
    groups: list[RolloutGroup] = []
    while len(groups) < len(requests):
        claims = await queue.take(64, 0.5)
        for claim in claims:
            if not isinstance(claim.item, RolloutGroup):
                raise RuntimeError(f"a request failed: {claim.item.reason}")
            groups.append(claim.item)
        await queue.acknowledge(claims)
    return groups, time.perf_counter() - started


if __name__ == "__main__":
    main()
