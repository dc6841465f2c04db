"""The findings as JSON and as Markdown for `docs/benchmarks.md`."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.gpu.plan import Outcome

_TITLES = {
    "card": "Card",
    "checks": "Checks on the device",
    "step": "Two PRIME steps in one process (0.5B)",
    "training": "Training",
    "scoring": "PRM scoring",
    "noise": "Noise of bfloat16 (0.5B)",
    "proof": "Families of models",
}


def as_tree(outcomes: Mapping[str, Outcome], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of the whole call, then every section by name."""
    return {**facts, "sections": {name: asdict(outcome) for name, outcome in outcomes.items()}}


def write(folder: Path, outcomes: Mapping[str, Outcome], facts: Mapping[str, Any]) -> None:
    """`gpu.json` and `gpu.md`, each in one move, so that both are whole at any time."""
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / "gpu.json", json.dumps(as_tree(outcomes, facts), indent=2) + "\n")
    _replace(folder / "gpu.md", as_markdown(outcomes, facts))


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.writing-{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def as_markdown(outcomes: Mapping[str, Outcome], facts: Mapping[str, Any]) -> str:
    """A table per kind of section, a column per shape; what was not measured is said below it."""
    lines = [", ".join(f"{_words(name)}: {_value(value)}" for name, value in facts.items())]
    for kind in dict.fromkeys(name.split()[0] for name in outcomes):
        mine = {name: outcome for name, outcome in outcomes.items() if name.split()[0] == kind}
        lines += ["", f"### {_TITLES[kind]}", *_figures(mine)]
        for name, outcome in mine.items():
            lines += _rows(outcome.figures.get("rows", []))
            if outcome.status != "done":
                lines += ["", f"{name}: {outcome.status}: {outcome.reason}"]
    return "\n".join(lines) + "\n"


def _figures(outcomes: Mapping[str, Outcome]) -> list[str]:
    measured = {name: outcome.figures for name, outcome in outcomes.items() if outcome.figures}
    if not measured:
        return []
    names = dict.fromkeys(name for figures in measured.values() for name in figures if name != "rows")
    heads = [name.partition(" ")[2] or "value" for name in measured]
    lines = ["", _row(["", *heads]), _row(["---"] * (1 + len(heads)))]
    return lines + [_row([_words(name), *(_value(each.get(name)) for each in measured.values())]) for name in names]


def _rows(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    heads = list(rows[0])
    lines = ["", _row(map(_words, heads)), _row(["---"] * len(heads))]
    return lines + [_row([_value(row[head]) for head in heads]) for row in rows]


def _row(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _value(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value).replace("|", "/").replace("\n", " ")
