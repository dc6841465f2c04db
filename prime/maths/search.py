"""Which partial answers of a search go on, and when enough answers were sampled.

Shapes: N partial answers of one prompt.
"""

import torch
from torch import Tensor

_GRID = 4096
"""Points at which a Beta density is summed."""


def highest(scores_N: Tensor, count: int) -> list[int]:
    """The `count` best, the best first; of equals the earlier. Example: (0.1, 0.7, 0.7) and 2 give [1, 2]."""
    return torch.argsort(scores_N, descending=True, stable=True)[:count].tolist()


def resample(scores_N: Tensor, draw: float) -> list[int]:
    """N particles drawn with weights softmax(score), by systematic resampling from one `draw` in [0, 1).

    Particle n survives floor or ceil of N times its weight times, so equal scores leave all as they are (particle
    filtering over partial answers: Puri et al., arXiv 2502.01618; the PRM's value is the logit of a right answer).

    Example: scores (log 3, 0) have weights (0.75, 0.25); with draw 0 both places 0 and 0.5 lie in the first: [0, 0].
    """
    count = len(scores_N)
    ends_N = torch.softmax(scores_N.double(), dim=0).cumsum(0)
    places_N = (torch.arange(count, dtype=torch.float64) + draw) / count
    # The last end is 1 but for rounding.
    return torch.searchsorted(ends_N, places_N, right=True).clamp(max=count - 1).tolist()


def is_settled(votes: list[float], remaining: int, confidence: float) -> bool:
    """Whether more samples would hardly change who wins a vote; `votes` are the totals of the classes of answers.

    Yes when the second cannot catch up with what remains, each worth at most 1, or when the first is the more frequent
    one with a probability of at least `confidence`: Beta(first + 1, second + 1) above 1/2 (Adaptive-Consistency,
    Aggarwal et al., arXiv 2305.11860).

    Example: votes (4, 0) with 4 remaining: 1 - 0.5^5 = 0.969, settled at a confidence of 0.95.
    """
    if not votes:
        return remaining == 0
    first, second = [*sorted(votes, reverse=True), 0.0][:2]
    if first - second > remaining:
        return True
    share_G = (torch.arange(_GRID, dtype=torch.float64) + 0.5) / _GRID
    log_density_G = first * share_G.log() + second * (1 - share_G).log()
    density_G = (log_density_G - log_density_G.max()).exp()
    return bool(density_G[_GRID // 2 :].sum() >= confidence * density_G.sum())
