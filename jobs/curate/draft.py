"""A problem on its way through the stages, and how many of them lie on disk: parquet parts, each whole or absent."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One problem, and what the stages have decided about it.

    Example: `Draft(origin="numina.jsonl, row 3", source="numina_olympiads", ability="math", question="Find $1+1$.",
    answer="2", solutions=(r"It is $\\boxed{2}$.",), notes={"maths": "open"})`.
    """

    origin: str
    """File or dataset, and row."""
    source: str
    """Becomes `data_source`: the verifier grades by it."""
    ability: str
    question: str
    answer: str = ""
    """Mathematics: the final answer. Code: the tests, as JSON text (see `services/verifier/programs/code_tests.py`)."""
    solutions: tuple[str, ...] = ()
    """Reference solutions: worked text, or programs as fenced blocks."""
    dropped: str = ""
    """Why it is out; empty while it is in."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """What each stage found, by the stage's name; plain JSON values."""

    def drop(self, reason: str) -> Self:
        """Out, and why."""
        return replace(self, dropped=reason)

    def note(self, stage: str, found: Any) -> Self:
        """With what a stage found."""
        return replace(self, notes={**self.notes, stage: found})


_COLUMNS = tuple(each.name for each in fields(Draft))


def write_part(path: Path, drafts: Sequence[Draft]) -> None:
    """A part of a stage's result; a crash leaves no half of it."""
    import pyarrow
    from pyarrow import parquet

    columns: dict[str, list[Any]] = {name: [getattr(draft, name) for draft in drafts] for name in _COLUMNS}
    columns["solutions"] = [list(each) for each in columns["solutions"]]
    columns["notes"] = [json.dumps(each, ensure_ascii=False) for each in columns["notes"]]
    types = {name: pyarrow.string() for name in _COLUMNS} | {"solutions": pyarrow.list_(pyarrow.string())}
    table = pyarrow.table(columns, schema=pyarrow.schema(list(types.items())))
    partial = path.with_suffix(".partial")
    parquet.write_table(table, partial, compression="zstd")
    partial.replace(path)


def read_part(path: Path) -> list[Draft]:
    """Inverse of `write_part`."""
    from pyarrow import parquet

    columns = parquet.read_table(path).to_pydict()
    columns["solutions"] = [tuple(each) for each in columns["solutions"]]
    columns["notes"] = [json.loads(each) for each in columns["notes"]]
    return [
        Draft(**dict(zip(_COLUMNS, values, strict=True)))
        for values in zip(*(columns[name] for name in _COLUMNS), strict=True)
    ]


def read_fates(path: Path) -> list[tuple[str, str]]:
    """Of every draft of a part its source, and why it is out."""
    from pyarrow import parquet

    columns = parquet.read_table(path, columns=["source", "dropped"]).to_pydict()
    return list(zip(columns["source"], columns["dropped"], strict=True))


def in_parts(drafts: Iterator[Draft], size: int) -> Iterator[list[Draft]]:
    """In lists of `size`; the last may be shorter."""
    part: list[Draft] = []
    for draft in drafts:
        part.append(draft)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part
