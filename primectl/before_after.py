"""What training did to a policy: the same problems put to it before and after, and best-of-N by the PRM it trained.

The report half of `make demo-real`; every figure comes from `primectl evaluate`'s folders, which stay beside it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.evaluate.compare import compare
from jobs.evaluate.folder import SAMPLES
from jobs.evaluate.report import Report, best_of_lines, curve_rows, table, with_interval
from jobs.evaluate.settings import EvaluateSettings
from prime.evaluation.intervals import Difference, Estimate
from primectl.display import Display
from primectl.evaluate import evaluate_policy
from primectl.scorers import ScorerOptions

_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One policy: `Stage(name="start", title="after SFT", model=Path("runs/.../sft"), samples=8)`."""

    name: str
    title: str
    model: Path
    samples: int
    """Per problem."""
    prm: ScorerOptions | None = None
    """Scores the samples, where one is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """On what all stages are measured.

    Example: `Trial(folder=Path("runs/demo-real-1/evaluation"), sets=("held_out=...", "hard=..."), main="held_out",
    common={"rollout": {"dtype": "bfloat16"}})`.
    """

    folder: Path
    sets: tuple[str, ...]
    main: str
    """The set by which it is judged whether anything was learnt."""
    common: Mapping[str, Any]
    """Further settings of the evaluations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The stages' reports by name."""

    stages: Sequence[Stage]
    reports: Mapping[str, Report]

    def average(self, stage: str, name: str) -> Estimate:
        """avg@k of a stage on a set."""
        average = self.reports[stage].sets[name].average
        assert average is not None, "every stage is sampled"
        return average


def measure(stages: Sequence[Stage], trial: Trial, display: Display) -> Found:
    """Evaluate every stage."""
    reports = {}
    for stage in stages:
        display.say(f"Evaluating the policy {stage.title} ...")
        settings = EvaluateSettings.model_validate(
            {
                **trial.common,
                "output": trial.folder / stage.name,
                "sets": trial.sets,
                "samples": stage.samples,
                "model": stage.model,
            }
        )
        reports[stage.name], _ = evaluate_policy(settings, display, scorer=stage.prm)
    return Found(stages=stages, reports=reports)


def difference(trial: Trial, first: str, second: str, name: str) -> Difference:
    """Paired, of two stages on a set."""
    return compare(trial.folder / first, trial.folder / second).sets[name].difference


def markdown(found: Found, trial: Trial) -> str:
    """Accuracies by stage and set, best-of-N, and some answers before and after."""
    names = list(next(iter(found.reports.values())).sets)
    rows = [["policy", *names]]
    for stage in found.stages:
        rows.append([stage.title, *(with_interval(found.average(stage.name, name)) for name in names)])
    parts = [
        "Share of right samples, with 95 % intervals over problems.",
        "\n".join(table(rows)),
    ]
    for stage in found.stages:
        summary = found.reports[stage.name].sets[trial.main]
        if summary.best_of:
            title = f"N samples of the policy {stage.title}, on {trial.main}; best of N by the PRM:"
            parts += [title, "\n".join(table(curve_rows(summary))), *best_of_lines(summary)]
    return "\n\n".join(parts) + "\n"


def answers(trial: Trial, stage: str, problems: Sequence[str]) -> dict[str, str]:
    """The first sample of each of these problems."""
    lines = (trial.folder / stage / SAMPLES).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return {row["problem_id"]: row["text"] for row in rows if row["number"] == 0 and row["problem_id"] in problems}


def shown_answers(trial: Trial, found: Found, questions: Mapping[str, str]) -> str:
    """Markdown: the same problems answered by the first and the last of these stages, three of the main set."""
    ids = found.reports[found.stages[0].name].identity["sets"][trial.main]["problems"][:_SHOWN]
    by_stage = {stage.name: answers(trial, stage.name, ids) for stage in found.stages}
    parts = []
    for problem in ids:
        parts.append(f"**{questions[problem]}**")
        parts += [f"{stage.title}:\n\n```\n{by_stage[stage.name][problem].strip()}\n```" for stage in found.stages]
    return "\n\n".join(parts) + "\n"
