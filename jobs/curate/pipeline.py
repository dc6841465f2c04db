"""Runs stages one after the other, part by part, and keeps every finished part: a restart repeats no finished work.

    stages/read-numina-3f2a.../part-00000.parquet ... done.json
    stages/maths-91bc.../part-00000.parquet ... done.json

A stage's folder is named after everything that its result depends on: its settings, and the folders before it. So a
changed setting is worked out anew from its stage on, and what stands before it is used again.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import prime
from jobs.curate.draft import Draft, in_parts, read_fates, read_part, write_part


class Stage(Protocol):
    """One step, by itself unaware of files."""

    name: str
    depends_on: Any
    """Settings that change its result: plain JSON values."""

    async def begin(self, parts: Callable[[], Iterator[list[Draft]]]) -> None:
        """Look at all drafts first, where the decision about one depends on others. `parts()` begins anew."""

    async def apply(self, drafts: Sequence[Draft]) -> list[Draft]:
        """The drafts in their order, changed, noted or dropped."""


class DraftByDraft:
    """Base of stages whose decision about a draft depends on no other."""

    async def begin(self, parts: Callable[[], Iterator[list[Draft]]]) -> None:
        """There is nothing to look at first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where drafts come from: `Source(name="numina", depends_on=[...], read=...)`."""

    name: str
    depends_on: Any
    read: Callable[[], Iterator[Draft]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReport:
    """What a stage did, per source: `StageReport(stage="maths", entered={"a": 9}, dropped={"a": {"proof": 2}})`."""

    stage: str
    entered: Mapping[str, int]
    dropped: Mapping[str, Mapping[str, int]]

    @property
    def left(self) -> dict[str, int]:
        """How many of each source went on."""
        return {name: count - sum(self.dropped.get(name, {}).values()) for name, count in self.entered.items()}

    @property
    def reasons(self) -> Counter[str]:
        """How many were dropped for what, of all sources."""
        return sum((Counter(reasons) for reasons in self.dropped.values()), Counter())


OnPart = Callable[[str, int, int], None]
"""Told (stage, parts done, of how many; 0: nobody knows)."""


class Pipeline:
    """The stages' folders under one folder."""

    def __init__(self, folder: Path, *, part_rows: int, on_part: OnPart = lambda stage, done, of: None) -> None:
        self._folder = folder / "stages"
        self._part_rows = part_rows
        self._on_part = on_part
        self._parts: list[Path] = []
        self._key = ""
        self._folders: list[tuple[str, Path]] = []
        self.reports: list[StageReport] = []

    def read(self, sources: Sequence[Source]) -> None:
        """The first step: each source to parts of its own."""
        done = [self._read(source) for source in sources]
        self._parts = [path for folder in done for path in _parts_of(folder)]
        self._key = _hash([folder.name for folder in done])
        self.reports.append(_merge([_read_report(folder, "read") for folder in done]))

    async def run(self, stage: Stage) -> None:
        """One more step over all that is left."""
        self._key = _hash([self._key, stage.name, stage.depends_on])
        folder = self._folder / f"{stage.name}-{self._key}"
        self._folders.append((stage.name, folder))
        if not (folder / "done.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            await stage.begin(self.drafts)
            for number, path in enumerate(self._parts):
                target = folder / _part_name(number)
                if not target.is_file():
                    write_part(target, await stage.apply(_left(path)))
                self._on_part(stage.name, number + 1, len(self._parts))
            _finish(folder)
        self._parts = _parts_of(folder)
        self.reports.append(_read_report(folder, stage.name))

    def drafts(self) -> Iterator[list[Draft]]:
        """What is left, in parts."""
        for path in self._parts:
            if left := _left(path):
                yield left

    def dropped(self) -> Iterator[tuple[str, Draft]]:
        """Stage and draft, of everything that went out."""
        for stage, folder in self._folders:
            for path in _parts_of(folder):
                yield from ((stage, draft) for draft in read_part(path) if draft.dropped)

    def _read(self, source: Source) -> Path:
        folder = self._folder / f"read-{source.name}-{_hash([source.depends_on, self._part_rows])}"
        self._folders.append(("read", folder))
        if not (folder / "done.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)  # the source is not read from its middle on
            folder.mkdir(parents=True)
            for number, part in enumerate(in_parts(source.read(), self._part_rows)):
                write_part(folder / _part_name(number), part)
                self._on_part(f"read {source.name}", number + 1, 0)
            _finish(folder)
        return folder


def _part_name(number: int) -> str:
    return f"part-{number:05d}.parquet"


def _parts_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def _left(path: Path) -> list[Draft]:
    return [draft for draft in read_part(path) if not draft.dropped]


def _hash(value: Any) -> str:
    """Of plain values, and of the version of this code."""
    text = json.dumps([prime.__version__, value], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _finish(folder: Path) -> None:
    """Count, and say that it is whole."""
    entered: Counter[str] = Counter()
    dropped: dict[str, Counter[str]] = {}
    for path in _parts_of(folder):
        for source, reason in read_fates(path):
            entered[source] += 1
            if reason:
                dropped.setdefault(source, Counter())[reason] += 1
    partial = folder / "done.partial"
    partial.write_text(json.dumps({"entered": entered, "dropped": dropped}))
    partial.replace(folder / "done.json")


def _read_report(folder: Path, stage: str) -> StageReport:
    tree = json.loads((folder / "done.json").read_text())
    return StageReport(stage=stage, entered=tree["entered"], dropped=tree["dropped"])


def _merge(reports: Sequence[StageReport]) -> StageReport:
    entered: Counter[str] = Counter()
    dropped: dict[str, Counter[str]] = {}
    for report in reports:
        entered.update(report.entered)
        for source, reasons in report.dropped.items():
            dropped.setdefault(source, Counter()).update(reasons)
    plain = {source: dict(reasons) for source, reasons in dropped.items()}
    return StageReport(stage="read", entered=dict(entered), dropped=plain)
