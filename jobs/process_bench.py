"""ProcessBench (arXiv 2412.06559): can a PRM name the first wrong step? Behind `primectl evaluate-prm`.

A row is {"problem": text, "steps": [text], "label": index of the first wrong step, or -1}. The prediction is the first
step whose value lies below a threshold: the sigmoid of the reward summed up to its end, as ImplicitPRM's script has it.
The threshold is tuned on one file and used for the others.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prime.data.problems import read_rows
from prime.errors import DataError
from prime.ports import Scorer
from prime.scoring import Candidate, Prompt, ScoringRequest

NO_ERROR = -1
_MOST_THRESHOLDS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A solution with its first wrong step: `Problem(question="...", steps=("...", "..."), label=1)`."""

    question: str
    steps: tuple[str, ...]
    label: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """What a PRM says of a solution's steps: `Located(values=(0.51, 0.47), label=1)`."""

    values: tuple[float, ...]
    """Per step, in (0, 1)."""
    label: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchScore:
    """Accuracy on wrong and on right solutions, and their harmonic mean."""

    erroneous: float
    correct: float
    f1: float


def read_problems(path: Path) -> list[Problem]:
    """All rows of a file.

    Raises:
        DataError: the file or a row cannot be used; names the row.
    """
    return [_problem(row, f"{path}, row {number}") for number, row in enumerate(read_rows(path), start=1)]


async def locate(problems: Sequence[Problem], scorer: Scorer, on_progress: Callable[[int], None]) -> list[Located]:
    """The value of every step."""
    found = []
    for number, problem in enumerate(problems, start=1):
        request = ScoringRequest(prompt=Prompt(text=problem.question), candidates=(Candidate(steps=problem.steps),))
        [candidate] = (await scorer.score(request)).candidates
        if len(candidate.steps) != len(problem.steps):
            raise DataError(f"problem {number}: a step has no token of its own, so its value is not known")
        values = tuple(1 / (1 + math.exp(-step.cumulative)) for step in candidate.steps)
        found.append(Located(values=values, label=problem.label))
        on_progress(number)
    return found


def predict(values: Sequence[float], threshold: float) -> int:
    """Index of the first step below the threshold; -1: none is.

    Example: values (0.51, 0.47, 0.6) with threshold 0.5 give 1.
    """
    return next((index for index, value in enumerate(values) if value < threshold), NO_ERROR)


def measure(located: Sequence[Located], threshold: float) -> BenchScore:
    """ProcessBench's score. A file without wrong (or without right) solutions has 0 there."""
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for each in located:
        hits[each.label == NO_ERROR].append(predict(each.values, threshold) == each.label)
    correct, erroneous = (sum(part) / len(part) if part else 0.0 for part in (hits[True], hits[False]))
    both = correct + erroneous
    return BenchScore(erroneous=erroneous, correct=correct, f1=2 * correct * erroneous / both if both else 0.0)


def tune(located: Sequence[Located]) -> float:
    """The threshold with the largest F1; of several the smallest.

    Raises:
        DataError: there is nothing to tune on.
    """
    values = sorted({value for each in located for value in each.values})
    if not values:
        raise DataError("there is nothing to tune a threshold on")
    stride = max(1, len(values) // _MOST_THRESHOLDS)
    # Above the largest value everything is wrong from its first step on.
    thresholds = [*values[::stride], math.nextafter(values[-1], math.inf)]
    return max(thresholds, key=lambda threshold: (measure(located, threshold).f1, -threshold))


def _problem(row: Mapping[str, Any] | str, where: str) -> Problem:
    if isinstance(row, str):
        raise DataError(row)
    question, steps, label = row.get("problem"), row.get("steps"), row.get("label")
    if not isinstance(question, str) or not question.strip():
        raise DataError(f"{where}: column 'problem' must be text, and not empty")
    if not isinstance(steps, list) or not steps or not all(isinstance(step, str) and step.strip() for step in steps):
        raise DataError(f"{where}: column 'steps' must be a list of texts, none of them empty")
    if isinstance(label, bool) or not isinstance(label, int) or not NO_ERROR <= label < len(steps):
        raise DataError(f"{where}: column 'label' must be -1 or the index of a step, below {len(steps)}; got {label!r}")
    return Problem(question=question, steps=tuple(steps), label=label)
