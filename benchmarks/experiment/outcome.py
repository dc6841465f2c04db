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
    reached: int
    """Seeds that reached the threshold."""
    samples: Ratio
    """How many times fewer samples than the baseline it needed to get there."""
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
    threshold: float
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
    threshold = float(np.mean(of_tuning))
    reported = {arm: _reported(curves[setting]) for arm, setting in chosen.items()}
    if not reported[BASELINE]:
        raise ValueError(f"{family}: the arm {BASELINE!r} has no reporting runs")
    arms = {}
    for arm, setting in chosen.items():
        if reported[arm]:
            of_arm = [
                of_run for (each, seed), of_run in runs.items() if each == setting and seed >= FIRST_REPORTED_SEED
            ]
            arms[arm] = _compare(setting, reported[BASELINE], reported[arm], threshold, _diagnose(of_arm))
    return FamilyOutcome(
        family=family,
        threshold=threshold,
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


def _compare(
    setting: Setting,
    baseline: Sequence[Curve],
    arm: Sequence[Curve],
    threshold: float,
    diagnostics: Mapping[str, float],
) -> ArmOutcome:
    ratios = {}
    for name in ("samples", "flops", "seconds"):
        theirs, ours = (_costs(curves, name, threshold) for curves in (baseline, arm))
        ratios[name] = ratio_of(theirs, ours)
    finals = [np.array([curve.final for curve in curves]) for curves in (baseline, arm)]
    difference = difference_of(*finals)
    mean = float(finals[0].mean())
    gain = Ratio(value=difference.value / mean, low=difference.low / mean, high=difference.high / mean)
    reached = sum(math.isfinite(cost_to_reach(curve.samples, curve.smooth, threshold)) for curve in arm)
    return ArmOutcome(setting=setting, curves=tuple(arm), reached=reached, gain=gain, diagnostics=diagnostics, **ratios)


def _costs(curves: Sequence[Curve], name: str, threshold: float) -> Array:
    """What each run needed; all that it cost where it never got there."""
    needed = []
    for curve in curves:
        cost: Array = getattr(curve, name)
        needed.append(min(cost_to_reach(cost, curve.smooth, threshold), float(cost[-1])))
    return np.array(needed)


def _diagnose(runs: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    found = {}
    for name in _DIAGNOSTICS:
        values = [row[name] for rows in runs for row in rows if row[name] is not None]
        if values:
            found[name] = float(np.mean(values))
    return found
