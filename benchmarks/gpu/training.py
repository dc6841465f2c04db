"""Memory and speed of the trainer's forward, backward and optimiser step, at the shapes of Qwen2.5.

Rows are as long as the trainer's default limits allow: prompts of 1,024 tokens and responses of 3,072. Each has a
prompt of its own. The settings are the trainer's defaults if these fit into the card's memory. If not, the first of
these that fits: recomputed activations; LoRA with it, if peft is installed; as many layers as fit with it.
"""

import gc
import importlib.util
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu import untrained
from benchmarks.gpu.job import GIB, Figures, Job, matmul_rate, peak_gib, seconds_of
from benchmarks.prm_pair import Shape
from benchmarks.training import peak_gib as recomputed_gib
from prime.lm.compute import Compute
from prime.lm.model import CausalLM
from prime.lm.packing import Pack, TokenRow
from prime.lm.training import Optimiser

_PROMPT, _RESPONSE = 1024, 3072
_TOKEN_BUDGET = 16384
_LORA_RANK, _LR = 32, 5e-7
_PACKS, _MOST_STEPS = 4, 10
# Of the card's memory: the rest is for CUDA itself, and for holes between tensors.
_USABLE = 0.92


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Settings to train a shape with: `Way(name="defaults", shape=..., compute=Compute.on(device), gib=34.0)`."""

    name: str
    shape: Shape
    compute: Compute
    gib: float
    """What it should take at most."""


def run(job: Job, name: str) -> Figures:
    """One shape, in the first way that fits."""
    ways = ways_of(job.shape(name), dtype="bfloat16", has_peft=importlib.util.find_spec("peft") is not None)
    room = torch.cuda.mem_get_info(job.device)[0] / GIB if job.device.type == "cuda" else None
    return first_that_fits(fit(ways, room), lambda way: measure_way(way, job))


def first_that_fits(ways: Sequence[Way], measure: Callable[[Way], Figures]) -> Figures:
    """What `measure` found for the first way that does not run out of memory; `not_taken` names those before.

    Raises:
        OutOfMemoryError: there is none.
    """
    passed_over: list[str] = []
    for way in ways:
        try:
            return {**measure(way), "not_taken": "; ".join(passed_over) or None}
        except torch.OutOfMemoryError:
            passed_over.append(f"{way.name} ran out of memory")
        gc.collect()  # a sharded module refers to itself
        torch.cuda.empty_cache()
    raise torch.OutOfMemoryError(f"no way to train it fits: {'; '.join(passed_over) or 'all need more memory'}")


def ways_of(shape: Shape, *, dtype: str, has_peft: bool, tokens: int = _TOKEN_BUDGET) -> list[Way]:
    """Ways to train a shape, the best first; those with fewer layers at the end."""
    plain = Compute(dtype=dtype)  # type: ignore[arg-type]
    slim = replace(plain, recompute=True)
    least = recomputed_gib(shape, tokens=tokens)
    # Twelve of sixteen bytes a weight are its gradient and moments, which frozen weights do not have.
    frozen = max(least - 12 * shape.parameters / GIB, 8 * shape.parameters / GIB)
    ways = [
        Way(name="defaults", shape=shape, compute=plain, gib=least + _kept_gib(shape, tokens)),
        Way(name="recompute", shape=shape, compute=slim, gib=least),
    ]
    if has_peft:
        lora = replace(slim, lora_rank=_LORA_RANK)
        ways.append(Way(name=f"recompute, LoRA of rank {_LORA_RANK}", shape=shape, compute=lora, gib=frozen))
    for layers in range(shape.layers - 1, 0, -1):
        cut = replace(shape, layers=layers)
        title = f"recompute, {layers} of {shape.layers} layers"
        ways.append(Way(name=title, shape=cut, compute=slim, gib=recomputed_gib(cut, tokens=tokens)))
    return ways


def fit(ways: list[Way], room_gib: float | None) -> list[Way]:
    """Those that should fit into so much memory; all where nobody counts it."""
    return [way for way in ways if room_gib is None or way.gib <= _USABLE * room_gib]


def _kept_gib(shape: Shape, tokens: int) -> float:
    """What backward needs of all layers beyond each layer's input: see `benchmarks.training.peak_gib`."""
    return tokens * shape.layers * (16 * shape.hidden + 4 * shape.hidden * 2 + 4 * shape.inner * 2) / GIB


def operations(shape: Shape, *, prompt: int, response: int, is_frozen: bool = False) -> float:
    """Multiplications and additions of forward and backward over one row, without those that are done again.

    6 per weight and token: 2 forward, 2 to the layer below, 2 to the weight, which frozen ones do without. The head is
    needed where a response token is predicted. Attention adds 12 per layer, entry of the hidden state and pair of
    tokens, half of which a causal mask leaves (Chowdhery et al., arXiv 2204.02311, appendix B).
    """
    length = prompt + response
    per_weight = 4 if is_frozen else 6
    weights = shape.body_parameters * length + shape.hidden * shape.vocabulary * response
    return float(per_weight * weights + 6 * shape.layers * shape.hidden * length * length)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Times:
    """Seconds, and what the optimiser reported."""

    steps: list[float]
    passes: list[float]
    updates: list[float]
    norms: list[float]


def measure_way(way: Way, job: Job) -> Figures:
    """Tokens per second, MFU and memory of this way."""
    prompt, response = job.size(_PROMPT, 16), job.size(_RESPONSE, 48)
    device, shape, budget = job.device, way.shape, job.size(_TOKEN_BUDGET, 256)
    ends_at = time.monotonic() + job.seconds
    rate = matmul_rate(job)
    with tempfile.TemporaryDirectory() as folder:
        untrained.write_folder(Path(folder), shape)
        lm = CausalLM(Path(folder), device=device, compute=way.compute, load=untrained.loader(device, seed=0))
    loading_gib = peak_gib(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    ids = untrained.draw_ids(_PACKS * (budget // (prompt + response)), prompt + response, shape=shape, seed=0)
    rows = [TokenRow(prompt_ids=row[:prompt], response_ids=row[prompt:]) for row in ids]
    packs = list(lm.packs(rows, token_budget=budget))
    times = _learn(lm, packs, most=job.size(_MOST_STEPS, 2), ends_at=ends_at)
    seconds, of_pass = statistics.median(times.steps), statistics.median(times.passes)
    work = len(rows) * operations(shape, prompt=prompt, response=response, is_frozen=way.compute.lora_rank > 0)
    problems = [f"rows were computed one by one: {lm.slow_because}"] if lm.slow_because else []
    if not all(map(math.isfinite, times.norms)):
        problems.append(f"gradient norms are {times.norms}")
    return {
        "settings": way.name,
        "parameters": shape.parameters,
        "tokens_per_second": round(len(rows) * (prompt + response) / seconds, 1),
        "mfu": round(work / seconds / rate, 4),
        "mfu_without_update": round(work / len(packs) / of_pass / rate, 4),
        "peak_gib": peak_gib(device),
        "computed_gib": round(way.gib, 1),
        "peak_while_loading_gib": loading_gib,
        "seconds_per_pass": round(of_pass, 4),
        "seconds_per_update": round(statistics.median(times.updates), 4),
        "tokens_per_pass": len(packs[0].ids_N),
        "passes_per_step": len(packs),
        "context": prompt + response,
        "steps": len(times.steps),
        "matmul_teraflops": round(rate / 1e12, 3),
        "problems": problems,
    }


def _learn(lm: CausalLM, packs: Sequence[Pack], *, most: int, ends_at: float) -> _Times:
    """Steps until it is late, at least two, after a short one that warms up."""
    optimiser = Optimiser(lm, lr=_LR, grad_clip=1.0)
    num_tokens = sum(len(pack.chosen_R) for pack in packs)

    def learn(pack: Pack) -> None:
        (-lm.logprobs(pack).logprobs_N.sum() / num_tokens).backward()  # type: ignore[no-untyped-call]

    learn(packs[0])
    times = _Times(steps=[], passes=[], updates=[], norms=[optimiser.step()])
    while len(times.steps) < 2 or (len(times.steps) < most and time.monotonic() + times.steps[-1] < ends_at):
        passes = [seconds_of(partial(learn, pack), lm.device) for pack in packs]
        update = seconds_of(lambda: times.norms.append(optimiser.step()), lm.device)
        times.passes.extend(passes)
        times.updates.append(update)
        times.steps.append(sum(passes) + update)
    return times
