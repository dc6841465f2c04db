"""From kept results to the figures of the trial: samples until a threshold, ratios with intervals, final rewards.

`docs/experiment/protocol.md` fixes every definition here. All of it is arithmetic on arrays and records.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_SMOOTHED = 3
"""Evaluations whose mean is a point of a curve."""
_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One run's held-out accuracy against what it cost.

    Example: `Curve(samples=np.array([0, 640]), flops=..., seconds=..., accuracy=np.array([0.3, 0.4]))`.
    """

    samples: Array
    """Responses sampled for training, so far, at each evaluation."""
    flops: Array
    """Floating-point operations per parameter of the model."""
    seconds: Array
    accuracy: Array

    @property
    def smooth(self) -> Array:
        """The mean of the last three evaluations at each point; of fewer at the start."""
        return np.array(
            [self.accuracy[max(0, end - _SMOOTHED) : end].mean() for end in range(1, len(self.accuracy) + 1)]
        )

    @property
    def final(self) -> float:
        """Mean of the last three evaluations."""
        return float(self.accuracy[-_SMOOTHED:].mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """An interquartile mean over seeds with its 95 % bootstrap interval: `Ratio(value=1.3, low=1.1, high=1.6)`."""

    value: float
    low: float
    high: float


def curve_of(rows: Sequence[Mapping[str, float | None]], *, samples_per_prompt: int, has_prm: bool) -> Curve:
    """A run's curve from its rows, in the order of steps; rows without an evaluation only add to the cost.

    Operations are counted per parameter: 2 per token of a forward pass and 4 of a backward pass. Sampled tokens are
    estimated from those of the kept groups.
    """
    samples = flops = seconds = 0.0
    points = []
    for row in rows:
        graded, kept = row["collect/graded"] or 0.0, row["collect/kept"] or 0.0
        tokens = row["batch/response_tokens"] or 0.0
        samples += graded * samples_per_prompt
        sampled_tokens = tokens * graded / kept if kept else 0.0
        # The policy: a pass forward to sample, one forward and backward to learn; the PRM: scores, learns, and its
        # reference scores.
        flops += 2 * sampled_tokens + 6 * tokens + (10 * tokens if has_prm else 0.0)
        seconds += row["time/step_seconds"] or 0.0
        if row["eval/accuracy"] is not None:
            points.append((samples, flops, seconds, row["eval/accuracy"]))
    columns = np.array(points, dtype=np.float64).T
    return Curve(samples=columns[0], flops=columns[1], seconds=columns[2], accuracy=columns[3])


def cost_to_reach(cost: Array, accuracy: Array, threshold: float) -> float:
    """Where a curve first reaches the threshold, between two evaluations by a straight line; infinity: never.

    Example: costs 0, 100 and accuracies 0.3, 0.5 reach 0.4 at 50.
    """
    above = np.flatnonzero(accuracy >= threshold)
    if not len(above):
        return math.inf
    end = int(above[0])
    if end == 0:
        return float(cost[0])
    share = (threshold - accuracy[end - 1]) / (accuracy[end] - accuracy[end - 1])
    return float(cost[end - 1] + share * (cost[end] - cost[end - 1]))


def interquartile_mean(values: Array) -> float:
    """Mean of the middle half, the values at its edges counted in part (Agarwal et al., NeurIPS 2021).

    Example: of 1, 2, 3, 100 it is 2.5.
    """
    ordered = np.sort(values)
    count = len(ordered)
    edges = np.arange(count + 1)
    inside = np.clip(np.minimum(edges[1:], 0.75 * count) - np.maximum(edges[:-1], 0.25 * count), 0.0, None)
    return float((ordered * inside).sum() / inside.sum())


def ratio_of(baseline: Array, arm: Array, *, seed: int = 0) -> Ratio:
    """How many times fewer samples (operations, seconds) the arm needed, over seeds.

    `baseline` and `arm` hold what each seed needed. The logarithms of both are averaged by the interquartile mean. The
    seeds of both are resampled apart.
    """
    logs = [np.log(values) for values in (baseline, arm)]
    draws = np.random.default_rng(seed)

    def resampled(values: Array) -> Array:
        chosen = draws.integers(0, len(values), size=(_RESAMPLES, len(values)))
        return np.array([interquartile_mean(values[each]) for each in chosen])

    differences = resampled(logs[0]) - resampled(logs[1])
    value = interquartile_mean(logs[0]) - interquartile_mean(logs[1])
    low, high = np.quantile(differences, [0.025, 0.975])
    return Ratio(value=math.exp(value), low=math.exp(low), high=math.exp(high))


def difference_of(baseline: Array, arm: Array, *, seed: int = 0) -> Ratio:
    """Mean of the arm less mean of the baseline over seeds, with its interval."""
    draws = np.random.default_rng(seed)
    means = [
        values[draws.integers(0, len(values), size=(_RESAMPLES, len(values)))].mean(axis=1)
        for values in (arm, baseline)
    ]
    low, high = np.quantile(means[0] - means[1], [0.025, 0.975])
    return Ratio(value=float(arm.mean() - baseline.mean()), low=float(low), high=float(high))
