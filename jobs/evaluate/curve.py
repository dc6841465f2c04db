"""The accuracy of runs against the step, from the evaluations that their trainers made. Behind `primectl curve`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.evaluate.page import html_table, page, plot
from jobs.evaluate.report import with_interval
from prime.errors import CheckpointError, DataError
from prime.evaluation.intervals import Estimate
from prime.tracking import EVALUATIONS

Curves = dict[str, dict[str, dict[int, Estimate]]]
"""avg@k by set, run and step."""


def read_curves(runs: Sequence[Path]) -> Curves:
    """The curves of run folders; a run is named by its folder.

    Raises:
        CheckpointError: a folder holds no evaluation.
        DataError: two folders have one name.
    """
    if len({run.name for run in runs}) < len(runs):
        raise DataError("two of the runs have the same name, so their curves could not be told apart")
    curves: Curves = {}
    for run in runs:
        file = run / EVALUATIONS
        if not file.is_file():
            raise CheckpointError(f"{run} holds no {EVALUATIONS}: set trainer.evaluation.problems or .sets of the run")
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            for name, found in row["sets"].items():
                if found["average"] is not None:
                    steps = curves.setdefault(name, {}).setdefault(run.name, {})
                    steps[int(row["version"])] = Estimate(**found["average"])
    return curves


def curve_page(curves: Curves) -> str:
    """One HTML file: a plot per set with a line per run, and the figures."""
    body: list[str] = ["<p>Share of right samples (avg@k) against the step, with 95 % intervals over problems.</p>"]
    for name, by_run in curves.items():
        body += [f"<h2>{name}</h2>", plot(name, "step", by_run), html_table(curve_rows(by_run))]
    return page(" and ".join(sorted({run for by_run in curves.values() for run in by_run})), body)


def curve_rows(by_run: dict[str, dict[int, Estimate]]) -> list[list[str]]:
    """A heading, and a row per step that any of the runs was measured at."""
    steps = sorted({step for curve in by_run.values() for step in curve})
    return [
        ["step", *by_run],
        *([str(step), *(with_interval(each.get(step)) for each in by_run.values())] for step in steps),
    ]


def curve_json(curves: Curves) -> dict[str, Any]:
    """First and last point of every curve."""
    return {
        name: {
            run: {"first": round(curve[min(curve)].mean, 4), "last": round(curve[max(curve)].mean, 4)}
            for run, curve in by_run.items()
        }
        for name, by_run in curves.items()
    }
