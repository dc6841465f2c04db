"""From all results of a family to what the protocol asks for: tuned settings, threshold, costs, ratios."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.experiment.arms import BY_NAME
from benchmarks.experiment.figures import Array, Curve, Ratio, cost_to_reach, curve_of, difference_of, ratio_of

BASELINE, PLACEBO, ORACLE = "rloo", "placebo", "oracle"
FIRST_REPORTED_SEED = 100
"""Seeds below it are for tuning."""
SAMPLES_PER_PROMPT = 4
_THRESHOLDS = (0.8, 0.9)
"""Beside the baseline's final accuracy on tuning seeds, which few runs may reach."""
_NEVER = 2.0
"""What a run costs that does not get there, in the largest cost of any run: it would go on for longer."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What an arm was run with: `Setting("prime", 5e-4, 5e-5)`."""

    arm: str
    lr: float
    prm_lr: float


_Runs = Mapping[tuple[Setting, int], Sequence[Mapping[str, Any]]]
_Curves = Mapping[Setting, Mapping[int, Curve]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmOutcome:
    """What became of an arm, over its reporting seeds."""

    setting: Setting
    curves: tuple[Curve, ...]
    reached: Mapping[float, int]
    """Seeds that reached each threshold."""
    samples_to: Mapping[float, Ratio]
    """How many times fewer samples than the baseline it needed to get to each threshold."""
    samples: Ratio
    """The same for the threshold of the family."""
    flops: Ratio
    seconds: Ratio
    gain: Ratio
    """Relative difference of final accuracies."""
    diagnostics: Mapping[str, float]
    """Means over steps and seeds of figures about its rewards; absent where it has none."""

    @property
    def final(self) -> float:
        """Mean final accuracy."""
        return float(np.mean([curve.final for curve in self.curves]))


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyOutcome:
    """All arms of a family, in the order of `ARMS`."""

    family: str
    thresholds: tuple[float, ...]
    threshold: float
    """The highest that at least half of the baseline's reporting runs reach."""
    seeds: int
    """Of the arm with the fewest."""
    arms: Mapping[str, ArmOutcome]
    tuned: Mapping[Setting, float]
    """Score of every setting that was tried."""


_DIAGNOSTICS = (
    "prm/pair_accuracy",
    "reward/step_auc",
    "reward/step_auc_over_shuffled",
    "reward/end_token_share",
    "reward/trust",
)


def outcome_of(family: str, rows: Iterable[Mapping[str, Any]]) -> FamilyOutcome:
    """Everything the protocol says about one family, from its rows.

    Raises:
        ValueError: the baseline has no tuning runs or no reporting runs.
    """
    runs = _runs(rows)
    curves = _curves(runs)
    tuned = _scores(curves)
    chosen = _best_of_each(tuned)
    if BASELINE not in chosen:
        raise ValueError(f"{family}: the arm {BASELINE!r} has no tuning runs")
    of_tuning = [curve.final for seed, curve in curves[chosen[BASELINE]].items() if seed < FIRST_REPORTED_SEED]
    thresholds = tuple(sorted({*_THRESHOLDS, float(np.mean(of_tuning))}))
    reported = {arm: _reported(curves[setting]) for arm, setting in chosen.items()}
    if not reported[BASELINE]:
        raise ValueError(f"{family}: the arm {BASELINE!r} has no reporting runs")
    compare = _Comparison(reported[BASELINE], [curve for each in reported.values() for curve in each], thresholds)
    arms = {}
    for arm, setting in chosen.items():
        if reported[arm]:
            of_arm = [
                of_run for (each, seed), of_run in runs.items() if each == setting and seed >= FIRST_REPORTED_SEED
            ]
            arms[arm] = compare.outcome(setting, reported[arm], _diagnose(of_arm))
    return FamilyOutcome(
        family=family,
        thresholds=thresholds,
        threshold=compare.threshold,
        seeds=min(len(each.curves) for each in arms.values()),
        arms=arms,
        tuned=tuned,
    )


def tuned_settings(rows: Iterable[Mapping[str, Any]]) -> dict[str, Setting]:
    """Of the runs with tuning seeds among the rows of a family: the best setting of each arm."""
    return _best_of_each(_scores(_curves(_runs(rows))))


def _runs(rows: Iterable[Mapping[str, Any]]) -> _Runs:
    """By setting and seed, in the order of steps."""
    runs: dict[tuple[Setting, int], list[Mapping[str, Any]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["step"]):
        runs[Setting(row["arm"], row["lr"], row["prm_lr"]), row["seed"]].append(row)
    return runs


def _curves(runs: _Runs) -> _Curves:
    """By setting, then seed."""
    curves: dict[Setting, dict[int, Curve]] = defaultdict(dict)
    for (setting, seed), rows in runs.items():
        has_prm = BY_NAME[setting.arm].has_prm
        curves[setting][seed] = curve_of(rows, samples_per_prompt=SAMPLES_PER_PROMPT, has_prm=has_prm)
    return curves


def _scores(curves: _Curves) -> dict[Setting, float]:
    """Of settings that have tuning seeds."""
    return {setting: score for setting, by_seed in curves.items() if (score := _score(by_seed)) is not None}


def _best_of_each(tuned: Mapping[Setting, float]) -> dict[str, Setting]:
    """The setting with the highest score, per arm."""
    return {arm: max((each for each in tuned if each.arm == arm), key=tuned.__getitem__) for arm in _arms(tuned)}


def _score(by_seed: Mapping[int, Curve]) -> float | None:
    """Mean held-out accuracy over all evaluations of the tuning seeds; None where there are none."""
    scores = [float(curve.accuracy.mean()) for seed, curve in by_seed.items() if seed < FIRST_REPORTED_SEED]
    return float(np.mean(scores)) if scores else None


def _arms(settings: Iterable[Setting]) -> list[str]:
    present = {setting.arm for setting in settings}
    return [name for name in BY_NAME if name in present]


def _reported(by_seed: Mapping[int, Curve]) -> tuple[Curve, ...]:
    return tuple(curve for seed, curve in sorted(by_seed.items()) if seed >= FIRST_REPORTED_SEED)


class _Comparison:
    """Arms against the baseline, over the same thresholds."""

    def __init__(self, baseline: Sequence[Curve], everyone: Sequence[Curve], thresholds: Sequence[float]) -> None:
        self._baseline = baseline
        self._thresholds = thresholds
        self._never = {unit: _NEVER * max(float(_cost(curve, unit)[-1]) for curve in everyone) for unit in _UNITS}
        self.threshold = max(
            (each for each in thresholds if 2 * _reached(baseline, each) >= len(baseline)), default=min(thresholds)
        )

    def outcome(self, setting: Setting, arm: Sequence[Curve], diagnostics: Mapping[str, float]) -> ArmOutcome:
        """What became of an arm."""
        finals = [np.array([curve.final for curve in curves]) for curves in (self._baseline, arm)]
        difference = difference_of(*finals)
        mean = float(finals[0].mean())
        return ArmOutcome(
            setting=setting,
            curves=tuple(arm),
            reached={threshold: _reached(arm, threshold) for threshold in self._thresholds},
            samples_to={threshold: self._ratio(arm, "samples", threshold) for threshold in self._thresholds},
            gain=Ratio(value=difference.value / mean, low=difference.low / mean, high=difference.high / mean),
            diagnostics=diagnostics,
            **{unit: self._ratio(arm, unit, self.threshold) for unit in _UNITS},
        )

    def _ratio(self, arm: Sequence[Curve], unit: str, threshold: float) -> Ratio:
        return ratio_of(*(self._costs(curves, unit, threshold) for curves in (self._baseline, arm)))

    def _costs(self, curves: Sequence[Curve], unit: str, threshold: float) -> Array:
        """What each run needed to get there."""
        needed = [cost_to_reach(_cost(each, unit), each.smooth, threshold) for each in curves]
        return np.minimum(needed, self._never[unit])


_UNITS = ("samples", "flops", "seconds")


def _cost(curve: Curve, unit: str) -> Array:
    cost: Array = getattr(curve, unit)
    return cost


def _reached(curves: Sequence[Curve], threshold: float) -> int:
    return sum(math.isfinite(cost_to_reach(curve.samples, curve.smooth, threshold)) for curve in curves)


def _diagnose(runs: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    found = {}
    for name in _DIAGNOSTICS:
        values = [row[name] for rows in runs for row in rows if row[name] is not None]
        if values:
            found[name] = float(np.mean(values))
    return found
