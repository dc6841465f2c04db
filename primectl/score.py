"""`primectl score`: scores a file of candidates, here or by a running service, and prints a report."""

import asyncio
import io
import json
import time
from pathlib import Path
from typing import Any

from jobs.candidates import read_candidates
from jobs.score import ScoreReport, score_rows
from prime.scoring import Aggregation, Truncation
from primectl.display import Display
from primectl.scorers import ScorerOptions, open_scorer
from primectl.written import refuse_existing, written

_FAULTS_SHOWN = 10
_ROWS_SHOWN = 20


class _FirstLines(io.StringIO):
    """Keeps as many rows as are shown where no file is wanted."""

    rows = 0

    def write(self, text: str) -> int:
        """Take a row, or let it go."""
        self.rows += 1
        return super().write(text) if self.rows <= _ROWS_SHOWN else len(text)


def run_score(
    path: Path,
    *,
    asked: ScorerOptions,
    out: Path | None,
    aggregation: str | None,
    truncation: str,
    as_json: bool,
) -> int:
    """Score the file; 0 when every row was scored, 1 when some could not be."""
    refuse_existing(out)
    display = Display(quiet=as_json)
    total = sum(1 for _ in read_candidates(path))
    started = time.monotonic()

    first = _FirstLines()

    async def work() -> tuple[ScoreReport, dict[str, Any]]:
        async with open_scorer(asked) as scorer:
            info = await scorer.info()
            about = {"model": info.model_id, "prm_version": info.prm_version, "reference_id": info.reference_id}
            with written(out) as lines, display.bar("score", total) as bar:
                report = await score_rows(
                    read_candidates(path),
                    scorer,
                    first if lines is None else lines,
                    aggregation=Aggregation(aggregation) if aggregation else None,
                    truncation=Truncation(truncation),
                    on_progress=lambda done: bar.update(
                        done.rows, f"{done.candidates} candidates", every=max(1, total // 10)
                    ),
                )
            return report, about

    report, about = asyncio.run(work())
    summary = about | _summary(report, time.monotonic() - started)
    if as_json:
        print(json.dumps(summary))
    else:
        _print(display, summary, report, out)
        if out is None:
            _print_scores(display, first.getvalue(), rows=report.rows)
    return 1 if report.faults else 0


def _summary(report: ScoreReport, seconds: float) -> dict[str, Any]:
    known = report.best_is_right
    return {
        "rows": report.rows,
        "candidates": report.candidates,
        "response_tokens": report.response_tokens,
        "not_scored": len(report.faults),
        "best_is_right": sum(known) / len(known) if known else None,
        "rows_with_outcomes": len(known),
        "seconds": round(seconds, 3),
    }


def _print(display: Display, summary: dict[str, Any], report: ScoreReport, out: Path | None) -> None:
    display.say(
        f"{summary['candidates']} candidates of {summary['rows']} rows in {summary['seconds']:.1f} s by "
        f"{summary['model']}, version {summary['prm_version']}"
    )
    if summary["best_is_right"] is not None:
        display.say(
            f"the best score is on a best candidate in {summary['best_is_right']:.3f} of the "
            f"{summary['rows_with_outcomes']} rows whose outcomes differ"
        )
    for fault in report.faults[:_FAULTS_SHOWN]:
        display.say(f"not scored: {fault}")
    if out is not None:
        display.say(f"scores: {out}")


def _print_scores(display: Display, lines: str, *, rows: int) -> None:
    for line in lines.splitlines():
        row = json.loads(line)
        if "scores" in row:
            scores = "  ".join(
                f"{score:.4f}{'*' if number == row['best'] else ''}" for number, score in enumerate(row["scores"])
            )
            display.say(f"row {row['row']}: {scores}")
    more = f"; {rows - _ROWS_SHOWN} rows more" if rows > _ROWS_SHOWN else ""
    display.say(f"* the best of its row{more}. --out FILE keeps all, with their steps")
