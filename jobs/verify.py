"""Grades a file of answers: rows in, verdicts out in the same order, and a report. Behind `primectl verify`.

A row is a problem in the schema of Eurus-2-RL-Data with an answer beside it; the prompt is not needed:

    {"data_source": "taco", "ability": "code", "response": "...", "reward_model": {"ground_truth": "{...}"}}
    {"kind": "math", "response": "\\\\boxed{3.14}", "ground_truth": "\\\\pi", "options": ["two_decimals"], "id": "7"}

A row that cannot be read costs itself alone.
"""

import asyncio
import dataclasses
import itertools
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from prime.data.problems import read_rows
from prime.errors import DataError
from prime.ports import Verifier
from prime.types import GradeItem, Verdict, VerdictStatus

_PART = 32
_PARTS_AT_ONCE = 4
_KEYS = frozenset(
    (
        *("data_source", "ability", "kind", "response", "ground_truth", "reward_model", "options", "binary", "id"),
        *("prompt", "extra_info"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the file, and its item or what is wrong: `Row(number=3, item=None, fault="... is missing")`."""

    number: int
    item: GradeItem | None
    fault: str = ""


@dataclass(slots=True, kw_only=True)
class Report:
    """What came of a file."""

    statuses: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Rows by method (`math`, `code:stdin`, ...) and status; a row that cannot be read is `malformed`."""
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Rows by status and reason, without places."""
    faults: list[str] = field(default_factory=list)
    """What was wrong with the first rows that could not be graded, with their numbers."""
    scores: list[float] = field(default_factory=list)

    @property
    def mean_score(self) -> float | None:
        """Over the rows that have a score; None when none has."""
        return sum(self.scores) / len(self.scores) if self.scores else None

    def count(self, *statuses: str) -> int:
        """Rows with one of these statuses."""
        return sum(count for (_, status), count in self.statuses.items() if status in statuses)


_MOST_FAULTS = 10


def read_answers(path: Path) -> Iterator[Row]:
    """The rows of a `.jsonl` or `.parquet` file.

    Raises:
        DataError: the file does not exist or is of another kind. A row's own fault is in the row.
    """
    for number, row in enumerate(read_rows(path), start=1):
        if isinstance(row, str):
            yield Row(number=number, item=None, fault=row)
            continue
        try:
            yield Row(number=number, item=parse_answer(row, number))
        except DataError as error:
            yield Row(number=number, item=None, fault=f"row {number}: {error}")


def parse_answer(row: Mapping[str, Any], number: int) -> GradeItem:
    """The item of one row.

    Raises:
        DataError: a column is unknown, missing or of the wrong kind.
    """
    unknown = sorted(set(row) - _KEYS)
    if unknown:
        raise DataError(
            f"column {unknown[0]!r} is not known; known are {', '.join(sorted(_KEYS))}, of which `extra_info` may hold "
            "anything"
        )
    options = row.get("options") or []
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise DataError("column 'options' must be a list of names")
    binary = row.get("binary") or False
    if not isinstance(binary, bool):
        raise DataError("column 'binary' must be true or false")
    return GradeItem(
        item_id=str(number if row.get("id") is None else row["id"]),
        data_source=_text(row, "data_source", ""),
        ability=_text(row, "ability", ""),
        kind=_text(row, "kind", ""),
        response=_text(row, "response"),
        ground_truth=_ground_truth(row),
        options=tuple(options),
        binary=binary,
    )


def _text(row: Mapping[str, Any], column: str, default: str | None = None) -> str:
    value = row.get(column, default)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise DataError(f"column {column!r} is missing" if value is None else f"column {column!r} must be text")
    return value


def _ground_truth(row: Mapping[str, Any]) -> str:
    reward_model = row.get("reward_model")
    if isinstance(reward_model, Mapping) and "ground_truth" in reward_model:
        row = reward_model
    value = row.get("ground_truth")
    # Tests of a program may be given as an object, instead of as its text.
    return json.dumps(value) if isinstance(value, dict) else _text(row, "ground_truth")


async def verify(
    rows: Iterable[Row], verifier: Verifier, out: TextIO | None, on_progress: Callable[[int, Report], None]
) -> Report:
    """Grade all rows, a few parts at once; verdicts go to `out` in the order of the rows, one JSON object a line."""
    report = Report()
    waiting: deque[tuple[list[Row], asyncio.Future[list[Verdict]]]] = deque()
    done = 0

    async def finish_oldest() -> None:
        nonlocal done
        part, verdicts = waiting.popleft()
        found = iter(await verdicts)
        for row in part:
            _record(report, row, next(found) if row.item else None, out)
        done += len(part)
        on_progress(done, report)

    try:
        for part in _parts(rows):
            items = [row.item for row in part if row.item]
            waiting.append((part, asyncio.ensure_future(verifier.grade(items))))
            if len(waiting) >= _PARTS_AT_ONCE:
                await finish_oldest()
        while waiting:
            await finish_oldest()
    finally:
        for _, verdicts in waiting:
            verdicts.cancel()
    return report


def _parts(rows: Iterable[Row]) -> Iterator[list[Row]]:
    remaining = iter(rows)
    while part := list(itertools.islice(remaining, _PART)):
        yield part


def _record(report: Report, row: Row, verdict: Verdict | None, out: TextIO | None) -> None:
    status = verdict.status.value if verdict else "malformed"
    report.statuses[(verdict.method if verdict else "", status)] += 1
    fault = row.fault
    if verdict is not None:
        if verdict.score is not None:
            report.scores.append(verdict.score)
        if verdict.status is VerdictStatus.INVALID_REQUEST:
            fault = f"row {row.number}: {verdict.reason}"
        else:
            report.reasons[(status, verdict.reason.partition(":")[0])] += 1
    if fault and len(report.faults) < _MOST_FAULTS:
        report.faults.append(fault)
    if out is not None:
        line: dict[str, Any] = {"row": row.number, "status": status, "reason": fault}
        if verdict is not None and row.item is not None:
            line |= {"id": row.item.item_id, **dataclasses.asdict(verdict)}
        out.write(json.dumps(line) + "\n")
