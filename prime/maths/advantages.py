"""Advantages per token from outcomes and token rewards: leave-one-out on each source, summed, whitened.

Shapes: B rows, T response tokens (padded). `group_B` holds a group number per row: rows of one group share a
prompt and may stand in any order. Source: PRIME (arXiv 2502.01456) eq. 5, 7 and 8.
"""

import torch
from torch import Tensor

from prime.maths.rewards import reverse_cumsum

_EPS = 1e-8


def leave_one_out_mean(values_B: Tensor, group_B: Tensor) -> Tensor:
    """Mean of the other rows of the same group. [B].

    Example: values (1, 0, 0) of one group give (0, 0.5, 0.5).

    Raises:
        ValueError: a group has one row, so there is no other.
    """
    count_B = _group_sum(torch.ones_like(values_B), group_B)
    if bool((count_B < 2).any()):
        raise ValueError("leave-one-out needs at least 2 samples per prompt; a group has 1")
    return (_group_sum(values_B, group_B) - values_B) / (count_B - 1)


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
    rewards_BT: Tensor,
    outcomes_B: Tensor,
    mask_BT: Tensor,
    group_B: Tensor,
    *,
    gamma: float,
    process_coef: float,
    outcome_coef: float,
) -> Tensor:
    """PRIME's estimator before whitening: `process_coef * A^p_t + outcome_coef * A^o`. [B, T]."""
    process_BT = process_advantages(rewards_BT, mask_BT, group_B, gamma=gamma)
    outcome_B = outcome_advantages(outcomes_B, group_B)
    return torch.where(mask_BT, process_coef * process_BT + outcome_coef * outcome_B[:, None], 0.0)


def reinforce(
    rewards_BT: Tensor,
    outcomes_B: Tensor,
    mask_BT: Tensor,
    *,
    gamma: float,
    process_coef: float,
    outcome_coef: float,
) -> Tensor:
    """The raw sum of outcome and process returns, no baseline (PRIME app. B.3). [B, T]."""
    returns_BT = reverse_cumsum(torch.where(mask_BT, rewards_BT, 0.0), gamma=gamma)
    return torch.where(mask_BT, process_coef * returns_BT + outcome_coef * outcomes_B[:, None], 0.0)


def grpo(
    rewards_BT: Tensor,
    outcomes_B: Tensor,
    mask_BT: Tensor,
    group_B: Tensor,
    *,
    gamma: float,
    process_coef: float,
    outcome_coef: float,
) -> Tensor:
    """Both sources standardised within the group (PRIME eq. 7 and 8). [B, T].

    A group in which every value is the same carries no signal and gives 0.
    """
    outcome_B = _standardise(outcomes_B, outcomes_B, group_B)
    mean_B = mean_token_reward(rewards_BT, mask_BT)
    centred_BT = torch.where(mask_BT, _standardise(rewards_BT, mean_B, group_B), 0.0)
    process_BT = reverse_cumsum(centred_BT, gamma=gamma)
    return torch.where(mask_BT, process_coef * process_BT + outcome_coef * outcome_B[:, None], 0.0)


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
    count_B = _group_sum(torch.ones_like(of_rows_B), group_B)
    mean_B = _group_sum(of_rows_B, group_B) / count_B
    deviation_B = (_group_sum((of_rows_B - mean_B).square(), group_B) / count_B).sqrt()
    scale_B = torch.where(deviation_B > _EPS, 1.0 / deviation_B.clamp(min=_EPS), 0.0)
    shape = (-1,) + (1,) * (values.dim() - 1)
    return (values - mean_B.view(shape)) * scale_B.view(shape)


def _group_sum(values_B: Tensor, group_B: Tensor) -> Tensor:
    """Each row's group total. [B]."""
    group_B = torch.unique(group_B, return_inverse=True)[1]
    total_G = values_B.new_zeros(int(group_B.max()) + 1).index_add_(0, group_B, values_B)
    return total_G[group_B]
