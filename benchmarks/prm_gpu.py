"""`python -m benchmarks.prm_gpu`: how much of a GPU's matrix rate the scoring engine reaches. The last line is JSON.

A pair in the shape of Qwen2.5-7B in bfloat16, 16 candidates of 256 tokens to prompts of 256. The rate that it is held
against is measured in the same process, by the largest of the model's own matrix products. Needs torch and transformers
alone.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.prm_pair import (
    VOCABULARY,
    Shape,
    draw_group,
    shape_of_half_billion,
    shape_of_seven_billion,
    write_model,
)
from prime.lm.model import CausalLM, pick_device
from prime.lm.packing import TokenRow

_GOAL = 0.5
_MATMUL_ROUNDS = 30


def main() -> None:
    """Measure the matrix rate and the engine, and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=("7b", "0.5b"), default="7b")
    parser.add_argument("--prompts", type=int, default=4, help="prompts scored together")
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=256, help="tokens")
    parser.add_argument("--response", type=int, default=256, help="tokens")
    parser.add_argument("--token-budget", type=int, default=32768)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    shape = shape_of_seven_billion() if arguments.shape == "7b" else shape_of_half_billion(layers=24)
    device = pick_device(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        models = [
            CausalLM(
                write_model(Path(folder) / str(seed), shape, seed=seed, dtype=torch.bfloat16),
                device=device,
                dtype=torch.bfloat16,
            )
            for seed in (1, 2)
        ]
    rate = _matmul_rate(shape, device)
    seconds = _score(models, arguments)
    achieved = _operations(shape, arguments) / seconds
    candidates = arguments.prompts * arguments.candidates
    report = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else str(device),
        "torch": torch.__version__,
        "shape": arguments.shape,
        "candidates_per_second": round(candidates / seconds, 2),
        "matmul_tflops": round(rate / 1e12, 2),
        "achieved_tflops": round(achieved / 1e12, 2),
        "share_of_matmul_rate": round(achieved / rate, 3),
        "goal": _GOAL,
    }
    if device.type == "cuda":
        report["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    print(json.dumps(report))


def _score(models: list[CausalLM], arguments: argparse.Namespace) -> float:
    """Median seconds for both models over all candidates."""
    groups = [
        draw_group(candidates=arguments.candidates, prompt=arguments.prompt, response=arguments.response, seed=seed)
        for seed in range(arguments.prompts)
    ]
    rows = [
        TokenRow(prompt_ids=group.prompt_ids, response_ids=response) for group in groups for response in group.responses
    ]
    spent = []
    for _ in range(1 + arguments.rounds):  # the first round warms up
        started = time.perf_counter()
        for model in models:
            model.score_rows(rows, token_budget=arguments.token_budget)  # ends on the CPU, so nothing is still running
        spent.append(time.perf_counter() - started)
    return statistics.median(spent[1:])


def _operations(shape: Shape, arguments: argparse.Namespace) -> float:
    """Multiplications and additions that the scores need: layers on every token once, the head on response tokens.

    Attention itself is left out, which makes the achieved rate look smaller.
    """
    responses = arguments.prompts * arguments.candidates * arguments.response
    tokens = responses + arguments.prompts * arguments.prompt
    return 2.0 * 2.0 * float(tokens * shape.body_parameters + responses * shape.hidden * VOCABULARY)


def _matmul_rate(shape: Shape, device: torch.device) -> float:
    """Operations per second of the model's widest layer on 8192 tokens."""
    tokens = 8192
    left = torch.randn(tokens, shape.hidden, device=device, dtype=torch.bfloat16)
    right = torch.randn(shape.hidden, shape.inner, device=device, dtype=torch.bfloat16)
    spent = []
    for _ in range(_MATMUL_ROUNDS):
        started = time.perf_counter()
        (left @ right).sum().item()
        spent.append(time.perf_counter() - started)
    return 2.0 * tokens * shape.hidden * shape.inner / float(statistics.median(spent))


if __name__ == "__main__":
    main()
