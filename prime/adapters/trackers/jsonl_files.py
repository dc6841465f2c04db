"""The run's own record: `metrics.jsonl` and `evaluation.jsonl` in the run folder. Always on; all others are extras."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prime.adapters.trackers.translation import translated
from prime.errors import DataError
from prime.files import write_file
from prime.tracking import EVALUATIONS, METRICS, Entry, Outcome, TrackedRun


class JsonlTracker:
    """One line per step and per evaluation, written when it is given."""

    name = "jsonl"

    @translated(name)
    def start(self, run: TrackedRun) -> str:
        """Forget the lines of `run.first_step` and later: a resumed run takes these steps again."""
        self._folder = run.folder
        for name, key in ((METRICS, "step"), (EVALUATIONS, "version")):
            file = run.folder / name
            if file.is_file():
                lines = file.read_text(encoding="utf-8").splitlines()
                kept = [line for line in lines if _number_of(line, key) < run.first_step]
                write_file(file, "".join(f"{line}\n" for line in kept))
        return str(run.folder / METRICS)

    @translated(name)
    def log_step(self, row: Mapping[str, float]) -> None:
        """One line."""
        self._append(METRICS, row)

    @translated(name)
    def log_evaluation(self, row: Mapping[str, Any]) -> None:
        """One point of the curve."""
        self._append(EVALUATIONS, row)

    def finish(self, outcome: Outcome) -> None:
        """Nothing is held back."""

    def entries(self) -> list[Entry]:
        """All that is written; see `read_entries`."""
        return read_entries(self._folder)

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        with (self._folder / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(row)) + "\n")


def read_entries(folder: Path) -> list[Entry]:
    """Steps and evaluations of a run folder by number, an evaluation after the step of its version.

    The run may still go on: a last line that is not whole is left out.

    Raises:
        DataError: another line is no JSON object, or has no number.
    """
    files = ((folder / METRICS, "step", False), (folder / EVALUATIONS, "version", True))
    entries = [entry for file, key, is_evaluation in files for entry in _entries_of(file, key, is_evaluation)]
    return sorted(entries, key=lambda each: (each.number, each.is_evaluation))


def _entries_of(file: Path, key: str, is_evaluation: bool) -> Iterator[Entry]:
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.is_file() else []
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line.endswith("\n"):
            return
        try:
            row = json.loads(line)
            yield Entry(number=int(row[key]), is_evaluation=is_evaluation, row=row)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{file}, row {number}: is no object with a number {key!r} ({error}); take the line out"
            ) from None


def _number_of(line: str, key: str) -> float:
    """The step of a line; a line that a crash tore belongs to no step that counts."""
    try:
        return float(json.loads(line)[key])
    except (ValueError, KeyError, TypeError):
        return float("inf")
