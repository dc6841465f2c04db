"""What a PRM's scores are worth: on pairs of responses, as probabilities, and on single steps.

Shapes: B rows, S steps, T response tokens (padded). `group_B` holds a group number per row, in any order.
"""

import torch
from torch import Tensor

# Of a sum over a response: no two scores that say something are so close.
_ROUNDING = 1e-5
_BINS = 10


def pair_agreement(scores_B: Tensor, outcomes_B: Tensor, group_B: Tensor) -> tuple[float, float]:
    """How many pairs within groups the scores put in the order of the outcomes, and how many there are.

    A pair counts as much as its outcomes differ. Equal scores count half, and so do those that differ by rounding
    alone: a PRM that is still its reference agrees with half of the pairs, also where a machine's kernels round by the
    shape of a batch.
    """
    gap_BB = outcomes_B[:, None] - outcomes_B[None, :]
    weight_BB = torch.where((group_B[:, None] == group_B[None, :]) & (gap_BB > 0), gap_BB, 0.0)
    difference_BB = scores_B[:, None] - scores_B[None, :]
    is_tie_BB = difference_BB.abs() < _ROUNDING
    agree_BB = torch.where(is_tie_BB, 0.5, (difference_BB > 0).to(weight_BB.dtype))
    return float((weight_BB * agree_BB).sum()), float(weight_BB.sum())


def pair_accuracy(scores_B: Tensor, outcomes_B: Tensor, group_B: Tensor) -> float:
    """Share of pairs within groups that the scores put in the order of the outcomes, as `pair_agreement` counts them.

    A batch without any pair has nothing to say: 0.5.
    """
    agreeing, total = pair_agreement(scores_B, outcomes_B, group_B)
    return agreeing / total if total else 0.5


def calibration_error(logits_B: Tensor, outcomes_B: Tensor) -> float:
    """Mean gap between predicted and observed share of right responses, over ten bins of the prediction.

    The expected calibration error (arXiv 1706.04599, eq. 3): 0 is perfect. A few dozen rows alone give about 0.1.

    Example: logits (0, 0) with outcomes (1, 1) have an error of 0.5.
    """
    predicted_B = logits_B.sigmoid()
    bin_B = (predicted_B * _BINS).long().clamp(max=_BINS - 1)
    gaps = predicted_B.new_zeros(_BINS).index_add_(0, bin_B, predicted_B - outcomes_B)
    return float(gaps.abs().sum() / len(logits_B))


def step_auc(scores_S: Tensor, is_right_S: Tensor) -> float:
    """Probability that a right step has a larger score than a wrong one; equal scores count half. 0.5 without either.

    The area under the ROC curve, by ranks.

    Example: scores (3, 1, 2) with the second step wrong give 1; with the first one wrong 0.
    """
    right_S, wrong_S = scores_S[is_right_S], scores_S[~is_right_S]
    if not len(right_S) or not len(wrong_S):
        return 0.5
    order_S = torch.unique(torch.cat([right_S, wrong_S]).double(), return_inverse=True)[1]
    # Of every score how many wrong ones lie below it, and how many equal it.
    counts = torch.bincount(order_S[len(right_S) :], minlength=int(order_S.max()) + 1).double()
    below = counts.cumsum(dim=0) - counts / 2
    return float(below[order_S[: len(right_S)]].mean() / len(wrong_S))


def end_token_share(rewards_BT: Tensor, mask_BT: Tensor) -> float:
    """Share of the absolute reward that lies on each response's last token; 0 where all rewards are 0.

    Example: rewards (1, -1, 2) give 0.5.
    """
    sizes_BT = torch.where(mask_BT, rewards_BT.abs(), 0.0)
    last_B1 = mask_BT.sum(dim=1, keepdim=True) - 1
    total = float(sizes_BT.sum())
    return float(sizes_BT.gather(1, last_B1.clamp(min=0)).sum()) / total if total else 0.0


def shuffled_within_rows(rewards_BT: Tensor, mask_BT: Tensor, generator: torch.Generator) -> Tensor:
    """The same rewards at other places of the same response: what a placebo has. [B, T]."""
    keys_BT = torch.where(mask_BT, torch.rand(rewards_BT.shape, generator=generator), 2.0)
    return rewards_BT.gather(1, keys_BT.argsort(dim=1)).where(mask_BT, torch.zeros(()))
