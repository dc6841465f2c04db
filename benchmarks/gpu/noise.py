"""How far apart the log-probs of right kernels are in bfloat16, on answers that the sampler gives.

One set of weights that bfloat16 holds exactly, so that only the products round. Random weights give every token about
the same probability, and then nothing differs; the temperature is chosen so that a token has an entropy of two nats,
like a trained model's. What it finds is the size of the noise, not that of a model at hand.
"""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import untrained
from benchmarks.gpu.job import Figures, Job
from prime.lm.compute import Compute
from prime.lm.model import CausalLM
from prime.lm.packing import TokenRow
from prime.lm.proof import MOST_NOISE
from prime.maths.agreement import mean_gap
from prime.maths.logprobs import logprobs_of_logits
from prime.types import RolloutRequest, SamplingParams
from services.rollout.decoding import Batch
from services.rollout.readers import choose_reader

_ENTROPY = 2.0
_SAMPLES = 4
_TOKEN_BUDGET = 16384
_NOISE_TIMES = 4.0
"""By how much of what rounding makes of the probe a replica may be off, as `services/trainer/publisher.py` has it."""


def run(job: Job) -> Figures:
    """Quantiles of |difference| to float32 of every kernel, in nats, and whether the limits of the push hold."""
    shape, device = job.shape("0.5B"), job.device
    prompts = untrained.draw_ids(job.size(8, 3), job.size(64, 8), shape=shape, seed=0)
    with tempfile.TemporaryDirectory() as name:
        folder = untrained.write_folder(Path(name), shape)
        load = untrained.loader(device, seed=0, rounded=True)
        module = load(folder, dtype=torch.float32, attention="eager", empty=False).eval()
        temperature = _temperature(module, prompts)
        half = load(folder, dtype=torch.bfloat16, attention=None, empty=False).eval()
        rows, sampled = _sample(half, prompts, temperature=temperature, most=job.size(64, 8))
        exact = _by_transformers(module, rows, temperature)
        found = {"sampler, step by step": sampled}
        for attention in ("eager", "sdpa"):
            half.set_attn_implementation(attention)
            found[f"transformers, {attention}"] = _by_transformers(half, rows, temperature)
        del half
        for dtype, title in (("bfloat16", "trainer, packed"), ("float32", "trainer in float32, packed")):
            compute = Compute(dtype=dtype)  # type: ignore[arg-type]
            lm = CausalLM(folder, device=device, compute=compute, load=load)
            found[title] = _joined(lm.score_rows(rows, token_budget=_TOKEN_BUDGET, temperature=temperature))
    rounding = mean_gap(found["transformers, eager"], found["trainer, packed"])
    replica = mean_gap(found["sampler, step by step"], found["trainer, packed"])
    problems = [
        f"{kernel} is {gap:.2g} nats off float32 on average"
        for kernel, values in found.items()
        if not (gap := mean_gap(values, exact)) <= MOST_NOISE["bfloat16"]
    ]
    if not replica <= _NOISE_TIMES * rounding:
        problems.append(
            f"sampler and trainer are {replica:.2g} nats apart, and a push allows {_NOISE_TIMES} times {rounding:.2g}"
        )
    return {
        "tokens": len(exact),
        "temperature": round(temperature, 4),
        "mean_gap_eager_to_trainer": float(f"{rounding:.3g}"),
        "mean_gap_sampler_to_trainer": float(f"{replica:.3g}"),
        "limit_of_a_push": float(f"{_NOISE_TIMES * rounding:.3g}"),
        "rows": [{"bfloat16 against float32": kernel, **_spread(values, exact)} for kernel, values in found.items()],
        "problems": problems,
    }


def _spread(values: Sequence[float], exact: Sequence[float]) -> dict[str, float]:
    gaps_N = (torch.tensor(values, dtype=torch.float64) - torch.tensor(exact, dtype=torch.float64)).abs()
    quantiles = dict(
        zip(("median", "p90", "p99"), gaps_N.quantile(torch.tensor([0.5, 0.9, 0.99]).double()).tolist(), strict=True)
    )
    spread = {"mean": float(gaps_N.mean()), **quantiles, "max": float(gaps_N.max())}
    return {name: float(f"{value:.3g}") for name, value in spread.items()}


@torch.no_grad()
def _by_transformers(module: Any, rows: Sequence[TokenRow], temperature: float) -> list[float]:
    """Row by row, in the module's dtype and by its attention."""
    found = []
    for row in rows:
        ids_T = torch.tensor([*row.prompt_ids, *row.response_ids], device=module.device)
        logits_TV = module(input_ids=ids_T[None], use_cache=False).logits[0, len(row.prompt_ids) - 1 : -1]
        chosen_T = ids_T[len(row.prompt_ids) :]
        found.append(logprobs_of_logits(logits_TV, chosen_T, temperature=temperature).logprobs_N)
    return _joined(found)


def _joined(rows: Sequence[Tensor]) -> list[float]:
    return list(torch.cat(list(rows)).tolist())


@torch.no_grad()
def _temperature(module: Any, prompts: Sequence[tuple[int, ...]]) -> float:
    """At which the mean entropy after these prompts is two nats, by halving an interval."""
    logits_PLV = module(input_ids=torch.tensor(prompts, device=module.device), use_cache=False).logits.float()
    logits_NV = logits_PLV[:, -8:].flatten(0, 1)
    any_N = torch.zeros(len(logits_NV), dtype=torch.long, device=module.device)
    low, high = 1e-3, 10.0
    for _ in range(40):
        middle = math.sqrt(low * high)
        entropy = float(logprobs_of_logits(logits_NV, any_N, temperature=middle).entropy_N.nan_to_num().mean())
        low, high = (low, middle) if entropy > _ENTROPY else (middle, high)
    return math.sqrt(low * high)


def _sample(
    module: Any, prompts: Sequence[tuple[int, ...]], *, temperature: float, most: int
) -> tuple[list[TokenRow], list[float]]:
    """Rows that the transformers engine samples, and the log-probs that it says they have."""
    reader, _ = choose_reader(module)
    stop_V = torch.zeros(module.get_output_embeddings().weight.shape[0], dtype=torch.bool, device=module.device)
    batch = Batch(reader, stop_V)
    sampling = SamplingParams(temperature=temperature, top_p=1.0, max_tokens=most)
    cohort = batch.join(
        [
            RolloutRequest(
                group_id=str(number),
                problem_id=str(number),
                attempt=0,
                prompt_ids=prompt,
                num_samples=_SAMPLES,
                sampling=sampling,
                seed=number,
                min_version=0,
            )
            for number, prompt in enumerate(prompts)
        ]
    )
    while batch.is_alive:
        batch.step(0)
    samples = [(group.prompt_ids, sample) for group in cohort.finished for sample in group.samples]
    rows = [TokenRow(prompt_ids=prompt, response_ids=sample.response_ids) for prompt, sample in samples]
    return rows, [logprob for _, sample in samples for logprob in sample.logprobs]
