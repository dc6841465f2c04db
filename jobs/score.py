"""Scores a file of candidates: rows in, scores out in the same order. Behind `primectl score`."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TextIO

from jobs.candidates import CandidateRow
from prime.errors import DataError, InvalidInput
from prime.ports import Scorer
from prime.scoring import Aggregation, ScoringReply, ScoringRequest, Truncation


@dataclass(slots=True, kw_only=True)
class ScoreReport:
    """What came of a file."""

    rows: int = 0
    candidates: int = 0
    response_tokens: int = 0
    faults: list[str] = field(default_factory=list)
    """What was wrong with rows that could not be scored."""
    best_is_right: list[bool] = field(default_factory=list)
    """Per row with outcomes that differ: whether the highest score is on a candidate with the highest outcome."""


async def score_rows(
    rows: Iterable[CandidateRow | DataError],
    scorer: Scorer,
    out: TextIO | None,
    *,
    aggregation: Aggregation | None,
    truncation: Truncation,
    on_progress: Callable[[ScoreReport], None],
) -> ScoreReport:
    """Score all rows; to `out` goes one JSON object per row. A row that cannot be scored costs itself alone."""
    report = ScoreReport()
    for row in rows:
        line: dict[str, Any]
        try:
            if isinstance(row, DataError):
                raise row
            line = await _score(row, scorer, report, aggregation, truncation)
        except InvalidInput as error:
            report.faults.append(str(error) if isinstance(row, DataError) else f"{row.where}: {error}")
            line = {"row": report.rows + 1, "error": str(error)}
        report.rows += 1
        if out is not None:
            out.write(json.dumps(line) + "\n")
        on_progress(report)
    return report


async def _score(
    row: CandidateRow,
    scorer: Scorer,
    report: ScoreReport,
    aggregation: Aggregation | None,
    truncation: Truncation,
) -> dict[str, Any]:
    reply = await scorer.score(
        ScoringRequest(prompt=row.prompt, candidates=row.candidates, aggregation=aggregation, truncation=truncation)
    )
    scores = [candidate.score for candidate in reply.candidates]
    best = max(range(len(scores)), key=lambda number: scores[number])
    report.candidates += len(scores)
    report.response_tokens += reply.usage.response_tokens
    if len(set(row.outcomes)) > 1:
        report.best_is_right.append(row.outcomes[best] == max(row.outcomes))
    return {"row": report.rows + 1, "id": row.row_id, "scores": scores, "best": best} | _details(reply)


def _details(reply: ScoringReply) -> dict[str, Any]:
    return {
        "steps": [[step.reward for step in candidate.steps] for candidate in reply.candidates],
        "truncated": [candidate.truncated for candidate in reply.candidates],
        "aggregation": reply.aggregation,
        "beta": reply.beta,
        "prm_version": reply.prm_version,
        "reference_id": reply.reference_id,
    }
