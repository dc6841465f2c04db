"""Rows laid end to end, and groups of rows.

Shapes: N tokens of B rows, laid end to end; `lengths_B` says how many each row has. `group_B` holds a group number per
row, in any order.
"""

import torch
from torch import Tensor


def row_of_token(lengths_B: Tensor) -> Tensor:
    """The row of each token. [N]. Example: lengths (2, 1) give (0, 0, 1)."""
    return torch.arange(len(lengths_B), device=lengths_B.device).repeat_interleave(lengths_B)


def place_of_token(lengths_B: Tensor) -> Tensor:
    """The place of each token in its row, counted from 0. [N]. Example: lengths (2, 1) give (0, 1, 0)."""
    first_B = lengths_B.cumsum(dim=0) - lengths_B
    total = int(lengths_B.sum())
    return torch.arange(total, device=lengths_B.device) - first_B.repeat_interleave(lengths_B)


def row_sums(values_N: Tensor, lengths_B: Tensor) -> Tensor:
    """The sum of each row's values. [B]."""
    return values_N.new_zeros(len(lengths_B)).index_add_(0, row_of_token(lengths_B), values_N)


def group_sums(values_B: Tensor, group_B: Tensor) -> Tensor:
    """Each row's group total, of any number of columns. [B, ...].

    Example: values (1, 2, 4) of groups (0, 0, 1) give (3, 3, 4).
    """
    number_B = torch.unique(group_B, return_inverse=True)[1]
    totals = values_B.new_zeros(int(number_B.max()) + 1, *values_B.shape[1:]).index_add_(0, number_B, values_B)
    return totals[number_B]


def group_means(values_B: Tensor, group_B: Tensor) -> Tensor:
    """Each row's group mean. [B]."""
    return group_sums(values_B, group_B) / group_sums(torch.ones_like(values_B), group_B)
