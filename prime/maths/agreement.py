"""Whether two programs that should compute the same did, and which of two weights an answer came from.

On plain floats, one log-prob in nats per token of a probe: the rollout loop does without torch.

Two right kernels of half precision differ by 0.3 nats on single tokens of a probe and by 0.06 on average (measured on
a model of 135 M parameters), and one update of an RL step moves single tokens by 0.03. So a limit on the largest
difference fits neither noise nor old weights. The mean over the probe is steady, and old weights are looked for along
the one direction in which new weights moved the probe.
"""

import math
from collections.abc import Sequence

_STANDARD_ERRORS = 5.0
_MEAN_TO_DEVIATION = math.sqrt(math.pi / 2)
"""Standard deviation over mean absolute value, of normal noise."""


def mean_gap(answer: Sequence[float], expected: Sequence[float]) -> float:
    """Mean absolute difference; infinite where an answer is no number.

    Raises:
        ValueError: not as many answers as expected ones.
    """
    gaps = [abs(ours - theirs) for ours, theirs in zip(answer, expected, strict=True)]
    gap = math.fsum(gaps) / len(gaps)
    return gap if math.isfinite(gap) else math.inf


def share_of_the_way(answer: Sequence[float], old: Sequence[float], new: Sequence[float]) -> float:
    """How far the answer went from `old` to `new`: 0 is old, 1 is new. 1 where both are the same.

    Example: from (0, 0) to (2, 0), the answer (0.5, 7) went 0.25 of the way.
    """
    length = math.dist(old, new) ** 2
    along = math.fsum((a - o) * (n - o) for a, o, n in zip(answer, old, new, strict=True))
    return along / length if length else 1.0


def tells_old_from_new(old: Sequence[float], new: Sequence[float], *, noise: float) -> bool:
    """Whether an answer's noise leaves no doubt if it came from old or from new weights.

    The answer's place between both has a standard deviation of `deviation / |new - old|`, and half way is the limit: it
    has to be five standard errors away.

    Args:
        noise: mean absolute difference of two right computations, in nats.
    """
    return math.dist(old, new) / 2 > _STANDARD_ERRORS * noise * _MEAN_TO_DEVIATION
