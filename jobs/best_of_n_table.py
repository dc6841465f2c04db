"""Best-of-N of a PRM over fixed candidates: what the best of N, the votes, and luck would have given.

All on the same samples. For N below the number of candidates, best-of-N and pass@N are exact expectations over all
subsets of size N; votes are means over subsets drawn with a fixed seed. An answer is never replaced by the gold one
before a vote, which would leak it. Behind `primectl evaluate-prm`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jobs.candidates import CandidateRow
from prime.errors import DataError
from prime.maths.aggregation import aggregates
from prime.maths.selection import best_of, pass_at, voted
from prime.ports import AnswerGrouper, Scorer, Verifier
from prime.scoring import CandidateScore, ScoringRequest, StepValue
from prime.types import GradeItem, ReferenceSource

_AGGREGATIONS = ("sum", "mean", "min", "last")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPrompt:
    """One prompt: which candidates are right, their answers' classes, and their score under every reading.

    Example: `ScoredPrompt(correct_M=[True, False], classes=(0, 1), scores={"reference/delta/min": [0.2, -0.1], ...})`.
    """

    correct_M: Tensor
    classes: tuple[int, ...] | None
    """None when nobody tells which answers are equal."""
    scores: dict[str, Tensor]
    """[M] by reading: `reference` or `bare`, `delta` or `cumulative`, and the aggregation."""


async def score_prompts(
    rows: Sequence[CandidateRow],
    scorer: Scorer,
    *,
    verifier: Verifier | None,
    grouper: AnswerGrouper | None,
    on_progress: Callable[[int], None],
) -> list[ScoredPrompt]:
    """Score every candidate with and without the reference, from two passes.

    Raises:
        DataError: nothing says which candidates are right.
    """
    prompts = []
    for number, row in enumerate(rows, start=1):
        scores: dict[str, Tensor] = {}
        for name, reference in (("reference", None), ("bare", ReferenceSource.NONE)):
            request = ScoringRequest(prompt=row.prompt, candidates=row.candidates, reference=reference)
            scores |= _readings(name, (await scorer.score(request)).candidates)
        texts = [candidate.text or "" for candidate in row.candidates]
        classes = (await grouper.group_answers(texts)).classes if grouper is not None else None
        prompts.append(ScoredPrompt(correct_M=await _correct(row, texts, verifier), classes=classes, scores=scores))
        on_progress(number)
    return prompts


def tabulate(prompts: Sequence[ScoredPrompt], *, seed: int = 0) -> dict[str, Any]:
    """Means and standard errors over the prompts, for N = 1, 2, 4, ... up to the fewest candidates of any prompt.

    Raises:
        DataError: there is no prompt.
    """
    if not prompts:
        raise DataError("there is no prompt to evaluate on")
    most = min(len(prompt.correct_M) for prompt in prompts)
    sizes = [2**power for power in range(most.bit_length()) if 2**power <= most]
    votes = all(prompt.classes is not None for prompt in prompts)
    table: dict[str, Any] = {"prompts": len(prompts), "n": sizes}
    table["pass_at_n"] = [_mean([pass_at(prompt.correct_M, size) for prompt in prompts]) for size in sizes]
    if votes:
        table["majority"] = [_mean([_vote(prompt, size, None, seed) for prompt in prompts]) for size in sizes]
    table["readings"] = {
        name: {
            "best_of_n": [
                _mean([best_of(prompt.scores[name], prompt.correct_M, size) for prompt in prompts]) for size in sizes
            ]
        }
        | (
            {"weighted": [_mean([_vote(prompt, size, name, seed) for prompt in prompts]) for size in sizes]}
            if votes
            else {}
        )
        for name in prompts[0].scores
    }
    return table


def _vote(prompt: ScoredPrompt, size: int, reading: str | None, seed: int) -> float:
    scores_M = None if reading is None else prompt.scores[reading]
    return voted(prompt.classes or (), prompt.correct_M, size, scores_M=scores_M, seed=seed)


def _readings(name: str, candidates: Sequence[CandidateScore]) -> dict[str, Tensor]:
    found: dict[str, list[float]] = {}
    for candidate in candidates:
        for step_value in StepValue:
            values_S = torch.tensor(
                [step.cumulative if step_value is StepValue.CUMULATIVE else step.reward for step in candidate.steps],
                dtype=torch.float64,
            )
            totals = aggregates(values_S[None], torch.ones(1, len(values_S), dtype=torch.bool), probabilities=False)
            for aggregation in _AGGREGATIONS:
                found.setdefault(f"{name}/{step_value.value}/{aggregation}", []).append(float(totals[aggregation]))
    return {reading: torch.tensor(values, dtype=torch.float64) for reading, values in found.items()}


async def _correct(row: CandidateRow, texts: Sequence[str], verifier: Verifier | None) -> Tensor:
    if row.outcomes:
        return torch.tensor([outcome == 1.0 for outcome in row.outcomes])
    if not row.ground_truth or verifier is None:
        raise DataError(f"{row.where}: nothing says which candidates are right; `correct` or `ground_truth` is needed")
    items = [
        GradeItem(
            item_id=row.row_id,
            data_source="",
            ability="math",
            kind="math",
            response=text,
            ground_truth=row.ground_truth,
        )
        for text in texts
    ]
    return torch.tensor([verdict.score == 1.0 for verdict in await verifier.grade(items)])


def _mean(values: Sequence[float]) -> dict[str, float]:
    values_P = torch.tensor(values, dtype=torch.float64)
    error = float(values_P.std() / math.sqrt(len(values))) if len(values) > 1 else float("nan")
    return {"mean": round(float(values_P.mean()), 4), "stderr": round(error, 4) if len(values) > 1 else 0.0}
