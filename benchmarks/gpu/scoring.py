"""Speed of PRM scoring as it is served (weights in bfloat16): prompts shared, row by row, and padded in transformers.

A PRM and its reference, several prompts with candidates each. The three ways take turns, so that all see the same card.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.gpu import untrained
from benchmarks.gpu.job import Figures, Job, matmul_rate, peak_gib, seconds_of
from benchmarks.prm_pair import Shape
from benchmarks.prm_plain import padded_logprobs
from prime.lm.model import CausalLM
from prime.lm.packing import TokenRow
from prime.lm.proof import MOST_NOISE
from prime.maths.agreement import mean_gap
from prime.types import PrmGroup

_TOKEN_BUDGET = 16384
_MOST_ROUNDS = 10


def run(job: Job, name: str) -> Figures:
    """Tokens per second of all three ways, and how far apart their answers are."""
    shape, device = job.shape(name), job.device
    prompts, candidates, length = job.size(4, 2), job.size(8, 3), job.size(512, 16)
    ends_at = time.monotonic() + job.seconds
    rate = matmul_rate(job)
    with tempfile.TemporaryDirectory() as folder:
        untrained.write_folder(Path(folder), shape)
        ours = [
            CausalLM(Path(folder), device=device, dtype=torch.bfloat16, load=untrained.loader(device, seed=seed))
            for seed in (1, 2)
        ]
        plain = [
            untrained.loader(device, seed=seed)(Path(folder), dtype=torch.bfloat16, attention=None, empty=False).eval()
            for seed in (1, 2)
        ]
    groups = _draw(prompts, candidates, length, shape=shape)
    rows = [TokenRow(prompt_ids=group.prompt_ids, response_ids=ids) for group in groups for ids in group.responses]

    def packed(token_budget: int) -> list[Tensor]:
        return [row for lm in ours for row in lm.score_rows(rows, token_budget=token_budget)]

    def padded() -> list[Tensor]:
        return [row.float().cpu() for module in plain for group in groups for row in padded_logprobs(module, group)]

    ways: Mapping[str, Callable[[], list[Tensor]]] = {
        "prompt_shared": lambda: packed(_TOKEN_BUDGET),
        "row_by_row": lambda: packed(1),
        "padded_transformers": padded,
    }
    answers = {way: score() for way, score in ways.items()}
    spent: dict[str, list[float]] = {way: [] for way in ways}
    while len(spent["padded_transformers"]) < 2 or (
        len(spent["padded_transformers"]) < job.size(_MOST_ROUNDS, 2)
        and time.monotonic() + sum(each[-1] for each in spent.values()) < ends_at
    ):
        for way, score in ways.items():
            spent[way].append(seconds_of(score, device))
    seconds = {way: statistics.median(each) for way, each in spent.items()}
    tokens = prompts * candidates * length
    work = 2 * _operations(shape, prompts=prompts, candidates=candidates, length=length)
    gaps = {way: _gap(answers["prompt_shared"], answers[way]) for way in ("row_by_row", "padded_transformers")}
    return {
        **{f"{way}_tokens_per_second": round(tokens / each, 1) for way, each in seconds.items()},
        "faster_than_row_by_row": round(seconds["row_by_row"] / seconds["prompt_shared"], 2),
        "faster_than_padded": round(seconds["padded_transformers"] / seconds["prompt_shared"], 2),
        "share_of_matmul_rate": round(work / seconds["prompt_shared"] / rate, 4),
        "mean_gap_to_row_by_row": round(gaps["row_by_row"], 5),
        "mean_gap_to_padded": round(gaps["padded_transformers"], 5),
        "prompts": prompts,
        "candidates": candidates,
        "prompt_tokens": length,
        "response_tokens": length,
        "rounds": len(spent["prompt_shared"]),
        "peak_gib": peak_gib(device),
        "problems": _problems(ours, gaps),
    }


def _problems(lms: Sequence[CausalLM], gaps: Mapping[str, float]) -> list[str]:
    slow = [f"rows were computed one by one: {lm.slow_because}" for lm in lms if lm.slow_because]
    most = MOST_NOISE["bfloat16"]
    return slow[:1] + [f"{way} is {gap:.2g} nats off on average" for way, gap in gaps.items() if not gap <= most]


def _draw(prompts: int, candidates: int, length: int, *, shape: Shape) -> list[PrmGroup]:
    ids = untrained.draw_ids(prompts * (1 + candidates), length, shape=shape, seed=0)
    size = 1 + candidates
    return [
        PrmGroup(
            group_id=str(number),
            prompt_ids=ids[number * size],
            responses=tuple(ids[number * size + 1 : (number + 1) * size]),
        )
        for number in range(prompts)
    ]


def _operations(shape: Shape, *, prompts: int, candidates: int, length: int) -> float:
    """Of one model's scores: layers on every token once, the head on response tokens; attention itself is left out."""
    tokens = prompts * (1 + candidates) * length
    return 2.0 * (tokens * shape.body_parameters + prompts * candidates * length * shape.hidden * shape.vocabulary)


def _gap(some: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    return mean_gap(torch.cat(list(some)).tolist(), torch.cat(list(others)).tolist())
