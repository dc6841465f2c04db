"""Reads files of candidates: prompts with several responses, and what is known of them. For scoring, PRM training
and evaluation alike.

A row is JSON or parquet; columns that are not named here are left alone. The responses are in one of `responses`,
`completions`, `candidates` (lists) or `response` (one text), the prompt in `prompt` (text or messages) or `messages`:

    {"prompt": "What is 7 * 8?", "responses": ["56", "54"]}
    {"prompt": ..., "completions": ["...56.", "...54."], "correctness": [true, false]}       ImplicitPRM's rollouts
    {"prompt": ..., "completions": ["7 * 8 = 54", "So it is 54."], "labels": [false, false]}  TRL's stepwise rows

In the last form the completions are the steps of one response, and there is a label per step.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prime.data.problems import read_rows
from prime.errors import DataError
from prime.scoring import Candidate, Prompt

_RESPONSES = ("responses", "completions", "candidates", "response")
_OUTCOMES = ("correctness", "correct")


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateRow:
    """One prompt with its candidates.

    Example: `CandidateRow(where="rollouts.jsonl, row 3", row_id="3", prompt=Prompt(text="What is 7 * 8?"),
    candidates=(Candidate(text="56"), Candidate(text="54")), outcomes=(1.0, 0.0))`.
    """

    where: str
    """For messages: the file and the row."""
    row_id: str
    prompt: Prompt
    candidates: tuple[Candidate, ...]
    outcomes: tuple[float, ...] = ()
    """Per candidate, in [0, 1]; empty when nothing is known."""
    step_labels: tuple[float, ...] = ()
    """Per step of the only candidate, in [0, 1]."""
    ground_truth: str = ""


def read_candidates(path: Path) -> Iterator[CandidateRow | DataError]:
    """The rows of a `.jsonl` or `.parquet` file; in place of one that cannot be used, what is wrong with it.

    Raises:
        DataError: the file does not exist, or is of another kind.
    """
    for number, row in enumerate(read_rows(path), start=1):
        try:
            if isinstance(row, str):
                raise DataError(row)
            yield parse_candidates(row, f"{path}, row {number}", str(number))
        except DataError as error:
            yield error


def parse_candidates(row: Mapping[str, Any], where: str, row_id: str) -> CandidateRow:
    """One row.

    Raises:
        DataError: a column is missing, or does not fit the others; names it.
    """
    column = next((name for name in _RESPONSES if row.get(name) is not None), None)
    if column is None:
        raise DataError(f"{where}: no column with responses; one of {', '.join(_RESPONSES)} is needed")
    responses = _texts(row[column], f"{where}: column {column!r}")
    outcome_column = next((name for name in _OUTCOMES if row.get(name) is not None), None)
    labels: tuple[float, ...] = ()
    outcomes: tuple[float, ...] = ()
    candidates = tuple(Candidate(text=text) for text in responses)
    if outcome_column is not None:
        outcomes = _labels(row[outcome_column], len(responses), f"{where}: column {outcome_column!r}")
    elif row.get("labels") is not None:
        labels = _labels(row["labels"], len(responses), f"{where}: column 'labels'")
        candidates = (Candidate(steps=tuple(responses)),)
    return CandidateRow(
        where=where,
        row_id=str(row_id if row.get("id") is None else row["id"]),
        prompt=_prompt(row, where),
        candidates=candidates,
        outcomes=outcomes,
        step_labels=labels,
        ground_truth=_ground_truth(row),
    )


def _prompt(row: Mapping[str, Any], where: str) -> Prompt:
    value = row.get("messages") if row.get("messages") is not None else row.get("prompt")
    if isinstance(value, str) and value.strip():
        return Prompt(text=value)
    if isinstance(value, Sequence) and value and all(isinstance(turn, Mapping) for turn in value):
        return Prompt(messages=tuple(dict(turn) for turn in value))
    raise DataError(f"{where}: column 'prompt' must be text or a list of messages, and not empty")


def _texts(value: Any, where: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, Sequence) or not texts or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{where} must be a list of texts, and not empty")
    empty = next((place for place, text in enumerate(texts) if not text.strip()), None)
    if empty is not None:
        raise DataError(f"{where}: entry {empty} is empty")
    return list(texts)


def _labels(value: Any, count: int, where: str) -> tuple[float, ...]:
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if len(values) != count:
        raise DataError(f"{where} has {len(values)} entries for {count} texts")
    if not all(isinstance(each, bool | int | float) and 0 <= each <= 1 and math.isfinite(each) for each in values):
        raise DataError(f"{where} must hold true, false or numbers from 0 to 1")
    return tuple(float(each) for each in values)


def _ground_truth(row: Mapping[str, Any]) -> str:
    inside = row.get("reward_model")
    value = inside.get("ground_truth") if isinstance(inside, Mapping) else row.get("ground_truth", row.get("answer"))
    return value if isinstance(value, str) else ""
