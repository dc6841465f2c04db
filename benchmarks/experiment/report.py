"""Writes tables and plots from kept results, and the line of figures that `make experiment` ends with."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow.parquet as pq

from benchmarks.experiment.arms import BY_NAME
from benchmarks.experiment.figures import Ratio
from benchmarks.experiment.outcome import BASELINE, ORACLE, PLACEBO, ArmOutcome, FamilyOutcome, outcome_of

mpl.use("svg")
# The same results give the same bytes.
mpl.rcParams["svg.hashsalt"] = "experiment"
mpl.rcParams["figure.figsize"] = (8.0, 4.5)
_PRIMARY = "chain-16"
_NOT_CANDIDATES = {BASELINE, PLACEBO, ORACLE}


def read_results(folder: Path) -> list[FamilyOutcome]:
    """The outcome of every family with a file `FAMILY.parquet` in the folder.

    Raises:
        FileNotFoundError: there is none.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no results yet: run `python -m benchmarks.experiment run`, then `keep`"
        )
    return [outcome_of(file.stem, pq.read_table(file).to_pylist()) for file in files]


def write_report(outcomes: Sequence[FamilyOutcome], folder: Path) -> None:
    """`tables.md` and a plot of the curves per family, into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = ["# Tables of the trial\n\nWritten by `make experiment`; how to read them: `protocol.md`.\n"]
    for outcome in outcomes:
        parts.append(_table(outcome))
        _plot(outcome, folder / f"{outcome.family}.svg")
    (folder / "tables.md").write_text("\n".join(parts), encoding="utf-8")


def figures_of(outcomes: Sequence[FamilyOutcome]) -> dict[str, Any]:
    """The last line of `make experiment`: of `chain-16`, else of the first family."""
    outcome = next((each for each in outcomes if each.family == _PRIMARY), outcomes[0])
    candidates = [each for name, each in outcome.arms.items() if name not in _NOT_CANDIDATES]
    best = max(candidates, key=lambda each: each.samples.value)
    return {
        "family": outcome.family,
        "step_ratio": round(best.samples.value, 3),
        "step_ratio_low": round(best.samples.low, 3),
        "step_ratio_high": round(best.samples.high, 3),
        "flops_ratio_low": round(best.flops.low, 3),
        "final_reward_gain": round(best.gain.value, 4),
        "placebo_ratio": _ratio_or_none(outcome.arms.get(PLACEBO)),
        "oracle_ratio": _ratio_or_none(outcome.arms.get(ORACLE)),
        "seeds": outcome.seeds,
        "best_arm": best.setting.arm,
    }


def _ratio_or_none(arm: ArmOutcome | None) -> float | None:
    return None if arm is None else round(arm.samples.value, 3)


def _table(outcome: FamilyOutcome) -> str:
    lines = [
        f"## {outcome.family}\n",
        f"Threshold {outcome.threshold:.3f}, at least {outcome.seeds} seeds per arm. Ratios are over `{BASELINE}`, "
        "with 95 % intervals.\n",
        "| arm | policy rate | PRM rate | reached | samples | operations | seconds | final | gain |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, arm in outcome.arms.items():
        cells = [
            BY_NAME[name].title,
            f"{arm.setting.lr:g}",
            f"{arm.setting.prm_lr:g}" if arm.setting.prm_lr else "-",
            f"{arm.reached} of {len(arm.curves)}",
            *(_interval(each) for each in (arm.samples, arm.flops, arm.seconds)),
            f"{arm.final:.3f}",
            _interval(arm.gain, signed=True),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *_diagnostics(outcome), "", *_tuning(outcome), ""]
    return "\n".join(lines)


def _diagnostics(outcome: FamilyOutcome) -> list[str]:
    with_any = {name: arm.diagnostics for name, arm in outcome.arms.items() if arm.diagnostics}
    if not with_any:
        return []
    names = sorted({name for each in with_any.values() for name in each})
    return [
        "Means over all steps:\n",
        f"| arm | {' | '.join(f'`{name}`' for name in names)} |",
        f"|{'---|' * (len(names) + 1)}",
        *(f"| {BY_NAME[arm].title} | {' | '.join(_cell(found, names))} |" for arm, found in with_any.items()),
    ]


def _cell(found: Mapping[str, float], names: Iterable[str]) -> list[str]:
    return [f"{found[name]:.3f}" if name in found else "-" for name in names]


def _tuning(outcome: FamilyOutcome) -> list[str]:
    rows = [
        f"| {BY_NAME[each.arm].title} | {each.lr:g} | {f'{each.prm_lr:g}' if each.prm_lr else '-'} | {score:.4f} |"
        for each, score in sorted(
            outcome.tuned.items(), key=lambda item: (list(BY_NAME).index(item[0].arm), item[0].lr, item[0].prm_lr)
        )
    ]
    return ["Tuning:\n", "| arm | policy rate | PRM rate | mean accuracy |", "|---|---|---|---|", *rows]


def _interval(ratio: Ratio, *, signed: bool = False) -> str:
    if signed:
        return f"{ratio.value:+.1%} ({ratio.low:+.1%} to {ratio.high:+.1%})"
    return f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def _plot(outcome: FamilyOutcome, file: Path) -> None:
    """Mean held-out accuracy against samples, with the standard error over seeds as a band."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots()
    for name, arm in outcome.arms.items():
        samples = np.mean([curve.samples for curve in arm.curves], axis=0)
        accuracy = np.array([curve.accuracy for curve in arm.curves])
        mean, error = accuracy.mean(axis=0), accuracy.std(axis=0) / len(accuracy) ** 0.5
        is_control = name in _NOT_CANDIDATES
        (line,) = axes.plot(samples, mean, label=BY_NAME[name].title, linewidth=2.2 if is_control else 1.0)
        axes.fill_between(samples, mean - error, mean + error, alpha=0.15, color=line.get_color())
    axes.axhline(outcome.threshold, color="grey", linewidth=0.8, linestyle="--")
    axes.set_xlabel("responses sampled for training")
    axes.set_ylabel("held-out accuracy")
    axes.legend(fontsize="x-small", loc="lower right")
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
