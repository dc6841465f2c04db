"""Advantages per token from outcomes and token rewards: an estimator for each source, their sum, whitening.

Shapes: B rows, T response tokens (padded). `group_B` holds a group number per row: rows of one group share a
prompt and may stand in any order. Source: PRIME (arXiv 2502.01456) eq. 5, 7 and 8.
"""

import torch
from torch import Tensor

from prime.maths.rewards import reverse_cumsum
from prime.maths.rows import group_sums

_EPS = 1e-8


def leave_one_out_mean(values_B: Tensor, group_B: Tensor) -> Tensor:
    """Mean of the other rows of the same group. [B].

    Example: values (1, 0, 0) of one group give (0, 0.5, 0.5).

    Raises:
        ValueError: a group has one row, so there is no other.
    """
    count_B = group_sums(torch.ones_like(values_B), group_B)
    if bool((count_B < 2).any()):
        raise ValueError("leave-one-out needs at least 2 samples per prompt; a group has 1")
    return (group_sums(values_B, group_B) - values_B) / (count_B - 1)


def outcome_advantages(outcomes_B: Tensor, group_B: Tensor) -> Tensor:
    """RLOO on the outcome: `o_i - mean_{j != i} o_j`. [B]."""
    return outcomes_B - leave_one_out_mean(outcomes_B, group_B)


def process_advantages(rewards_BT: Tensor, mask_BT: Tensor, group_B: Tensor, *, gamma: float) -> Tensor:
    """`sum_{s >= t} gamma^(s-t) * (r_s - mean_{j != i} rbar_j)` on response tokens, 0 elsewhere. [B, T].

    `rbar_j` is the mean token reward of sample j: the baseline is length-averaged, as in the published code.
    """
    baseline_B = leave_one_out_mean(mean_token_reward(rewards_BT, mask_BT), group_B)
    centred_BT = torch.where(mask_BT, rewards_BT - baseline_B[:, None], 0.0)
    return torch.where(mask_BT, reverse_cumsum(centred_BT, gamma=gamma), 0.0)


def rloo(
    rewards_BT: Tensor, outcomes_B: Tensor, mask_BT: Tensor, group_B: Tensor, *, gamma: float
) -> tuple[Tensor, Tensor]:
    """PRIME's estimator (eq. 5): both sources against the other samples of the group. ([B, T], [B])."""
    return process_advantages(rewards_BT, mask_BT, group_B, gamma=gamma), outcome_advantages(outcomes_B, group_B)


def reinforce(rewards_BT: Tensor, outcomes_B: Tensor, mask_BT: Tensor, *, gamma: float) -> tuple[Tensor, Tensor]:
    """Process returns and outcomes as they are, no baseline (PRIME app. B.3). ([B, T], [B])."""
    return reverse_cumsum(torch.where(mask_BT, rewards_BT, 0.0), gamma=gamma), outcomes_B


def grpo(
    rewards_BT: Tensor, outcomes_B: Tensor, mask_BT: Tensor, group_B: Tensor, *, gamma: float
) -> tuple[Tensor, Tensor]:
    """Both sources standardised within the group (PRIME eq. 7 and 8). ([B, T], [B]).

    A group in which every value is the same carries no signal and gives 0.
    """
    mean_B = mean_token_reward(rewards_BT, mask_BT)
    centred_BT = torch.where(mask_BT, _standardise(rewards_BT, mean_B, group_B), 0.0)
    return reverse_cumsum(centred_BT, gamma=gamma), _standardise(outcomes_B, outcomes_B, group_B)


def spro(rewards_BT: Tensor, outcomes_B: Tensor, mask_BT: Tensor, group_B: Tensor) -> tuple[Tensor, Tensor]:
    """SPRO (arXiv 2507.01551): rewards summed up to each token, against the group at that token. ([B, T], [B]).

    Its masked step advantage compares with the mean over the samples of the group that are so long; the outcome is
    standardised within the group. In SPRO the rewards are the policy's own log-ratios.

    Example: rewards (1, 1) and (3,) of one group are summed to (1, 2) and (3,): advantages (-1, 0) and (1,).
    """
    summed_BT = torch.where(mask_BT, rewards_BT, 0.0).cumsum(dim=1)
    present_BT = mask_BT.to(rewards_BT.dtype)
    mean_BT = group_sums(summed_BT * present_BT, group_B) / group_sums(present_BT, group_B).clamp(min=1)
    return torch.where(mask_BT, summed_BT - mean_BT, 0.0), _standardise(outcomes_B, outcomes_B, group_B)


def combine(
    process_BT: Tensor, outcome_B: Tensor, mask_BT: Tensor, *, process_coef: float, outcome_coef: float
) -> Tensor:
    """`process_coef * A^p_t + outcome_coef * A^o` (PRIME eq. 5). [B, T]."""
    return torch.where(mask_BT, process_coef * process_BT + outcome_coef * outcome_B[:, None], 0.0)


def combine_apart(
    process_BT: Tensor, outcome_B: Tensor, mask_BT: Tensor, *, process_coef: float, outcome_coef: float
) -> Tensor:
    """As `combine`, each source whitened first: the coefficients are what each weighs (iStar, arXiv 2509.19199).

    [B, T].

    A process advantage that is a hundred times smaller than the outcome's then counts as much as it, noise or not.
    """
    outcome_BT = outcome_B[:, None].expand_as(process_BT)
    return process_coef * whiten(process_BT, mask_BT) + outcome_coef * whiten(outcome_BT, mask_BT)


def whiten(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean 0 and variance 1 over all response tokens of the global batch; 0 elsewhere. [B, T]."""
    count = mask_BT.sum()
    mean = torch.where(mask_BT, values_BT, 0.0).sum() / count
    centred_BT = torch.where(mask_BT, values_BT - mean, 0.0)
    return centred_BT * torch.rsqrt(centred_BT.square().sum() / count + _EPS)


def mean_token_reward(rewards_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """`rbar`: mean over each row's response tokens. [B]."""
    return torch.where(mask_BT, rewards_BT, 0.0).sum(dim=1) / mask_BT.sum(dim=1)


def _standardise(values: Tensor, of_rows_B: Tensor, group_B: Tensor) -> Tensor:
    """Subtract the group's mean of `of_rows_B` from `values` [B] or [B, T], divide by its standard deviation."""
    count_B = group_sums(torch.ones_like(of_rows_B), group_B)
    mean_B = group_sums(of_rows_B, group_B) / count_B
    deviation_B = (group_sums((of_rows_B - mean_B).square(), group_B) / count_B).sqrt()
    scale_B = torch.where(deviation_B > _EPS, 1.0 / deviation_B.clamp(min=_EPS), 0.0)
    shape = (-1,) + (1,) * (values.dim() - 1)
    return (values - mean_B.view(shape)) * scale_B.view(shape)


def shared_prefix_counts(ids_BT: Tensor, mask_BT: Tensor, group_B: Tensor) -> Tensor:
    """How many samples of the group are equal up to and including each token; 1 where masked out. [B, T].

    The outcome of such a prefix is learnt from as often as it has samples: lambda-GRPO (arXiv 2509.21154) each token's
    loss by this count.

    Example: responses (7, 8) and (7, 9) of one group give (2, 1) and (2, 1).
    """
    counts_BT = torch.ones_like(ids_BT)
    for group in torch.unique(group_B):
        rows = (group_B == group).nonzero().squeeze(1)
        ids_KT, mask_KT = ids_BT[rows], mask_BT[rows]
        equal_KKT = (ids_KT[:, None] == ids_KT[None, :]) & mask_KT[:, None] & mask_KT[None, :]
        counts_BT[rows] = equal_KKT.long().cummin(dim=2).values.sum(dim=1)
    return torch.where(mask_BT, counts_BT, 1)
