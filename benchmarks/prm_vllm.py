"""The same candidates through vLLM's `prompt_logprobs`, in vLLM's own environment; started by `benchmarks.prm`.

Prints one JSON object: seconds per round, and the reward sums, by which the caller sees that the same was computed.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import give_vllm_all_cores
from benchmarks.prm_pair import draw_group
from prime.adapters.settings import settle_vllm_environment
from prime.types import PrmGroup


def main() -> None:
    """Score with both models, one engine after the other as the memory of a small machine wants it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prm", type=Path, required=True)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--candidates", type=int, required=True)
    parser.add_argument("--prompt", type=int, required=True)
    parser.add_argument("--response", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--beta", type=float, required=True)
    arguments = parser.parse_args()
    settle_vllm_environment(on_gpu=False)
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # noqa: TID251  vLLM reads it from nowhere else
    give_vllm_all_cores()
    groups = [
        draw_group(candidates=arguments.candidates, prompt=arguments.prompt, response=arguments.response, seed=seed)
        for seed in range(1, arguments.rounds + 1)
    ]
    own_seconds, own = _pass(arguments.prm, groups)
    their_seconds, theirs = _pass(arguments.reference, groups)
    sums = [
        [arguments.beta * (mine - other) for mine, other in zip(*rows, strict=True)]
        for rows in zip(own, theirs, strict=True)
    ]
    seconds = [mine + other for mine, other in zip(own_seconds, their_seconds, strict=True)]
    print(json.dumps({"seconds": seconds, "reward_sums": sums}))


def _pass(folder: Path, groups: list[PrmGroup]) -> tuple[list[float], list[list[float]]]:
    """Seconds and summed response log-probs per group."""
    from vllm import LLM, SamplingParams

    engine = LLM(str(folder), dtype="float32", enforce_eager=True, max_model_len=1024, max_num_batched_tokens=8192)
    asked = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
    # Warm up with something small.
    engine.generate([{"prompt_token_ids": list(groups[0].prompt_ids)}], asked, use_tqdm=False)
    seconds, sums = [], []
    for group in groups:
        prompts: Any = [{"prompt_token_ids": [*group.prompt_ids, *response]} for response in group.responses]
        started = time.perf_counter()
        outputs = engine.generate(prompts, asked, use_tqdm=False)
        sums.append([_response_sum(output, group, row) for row, output in enumerate(outputs)])
        seconds.append(time.perf_counter() - started)
    return seconds, sums


def _response_sum(output: Any, group: PrmGroup, row: int) -> float:
    entries = output.prompt_logprobs[len(group.prompt_ids) :]
    return sum(float(entry[token].logprob) for entry, token in zip(entries, group.responses[row], strict=True))


if __name__ == "__main__":
    main()
