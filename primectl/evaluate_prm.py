"""`primectl evaluate-prm`: best-of-N tables from fixed candidates, and ProcessBench."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from jobs.best_of_n_table import score_prompts, tabulate
from jobs.candidates import CandidateRow, read_candidates
from jobs.process_bench import locate, measure, read_problems, tune
from prime.adapters.settings import load_settings
from prime.errors import DataError, SettingsError
from prime.ports import GroupingVerifier, Scorer
from primectl.display import Display
from primectl.scorers import ScorerOptions, open_scorer
from primectl.verifiers import open_verifier_of
from services.verifier.settings import VerifierSettings


def run_evaluate_prm(
    asked: ScorerOptions,
    *,
    candidates: Sequence[Path],
    process_bench: Sequence[Path],
    tune_on: Path | None,
    votes: bool,
    min_tier: str,
) -> int:
    """Evaluate; the last line of the output is a JSON object."""
    if not candidates and not process_bench:
        raise SettingsError("there is nothing to evaluate on: give --candidates FILE or --process-bench FILE")
    if process_bench and tune_on is None:
        raise SettingsError("--process-bench needs --tune-on FILE: a threshold tuned on the test itself flatters")
    display = Display()

    async def work() -> dict[str, Any]:
        async with (
            open_scorer(asked) as scorer,
            _open_verifier(min_tier, wanted=votes and bool(candidates)) as verifier,
        ):
            info = await scorer.info()
            report: dict[str, Any] = {
                "model": info.model_id,
                "reference_id": info.reference_id,
                "beta": info.config.beta,
                "default": f"reference/{info.config.step_value}/{info.config.aggregation}",
                "best_of_n": {},
                "process_bench": {},
            }
            for path in candidates:
                report["best_of_n"][path.name] = await _best_of_n(path, scorer, verifier, display)
            if tune_on is not None and process_bench:
                report["process_bench"] = await _process_bench(process_bench, tune_on, scorer, display)
            return report

    report = asyncio.run(work())
    for name, table in report["best_of_n"].items():
        _show_best_of_n(display, name, table, report["default"])
    if report["process_bench"]:
        _show_process_bench(display, report["process_bench"])
    print(json.dumps(report))
    return 0


@contextlib.asynccontextmanager
async def _open_verifier(min_tier: str, *, wanted: bool) -> AsyncIterator[GroupingVerifier | None]:
    if not wanted:
        yield None
        return
    settings = load_settings(VerifierSettings, None, [f"min_tier={min_tier}"])
    async with open_verifier_of("", None, settings, "evaluate-prm") as verifier:
        yield verifier


async def _best_of_n(path: Path, scorer: Scorer, verifier: GroupingVerifier | None, display: Display) -> dict[str, Any]:
    rows: list[CandidateRow] = []
    for row in read_candidates(path):
        if isinstance(row, DataError):
            raise row
        rows.append(row)
    with display.bar(path.name, len(rows)) as bar:
        prompts = await score_prompts(
            rows,
            scorer,
            verifier=verifier,
            grouper=verifier,
            on_progress=lambda done: bar.update(done, "", every=max(1, len(rows) // 10)),
        )
    return tabulate(prompts)


async def _process_bench(paths: Sequence[Path], tune_on: Path, scorer: Scorer, display: Display) -> dict[str, Any]:
    threshold = tune(await locate(read_problems(tune_on), scorer, lambda done: None))
    found: dict[str, Any] = {"tuned_on": tune_on.name, "threshold": threshold, "files": {}}
    for path in paths:
        found["files"][path.name] = await _process_bench_file(path, threshold, scorer, display)
    found["mean_f1"] = round(sum(each["f1"] for each in found["files"].values()) / len(found["files"]), 4)
    return found


async def _process_bench_file(path: Path, threshold: float, scorer: Scorer, display: Display) -> dict[str, Any]:
    problems = read_problems(path)
    with display.bar(path.name, len(problems)) as bar:
        located = await locate(problems, scorer, lambda done: bar.update(done, "", every=max(1, len(problems) // 10)))
    score = measure(located, threshold)
    return {
        "erroneous": round(score.erroneous, 4),
        "correct": round(score.correct, 4),
        "f1": round(score.f1, 4),
        "problems": len(located),
    }


def _show_best_of_n(display: Display, name: str, table: dict[str, Any], default: str) -> None:
    shown = Table(title=f"{name}: {table['prompts']} prompts, accuracy by N")
    shown.add_column("")
    for size in table["n"]:
        shown.add_column(str(size), justify="right")
    lines = {"pass@N": table["pass_at_n"]} | ({"majority": table["majority"]} if "majority" in table else {})
    for reading, columns in table["readings"].items():
        mark = " (default)" if reading == default else ""
        lines[f"best of N, {reading}{mark}"] = columns["best_of_n"]
        if "weighted" in columns:
            lines[f"weighted, {reading}{mark}"] = columns["weighted"]
    for title, cells in lines.items():
        shown.add_row(title, *(f"{cell['mean']:.3f}" for cell in cells))
    display.console.print(shown)


def _show_process_bench(display: Display, found: dict[str, Any]) -> None:
    shown = Table(title=f"ProcessBench, threshold {found['threshold']:.4f} tuned on {found['tuned_on']}")
    for heading in ("", "wrong solutions", "right solutions", "F1"):
        shown.add_column(heading, justify="right" if heading else "left")
    for name, score in found["files"].items():
        shown.add_row(name, *(f"{score[key]:.3f}" for key in ("erroneous", "correct", "f1")))
    display.console.print(shown)
