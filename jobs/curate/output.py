"""Writes what is left: parquet in the schema of Eurus-2-RL-Data, what was dropped and why, a card, and the funnel."""

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.curate.draft import Draft
from jobs.curate.pipeline import StageReport
from prime.data.actions import prompt_of
from prime.data.problems import row_of as problem_row
from prime.errors import DataError
from prime.types import Problem

_SPLITS = ("train", "validation")
_BATCH = 1000


def row_of(draft: Draft, index: int, split: str, *, with_actions: bool) -> dict[str, Any]:
    """One row: the published schema, and where it comes from and what was decided, as JSON text."""
    problem = Problem(
        problem_id=draft.origin,
        data_source=draft.source,
        ability=draft.ability,
        messages=prompt_of(draft.question, draft.ability, with_actions=with_actions),
        ground_truth=draft.answer,
    )
    return {
        **problem_row(problem, index),
        "extra_info": {"index": index, "split": split},
        "provenance": json.dumps({"origin": draft.origin, **draft.notes}, ensure_ascii=False),
    }


def write_rows(parts: Iterable[Sequence[Draft]], folder: Path, held_out: frozenset[str], *, with_actions: bool) -> None:
    """`train.parquet` and `validation.parquet`: those whose origin is in `held_out`."""
    import pyarrow
    from pyarrow import parquet

    message = pyarrow.struct([("content", pyarrow.string()), ("role", pyarrow.string())])
    schema = pyarrow.schema(
        [
            ("data_source", pyarrow.string()),
            ("prompt", pyarrow.list_(message)),
            ("ability", pyarrow.string()),
            ("reward_model", pyarrow.struct([("ground_truth", pyarrow.string()), ("style", pyarrow.string())])),
            ("extra_info", pyarrow.struct([("index", pyarrow.int64()), ("split", pyarrow.string())])),
            ("provenance", pyarrow.string()),
        ]
    )
    counts: Counter[str] = Counter()
    files = {split: folder / f"{split}.parquet.partial" for split in _SPLITS}
    writers = {split: parquet.ParquetWriter(path, schema, compression="zstd") for split, path in files.items()}
    try:
        for part in parts:
            rows: dict[str, list[dict[str, Any]]] = {split: [] for split in files}
            for draft in part:
                split = "validation" if draft.origin in held_out else "train"
                rows[split].append(row_of(draft, counts[split], split, with_actions=with_actions))
                counts[split] += 1
            for split, found in rows.items():
                if found:
                    writers[split].write_table(pyarrow.Table.from_pylist(found, schema=schema))
    finally:
        for writer in writers.values():
            writer.close()
    for split, path in files.items():
        if counts[split]:
            path.replace(folder / f"{split}.parquet")
        else:
            path.unlink()
            (folder / f"{split}.parquet").unlink(missing_ok=True)  # of an earlier run with other settings


def choose_held_out(parts: Iterable[Sequence[Draft]], count: int, *, seed: int) -> frozenset[str]:
    """Origins of `count` problems of each ability, or of half of them where there are fewer than twice as many."""
    if not count:
        return frozenset()
    origins: dict[str, list[str]] = {}
    for draft in (each for part in parts for each in part):
        origins.setdefault(draft.ability, []).append(draft.origin)
    draw = random.Random(seed)
    return frozenset(
        origin
        for _, found in sorted(origins.items())
        for origin in draw.sample(sorted(found), min(count, len(found) // 2))
    )


def write_dropped(dropped: Iterator[tuple[str, Draft]], path: Path) -> None:
    """Everything that is not in the result, with the stage and the reason."""
    import pyarrow
    from pyarrow import parquet

    names = ("stage", "reason", "source", "origin", "question", "notes")
    schema = pyarrow.schema([(name, pyarrow.string()) for name in names])
    partial = path.with_suffix(".partial")
    with parquet.ParquetWriter(partial, schema, compression="zstd") as writer:
        batch: list[dict[str, str]] = []
        for stage, draft in dropped:
            notes = json.dumps(draft.notes, ensure_ascii=False)
            values = (stage, draft.dropped, draft.source, draft.origin, draft.question, notes)
            batch.append(dict(zip(names, values, strict=True)))
            if len(batch) == _BATCH:
                writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))
                batch = []
        writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))
    partial.replace(path)


# ---------------------------------------------------------------- the report


def funnel_table(reports: Sequence[StageReport]) -> list[str]:
    """Markdown: how many of each source were left after each stage."""
    sources = sorted({source for report in reports for source in report.entered})
    lines = [f"| stage | {' | '.join(sources)} | all |", "|---|" + "---:|" * (len(sources) + 1)]
    rows = [("rows read", reports[0].entered), *((f"after {report.stage}", report.left) for report in reports)]
    for title, counts in rows:
        cells = [f"{counts.get(source, 0):,}" for source in sources]
        lines.append(f"| {title} | {' | '.join(cells)} | {sum(counts.values()):,} |")
    return lines


def reasons_table(reports: Sequence[StageReport]) -> list[str]:
    """Markdown: what was dropped where, and why."""
    lines = ["| stage | reason | rows |", "|---|---|---:|"]
    for report in reports:
        lines += [f"| {report.stage} | {reason} | {count:,} |" for reason, count in report.reasons.most_common()]
    return lines


def draw_funnel(reports: Sequence[StageReport], path: Path) -> None:
    """A bar per stage, by source."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    sources = sorted({source for report in reports for source in report.entered})
    titles = ["rows read", *(f"after {report.stage}" for report in reports)]
    counts = [reports[0].entered, *(report.left for report in reports)]
    figure, axes = pyplot.subplots(figsize=(9, 0.5 * len(titles) + 1.5), layout="constrained")
    begins = [0] * len(titles)
    for source in sources:
        widths = [each.get(source, 0) for each in counts]
        axes.barh(titles, widths, left=begins, label=source)
        begins = [begin + width for begin, width in zip(begins, widths, strict=True)]
    for place, total in enumerate(begins):
        axes.text(total, place, f" {total:,}", va="center")
    axes.invert_yaxis()
    axes.set_xlabel("problems")
    axes.margins(x=0.12)
    axes.legend(fontsize="small")
    figure.savefig(path, format="png", dpi=120, metadata={"Software": ""})
    pyplot.close(figure)


def write_card(
    folder: Path, reports: Sequence[StageReport], settings: Mapping[str, Any], probe: Sequence[Mapping[str, Any]]
) -> None:
    """`README.md` of the data set."""
    total = sum(reports[-1].left.values())
    splits = [
        f"  - split: {split}\n    path: {split}.parquet" for split in _SPLITS if (folder / f"{split}.parquet").exists()
    ]
    lines = [
        "---",
        "configs:",
        "- config_name: default",
        "  data_files:",
        *splits,
        "---",
        "",
        "# Problems with verified answers",
        "",
        f"{total:,} problems in the schema of Eurus-2-RL-Data, made by `primectl curate`. The column `provenance` says "
        "where each comes from and what every stage decided. `dropped.parquet` has the others, with the reason. The "
        "licences of the sources hold.",
        "",
        "## What is left after each stage",
        "",
        *funnel_table(reports),
        "",
        "![funnel](funnel.png)",
        "",
        "## What was dropped, and why",
        "",
        *reasons_table(reports),
    ]
    if probe:
        lines += [
            "",
            "## Who notices an unsolvable problem",
            "",
            "| validator | precision | recall |",
            "|---|---:|---:|",
        ]
        lines += [f"| {each['model']} | {_share(each['precision'])} | {_share(each['recall'])} |" for each in probe]
    lines += ["", "## Settings", "", "```json", json.dumps(settings, indent=2, ensure_ascii=False), "```", ""]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def refuse_foreign(folder: Path) -> None:
    """A folder that something else lies in is not written to.

    Raises:
        DataError: it is a file, or has content and no `curate.json`.
    """
    if folder.is_file():
        raise DataError(f"setting 'output' = {folder} is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "curate.json").is_file():
        raise DataError(f"setting 'output' = {folder} holds something else; choose another folder")
