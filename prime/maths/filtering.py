"""The online prompt filter: which groups carry signal. Source: PRIME (arXiv 2502.01456) section 3.3."""

from collections.abc import Sequence

# A mean of thirds or fifths must not fall out of the band by rounding.
_SLACK = 1e-9


def in_band(outcomes: Sequence[float], *, low: float, high: float) -> bool:
    """Whether the mean outcome of a group lies in [low, high], bounds included.

    Example: with 0.2 and 0.8 and four samples, exactly one, two or three passed ones are kept.
    """
    mean = sum(outcomes) / len(outcomes)
    return low - _SLACK <= mean <= high + _SLACK
