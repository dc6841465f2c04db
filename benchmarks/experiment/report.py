"""Writes tables and plots from kept results, and the line of figures that `make experiment` ends with."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow.parquet as pq
from matplotlib import pyplot
from matplotlib.figure import Figure

from benchmarks.experiment.arms import BY_NAME
from benchmarks.experiment.figures import Ratio
from benchmarks.experiment.outcome import (
    BASELINE,
    FIRST_REPORTED_SEED,
    ORACLE,
    PLACEBO,
    ArmOutcome,
    FamilyOutcome,
    outcome_of,
)

mpl.use("svg")
# The same results give the same bytes.
mpl.rcParams["svg.hashsalt"] = "experiment"
mpl.rcParams["figure.figsize"] = (8.0, 4.5)
_PRIMARY = "chain-16"
_OFFLINE = {
    "pair_accuracy": "pair accuracy",
    "one": "one sample",
    "best_of_4": "best of 4",
    "any_of_4": "any of 4",
    "auc_own": "AUC, own",
    "auc_value": "AUC, value",
    "auc_difference": "AUC, difference",
}
_DRAWN = (BASELINE, "prime", "best", PLACEBO, ORACLE)
"""Arms with a curve of their own in plots."""


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


def write_report(outcomes: Sequence[FamilyOutcome], folder: Path, *, offline: Sequence[Path] = ()) -> None:
    """Into the folder: `tables.md`; per family its curves and its ratios; and the ratios of chains over their steps.

    `offline`: results of PRMs trained offline, a file per family.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = ["# Tables of the trial\n\nWritten by `make experiment`; how to read them: `protocol.md`.\n"]
    for outcome in outcomes:
        parts.append(_table(outcome))
        _plot_curves(outcome, folder / f"{outcome.family}.curves.svg")
        _plot_ratios(outcome, folder / f"{outcome.family}.ratios.svg")
    if any(outcome.family.startswith("chain-") for outcome in outcomes):
        _plot_lengths(outcomes, folder / "steps.svg")
    parts += [_offline_table(file.stem, pq.read_table(file).to_pylist()) for file in offline]
    (folder / "tables.md").write_text("\n".join(parts), encoding="utf-8")


def figures_of(outcomes: Sequence[FamilyOutcome]) -> dict[str, Any]:
    """The last line of `make experiment`: of `chain-16`, else of the first family."""
    outcome = next((each for each in outcomes if each.family == _PRIMARY), outcomes[0])
    candidates = [each for name, each in outcome.arms.items() if BY_NAME[name].has_prm and name != PLACEBO]
    # By the tuning seeds: the highest of many ratios of the reporting seeds would be the luckiest one.
    best = max(candidates, key=lambda each: outcome.tuned[each.setting])
    return {
        "family": outcome.family,
        "threshold": round(outcome.threshold, 3),
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
    known = ", ".join(f"{each:.3f}" for each in outcome.thresholds)
    lines = [
        f"## {outcome.family}\n",
        f"{outcome.seeds} seeds or more per arm. Ratios are over `{BASELINE}`, with 95 % intervals: samples, operations"
        f" and seconds to accuracy of {outcome.threshold:.3f}, the highest of {known} that half of its runs reach.\n",
        "| arm | policy rate | PRM rate | reached | samples | operations | seconds | final | gain |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, arm in outcome.arms.items():
        cells = [
            BY_NAME[name].title,
            f"{arm.setting.lr:g}",
            f"{arm.setting.prm_lr:g}" if arm.setting.prm_lr else "-",
            f"{arm.reached[outcome.threshold]} of {len(arm.curves)}",
            *(_interval(each) for each in (arm.samples, arm.flops, arm.seconds)),
            f"{arm.final:.3f}",
            _interval(arm.gain, signed=True),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *_other_thresholds(outcome)]
    lines += ["", *_diagnostics(outcome), "", *_tuning(outcome), ""]
    return "\n".join(lines)


def _other_thresholds(outcome: FamilyOutcome) -> list[str]:
    rows = []
    for name, arm in outcome.arms.items():
        cells = [f"{_interval(arm.samples_to[each])}, {arm.reached[each]}" for each in outcome.thresholds]
        rows.append(f"| {BY_NAME[name].title} | {' | '.join(cells)} |")
    return [
        "Samples to each accuracy, and how many seeds got there:\n",
        f"| arm | {' | '.join(f'{each:.3f}' for each in outcome.thresholds)} |",
        f"|---|{'---|' * len(outcome.thresholds)}",
        *rows,
    ]


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


def _offline_table(family: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Means over the reporting seeds, at each loss's rate that chose best on the tuning seeds."""
    lines = [
        f"## PRMs trained offline, {family}\n",
        f"| loss | rate | seeds | {' | '.join(_OFFLINE.values())} |",
        f"|---|---|---|{'---|' * len(_OFFLINE)}",
    ]
    for loss in dict.fromkeys(row["loss"] for row in rows):
        of_loss = [row for row in rows if row["loss"] == loss]
        tuning = [row for row in of_loss if row["seed"] < FIRST_REPORTED_SEED]
        scores = {lr: _mean_of("best_of_4", tuning, lr) for lr in sorted({row["lr"] for row in tuning})}
        rate = max(scores, key=scores.__getitem__)
        reporting = [row for row in of_loss if row["seed"] >= FIRST_REPORTED_SEED]
        cells = [f"{_mean_of(name, reporting, rate):.3f}" for name in _OFFLINE]
        seeds = len({row["seed"] for row in reporting})
        lines.append(f"| `{loss}` | {rate:g} | {seeds} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _mean_of(name: str, rows: Iterable[Mapping[str, Any]], lr: float) -> float:
    return float(np.mean([row[name] for row in rows if row["lr"] == lr]))


def _interval(ratio: Ratio, *, signed: bool = False) -> str:
    if signed:
        return f"{ratio.value:+.1%} ({ratio.low:+.1%} to {ratio.high:+.1%})"
    return f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def _plot_curves(outcome: FamilyOutcome, file: Path) -> None:
    """Mean held-out accuracy against samples, with the standard error over seeds as a band."""
    figure, axes = pyplot.subplots()
    for name in _DRAWN:
        if name not in outcome.arms:
            continue
        curves = outcome.arms[name].curves
        samples = np.mean([curve.samples for curve in curves], axis=0)
        accuracy = np.array([curve.accuracy for curve in curves])
        mean, error = accuracy.mean(axis=0), accuracy.std(axis=0) / len(accuracy) ** 0.5
        (line,) = axes.plot(samples, mean, label=BY_NAME[name].title, linewidth=1.5)
        axes.fill_between(samples, mean - error, mean + error, alpha=0.15, color=line.get_color())
    axes.axhline(outcome.threshold, color="grey", linewidth=0.8, linestyle="--")
    axes.set_xlabel("responses sampled for training")
    axes.set_ylabel("held-out accuracy")
    axes.legend(fontsize="small", loc="lower right")
    _save(figure, file)


def _plot_ratios(outcome: FamilyOutcome, file: Path) -> None:
    """How many times fewer samples each arm needed, with its interval."""
    arms = [
        (BY_NAME[name].title, arm.samples) for name, arm in reversed(list(outcome.arms.items())) if name != BASELINE
    ]
    figure, axes = pyplot.subplots(figsize=(8.0, 1.0 + 0.27 * len(arms)))
    for place, (_, ratio) in enumerate(arms):
        axes.plot([ratio.low, ratio.high], [place, place], color="tab:blue")
        axes.plot(ratio.value, place, "o", color="tab:blue", markersize=4)
    axes.set_yticks(range(len(arms)), [title for title, _ in arms], fontsize="small")
    axes.axvline(1.0, color="grey", linewidth=0.8, linestyle="--")
    axes.set_xscale("log", base=2)
    axes.set_xlabel(f"times fewer samples than {BY_NAME[BASELINE].title}")
    _save(figure, file)


def _plot_lengths(outcomes: Sequence[FamilyOutcome], file: Path) -> None:
    """The same ratio against the number of steps of a chain, per arm."""
    chains = {int(each.family.removeprefix("chain-")): each for each in outcomes if each.family.startswith("chain-")}
    figure, axes = pyplot.subplots()
    for shift, name in enumerate(_DRAWN):
        ratios = {steps: each.arms[name].samples for steps, each in sorted(chains.items()) if name in each.arms}
        if name == BASELINE or not ratios:
            continue
        # Side by side, so that intervals can be told apart.
        places = [steps * 1.03**shift for steps in ratios]
        values = np.array([each.value for each in ratios.values()])
        low, high = (np.array([getattr(each, end) for each in ratios.values()]) for end in ("low", "high"))
        axes.errorbar(places, values, yerr=[values - low, high - values], label=BY_NAME[name].title, capsize=3)
    axes.axhline(1.0, color="grey", linewidth=0.8, linestyle="--")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(chains), [str(steps) for steps in sorted(chains)])
    axes.set_xlabel("steps of a chain")
    axes.set_ylabel(f"times fewer samples than {BY_NAME[BASELINE].title}")
    axes.legend(fontsize="small")
    _save(figure, file)


def _save(figure: Figure, file: Path) -> None:
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
