"""An evaluation on disk: what identifies it, every sample, every verdict. Whatever is there is never made again.

    evaluation.json   who answered, how it was sampled, which sets; checked when an evaluation goes on
    samples.jsonl     a line per sample, appended as they come
    graded.jsonl      a line per problem: outcomes, classes of equal answers, scores; its last line counts
    report.*          the figures

A line is appended whole; what a kill left of a half one is cut off when the folder is opened.
"""

import dataclasses
import json
import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TextIO

from prime.errors import CheckpointError, PrimeError, SettingsError
from prime.evaluation.outcomes import GradedProblem, Outcome
from prime.evaluation.policies import Answer
from prime.files import hold
from prime.types import VersionSpan

IDENTITY, SAMPLES, GRADED = "evaluation.json", "samples.jsonl", "graded.jsonl"
_FREE = ("sets", "greedy", "contamination")
"""What may grow when an evaluation goes on."""


class EvaluationFolder:
    """The folder of one evaluation, held by one process at a time; a context manager."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Open it, or make it.

        Raises:
            InUse: another process works with it.
            SettingsError: it belongs to an evaluation with other settings.
            CheckpointError: it holds something else, or its files cannot be read.
        """
        self.path = path
        if path.exists() and not (path / IDENTITY).is_file() and any(path.iterdir()):
            raise CheckpointError(f"{path} is not the folder of an evaluation, and not empty; choose another output")
        path.mkdir(parents=True, exist_ok=True)
        self._lock = hold(
            path / "lock",
            complaint=f"another process ({{pid}}) works with {path}; wait for it, or choose another output",
        )
        try:
            self.identity = _settled(path / IDENTITY, identity)
            self._read()
        except PrimeError:
            self._lock.close()
            raise
        self._writing = threading.Lock()
        self._samples_file = (path / SAMPLES).open("a", encoding="utf-8")
        self._graded_file = (path / GRADED).open("a", encoding="utf-8")

    def _read(self) -> None:
        self._answers: dict[str, dict[int, Answer]] = defaultdict(dict)
        for row in _whole_lines(self.path / SAMPLES):
            answer = _answer(row)
            self._answers[row["problem_id"]][answer.number] = answer
        self._graded = {row["problem_id"]: _graded(row) for row in _whole_lines(self.path / GRADED)}

    def __enter__(self) -> Self:
        """It is open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave it to others."""
        for file in (self._samples_file, self._graded_file, self._lock):
            file.close()

    def answers(self, problem_id: str) -> Mapping[int, Answer]:
        """The samples of a problem by number."""
        return self._answers.get(problem_id, {})

    def graded(self, problem_id: str) -> GradedProblem | None:
        """What became of them, where that is known."""
        return self._graded.get(problem_id)

    def add_answers(self, problem_id: str, answers: Sequence[Answer]) -> None:
        """Keep new samples; on disk when this returns, as far as a kill of this process goes."""
        rows = [{"problem_id": problem_id, **dataclasses.asdict(answer)} for answer in answers]
        self._append(self._samples_file, rows)
        self._answers[problem_id] |= {answer.number: answer for answer in answers}

    def add_graded(self, graded: GradedProblem) -> None:
        """Keep what became of a problem's samples, in place of what was known of them."""
        self._append(self._graded_file, [dataclasses.asdict(graded)])
        self._graded[graded.problem_id] = graded

    def _append(self, file: TextIO, rows: Sequence[Mapping[str, Any]]) -> None:
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        with self._writing:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())


def read_evaluation(path: Path) -> tuple[dict[str, Any], dict[str, GradedProblem]]:
    """Identity and graded problems of a folder, for reports and comparisons; nothing is held or changed.

    Raises:
        CheckpointError: there is no evaluation.
    """
    try:
        identity = json.loads((path / IDENTITY).read_text(encoding="utf-8"))
        text = (path / GRADED).read_text(encoding="utf-8")
        # An evaluation may be under way: its last line is whole once its end is there.
        rows = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    except FileNotFoundError:
        raise CheckpointError(f"{path} is not the folder of an evaluation: it has no {IDENTITY} and {GRADED}") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: the evaluation cannot be read: {error}") from None
    return identity, {row["problem_id"]: _graded(row) for row in rows}


def _settled(file: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The identity that is kept from now on. Sets and samples may be added; all else must be as it was."""
    if file.is_file():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            raise CheckpointError(f"{file} cannot be read; choose another output") from None
        for name in sorted({*before, *identity} - set(_FREE)):
            if before.get(name) != identity.get(name):
                raise SettingsError(
                    f"{file.parent} holds an evaluation with another {name}: {json.dumps(before.get(name))}, now "
                    f"{json.dumps(identity.get(name))}. Choose another output, or the same settings"
                )
        identity = {**identity, "sets": _both(before["sets"], identity["sets"], file)}
    unfinished = file.with_name(f".{file.name}")
    unfinished.write_text(json.dumps(identity, indent=2), encoding="utf-8")
    unfinished.replace(file)
    return dict(identity)


def _both(before: Mapping[str, Any], now: Mapping[str, Any], file: Path) -> dict[str, Any]:
    for name in before.keys() & now.keys():
        if before[name]["sha256"] != now[name]["sha256"]:
            raise SettingsError(f"{file.parent} holds an evaluation on another file of {name}; choose another output")
    return {**before, **now}


def _whole_lines(file: Path) -> Iterable[dict[str, Any]]:
    """The rows of a file; a last line without its end is cut off, on disk too."""
    if not file.is_file():
        return
    with file.open("rb+") as lines:
        end = 0
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                lines.truncate(end)
                return
            end += len(line)
            try:
                yield json.loads(line)
            except ValueError:
                raise CheckpointError(f"{file}, line {number} cannot be read; it was changed by hand") from None


def _answer(row: Mapping[str, Any]) -> Answer:
    fields = {name: row[name] for name in ("number", "text", "truncated", "num_tokens", "refusal")}
    return Answer(**fields, spans=tuple(VersionSpan(**span) for span in row["spans"]))


def _graded(row: Mapping[str, Any]) -> GradedProblem:
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    return GradedProblem(**fields | {"outcomes": tuple(map(Outcome, row["outcomes"]))})
