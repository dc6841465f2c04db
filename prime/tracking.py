"""What experiment trackers are told of a run: its name, its settings and the figures of evaluations as flat names.

The trainer tells them while it runs, `primectl export` afterwards. `docs/trackers.md` lists the names.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

METRICS, EVALUATIONS = "metrics.jsonl", "evaluation.jsonl"
"""Files of a run folder: one object per step, with its `step`; one per evaluation, with its `version`."""

Outcome = Literal["finished", "stopped", "failed"]
"""How a run ended: all steps done, asked to stop, or an error."""

_RUN_SETTINGS = ("name", "model", "seed", "preset")
# Addresses, and what may carry a password, are nobody's business who looks at curves.
_NOT_SHOWN = ("listen", "ops_listen", "peers", "trackers")
_BY_SIZE = {"pass_at": "pass_at", "majority": "majority", "best_of": "best_of", "weighted": "weighted_best_of"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """A run as a tracker sees it.

    Example: `TrackedRun(name="demo-1", folder=Path("runs/demo-1"), settings={"trainer": {"steps": 40}}, first_step=17)`
    is a run that was resumed from its checkpoint of step 16.
    """

    name: str
    folder: Path
    """A tracker may keep files of its own there, such as the id under which it knows the run."""
    settings: Mapping[str, Any]
    first_step: int = 0
    """The first step that will be logged. A tracker may hold this step and later ones from before a resume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a run's record: `Entry(number=3, is_evaluation=False, row={"step": 3, "policy/loss": -0.02})`."""

    number: int
    """The step, or the evaluated version."""
    is_evaluation: bool
    row: Mapping[str, Any]


def settings_to_show(run: Mapping[str, Any], trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Of the sections `[run]` and `[trainer]`, the settings that explain a curve: no address, no password."""
    return {
        "run": {key: run[key] for key in _RUN_SETTINGS if key in run},
        "trainer": {key: value for key, value in trainer.items() if key not in _NOT_SHOWN},
    }


def step_figures(row: Mapping[str, float]) -> dict[str, float]:
    """The figures of a line of `metrics.jsonl`, without the step itself."""
    return {name: float(value) for name, value in row.items() if name != "step"}


def evaluation_figures(row: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a line of `evaluation.jsonl`, flat.

    Example: `{"version": 40, "newest": 40, "sets": {"gsm8k": {"average": {"mean": 0.31, ...}, ...}}}` gives
    `{"evaluation/gsm8k/average": 0.31, ...}`.
    """
    return {f"evaluation/{name}/{key}": value for name, each in row["sets"].items() for key, value in _of_set(each)}


def _of_set(summary: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    if summary["average"] is not None:
        yield "average", float(summary["average"]["mean"])
        yield "average_low", float(summary["average"]["low"])
        yield "average_high", float(summary["average"]["high"])
    if summary["greedy"] is not None:
        yield "greedy", float(summary["greedy"]["mean"])
    for field, name in _BY_SIZE.items():
        for size, estimate in summary[field].items():
            yield f"{name}_{size}", float(estimate["mean"])
    yield "mean_tokens", float(summary["mean_tokens"])
    yield "truncated_share", float(summary["truncated_share"])
    yield "undecided", float(summary["counts"]["undecided"])
