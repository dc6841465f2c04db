"""How sure a mean over problems is. The samples of one problem are alike, so the problem is the unit (the cluster).

Shapes: P problems.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from scipy.stats import t as student

_LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean with its 95 % interval: `Estimate(mean=0.31, low=0.27, high=0.35)`."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A difference of two means over the same problems: `Difference(mean=0.04, low=0.01, high=0.07, p=0.012)`."""

    mean: float
    low: float
    high: float
    p: float
    """Two-sided p-value of no difference."""
    error: float
    """Standard error."""
    freedom: float
    """Degrees of freedom of the t distribution."""


def share_interval(values_P: Sequence[float]) -> Estimate:
    """Mean of a share per problem, each in [0, 1], with the interval for problems drawn like these.

    Wilson's interval at the effective sample size p (1 - p) / se^2, with the t quantile of P - 1 degrees of freedom
    (Franco, Little, Louis, Slud 2019: "Comparative study of confidence intervals for proportions in complex sample
    surveys"). It stays inside [0, 1] and is not empty when all problems are right or all are wrong.

    Example: 8 problems, all 0: mean 0, from 0 to 0.41.

    Raises:
        ValueError: there is no problem.
    """
    if not values_P:
        raise ValueError("a mean over no problems")
    count, mean = len(values_P), fmean(values_P)
    if count == 1:
        return Estimate(mean=mean, low=0.0, high=1.0)
    squared_error = variance(values_P, mean) / count
    effective = max(1.0, mean * (1 - mean) / squared_error) if squared_error > 0 else float(count)
    quantile = _quantile(count - 1)
    shrunk = 1 + quantile**2 / effective
    centre = (mean + quantile**2 / (2 * effective)) / shrunk
    half = quantile / shrunk * math.sqrt(mean * (1 - mean) / effective + quantile**2 / (4 * effective**2))
    return Estimate(mean=mean, low=max(0.0, min(mean, centre - half)), high=min(1.0, max(mean, centre + half)))


def paired_difference(first_P: Sequence[float], second_P: Sequence[float]) -> Difference:
    """Mean of second - first over the same problems, with a paired t test.

    Where every problem has the same difference, nothing is known of its spread; two problems more, one step up and one
    down, then stand in for it (Agresti and Min 2005).

    Example: first (0, 0, 1, 0), second (1, 0, 1, 1): mean 0.5, p 0.18.

    Raises:
        ValueError: there are no problems, or not the same number.
    """
    differences = [second - first for first, second in zip(first_P, second_P, strict=True)]
    if not differences:
        raise ValueError("a difference over no problems")
    count, mean = len(differences), fmean(differences)
    spread = variance(differences, mean) if count > 1 else 0.0
    if spread <= 0:
        spread = variance([*differences, 1.0, -1.0])
    return _difference(mean, math.sqrt(spread / count), max(1.0, count - 1.0))


def mean_difference(parts: Sequence[Difference]) -> Difference:
    """The plain mean of differences on several sets, which share no problem; freedom after Welch and Satterthwaite."""
    count = len(parts)
    variances = [(part.error / count) ** 2 for part in parts]
    total = sum(variances)
    freedom = total**2 / sum(each**2 / part.freedom for each, part in zip(variances, parts, strict=True))
    return _difference(fmean(part.mean for part in parts), math.sqrt(total), freedom)


def _difference(mean: float, error: float, freedom: float) -> Difference:
    half = _quantile(freedom) * error
    return Difference(
        mean=mean,
        low=mean - half,
        high=mean + half,
        p=2 * float(student.sf(abs(mean) / error, freedom)),
        error=error,
        freedom=freedom,
    )


def _quantile(freedom: float) -> float:
    return float(student.ppf(0.5 + _LEVEL / 2, freedom))
