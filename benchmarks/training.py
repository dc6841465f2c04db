"""Memory and speed of a training step of the LM core: `make bench-training`.

One step is what policy and PRM do: packed rows forward and backward through the log-probs, then AdamW. Every shape runs
in a process of its own, in bfloat16 on a GPU and in float32 on a CPU. Its peak memory is set beside what the shape says
it must be. MFU counts 6 operations per weight and token, plus attention's (Chowdhery et al., arXiv 2204.02311, appendix
B; a causal mask halves them), and no recomputing; it is a share of what the device does in one large matrix product in
the same dtype. The last line is one JSON object.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import machine
from benchmarks.prm_pair import Shape, shape_of_half_billion, shape_of_seven_billion, write_model
from prime.lm.compute import Compute
from prime.lm.model import TILES, CausalLM
from prime.lm.packing import TokenRow
from prime.lm.training import Optimiser

SHAPES = {
    "0.5B": shape_of_half_billion(layers=24),
    "1.5B": Shape(hidden=1536, layers=28, heads=12, groups=2, inner=8960),
    "7B": shape_of_seven_billion(),
}
_GIB = 1024**3
_TILES = TILES["cuda"]
"""Of tokens and vocabulary whose logits exist at a time (`prime.maths.logprobs.chosen_logprobs`)."""


def main() -> None:
    """Compute the table, measure what this machine can hold, and print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=["0.5B", "1.5B"] if on_gpu else ["0.5B"])
    parser.add_argument("--tokens", type=int, default=16384 if on_gpu else 1024, help="per forward pass")
    parser.add_argument("--context", type=int, default=4096 if on_gpu else 512, help="tokens of a row")
    parser.add_argument("--steps", type=int, default=5 if on_gpu else 2, help="measured, after one to warm up")
    parser.add_argument("--offload", action="store_true", help="weights, gradients and moments in the machine's memory")
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    table = {name: _table_row(shape) for name, shape in SHAPES.items()}
    measured = {}
    for name in arguments.shapes:
        measured[name] = _in_own_process(name, arguments)
        print(json.dumps({name: measured[name]}), flush=True)
    device = torch.cuda.get_device_name() if on_gpu else machine()
    print(
        json.dumps({"measured": measured, "computed_gib_per_gpu": table, "device": device, "torch": torch.__version__})
    )


# ---------------------------------------------------------------- what a shape says


def peak_gib(shape: Shape, *, tokens: int, gpus: int = 1, dtype: str = "bfloat16") -> float:
    """Memory of a step per GPU, with recomputed activations and everything cut over `gpus`.

    Weights, gradients and the two moments are fp32, 16 bytes a weight. In bfloat16 a copy of the embedding and the head
    stays gathered for the step, with its gradient, and one layer's is beside it, twice, for the next one is fetched.
    """
    width = 2 if dtype == "bfloat16" else 4
    embeddings = shape.embedding_parameters
    state = 16 * shape.parameters / gpus
    gathered = 0.0
    if dtype == "bfloat16" or gpus > 1:
        gathered = (width + width) * embeddings + 2 * (width + width) * shape.body_parameters / shape.layers
    kept = tokens * shape.layers * shape.hidden * width
    # Of the layer that is computed again: fp32 inside both norms; their outputs, query and attention's output; and the
    # gate, its activation, the up projection and their product, with a gradient each.
    one_layer = tokens * (16 * shape.hidden + 4 * shape.hidden * width + 2 * 4 * shape.inner * width)
    # A tile of logits as the product gives it, in fp32, and as their gradient; and the head's gradient in fp32.
    tile = min(tokens, _TILES.tokens) * min(shape.vocabulary, _TILES.vocab)
    logits = tile * (width + 4 + 4) + 4 * shape.vocabulary * shape.hidden
    return (state + gathered + kept + max(one_layer, logits)) / _GIB


def _table_row(shape: Shape) -> dict[str, float]:
    """At 16,384 tokens per pass, as `token_budget` is by default; and what the plain logits of a pass would add."""
    row = {f"{gpus} GPU": round(peak_gib(shape, tokens=16384, gpus=gpus), 1) for gpus in (1, 2, 8)}
    plain = 16384 * shape.vocabulary * 4 * 4 / _GIB
    return {**row, "logits_not_in_tiles": round(plain, 1)}


def operations_per_token(shape: Shape, *, context: int) -> float:
    """Forward and backward."""
    weights = shape.body_parameters + shape.hidden * shape.vocabulary
    return 6 * weights + 6 * shape.layers * shape.hidden * context


# ---------------------------------------------------------------- what the machine says


def _in_own_process(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Its peak is then of this shape alone."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        child = context.Process(target=_measure, args=(name, arguments, Path(folder), theirs))
        child.start()
        theirs.close()
        try:
            found: dict[str, Any] = ours.recv()
        except EOFError:
            found = {"failed": "the process ended early; see its message above"}
        child.join()
    return found


def _measure(name: str, arguments: argparse.Namespace, folder: Path, pipe: Connection) -> None:
    shape = SHAPES[name]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    compute = replace(Compute.on(device), recompute=True, offload=arguments.offload, compile=arguments.compile)
    write_model(folder, shape, seed=0, dtype=torch.bfloat16)
    lm = CausalLM(folder, device=device, compute=compute)
    optimiser = Optimiser(lm, lr=1e-6, grad_clip=1.0)
    generator = torch.Generator().manual_seed(0)
    rows = [
        TokenRow(prompt_ids=tuple(ids[:16]), response_ids=tuple(ids[16:]))
        for ids in torch.randint(
            shape.vocabulary, (arguments.tokens // arguments.context, arguments.context), generator=generator
        ).tolist()
    ]

    def step() -> None:
        for pack in lm.packs(rows, token_budget=arguments.tokens):
            (-lm.logprobs(pack).logprobs_N.sum() / arguments.tokens).backward()
        optimiser.step()

    before = _peak_bytes(device)
    seconds = [_seconds(step, device) for _ in range(arguments.steps + 1)][1:]
    tokens = len(rows) * arguments.context
    operations = operations_per_token(shape, context=arguments.context) * tokens
    rate = _matmul_rate(device, getattr(torch, compute.dtype))
    pipe.send(
        {
            "tokens_per_second": round(tokens / statistics.median(seconds), 1),
            "mfu": round(operations / statistics.median(seconds) / rate, 3),
            "matmul_teraflops": round(rate / 1e12, 2),
            "peak_gib": round(_peak_bytes(device) / _GIB, 2),
            "peak_before_the_first_step_gib": round(before / _GIB, 2),
            "computed_gib": round(peak_gib(shape, tokens=tokens, dtype=compute.dtype), 2),
            "tokens": tokens,
            "context": arguments.context,
            "dtype": compute.dtype,
        }
    )


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of one large matrix product."""
    size = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = [_seconds(lambda: left @ right, device) for _ in range(10)]
    return 2 * size**3 / statistics.median(seconds[2:])


if __name__ == "__main__":
    main()
