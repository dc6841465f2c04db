"""Implicit process rewards from two log-prob tensors, their granularity and their scale.

Shapes: B rows (samples of all groups), T response tokens (padded). `mask_BT` is True on response tokens, the end
token included. Source: PRIME (arXiv 2502.01456) eq. 3; ImplicitPRM (arXiv 2412.01981) prop. 3.1.
"""

import torch
from torch import Tensor

_TINY = 1e-6


def token_rewards(logprobs_T: Tensor, reference_T: Tensor, *, beta: float) -> Tensor:
    """`r_t = beta * (log pi_prm(y_t | x, y_<t) - log pi_ref(y_t | x, y_<t))` for one response, fp32. [T].

    Every response token has a reward, the end token too, so that they sum to the response reward.
    """
    return beta * (logprobs_T.float() - reference_T.float())


def rewards_at_ends(rewards_BT: Tensor, ends_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Sum the token rewards of each step and put the sum on the step's last token. [B, T].

    `ends_BT` marks the last token of every step; tokens after the last marked one count into a step that ends with
    the response. With nothing marked this is the granularity "whole": everything on the last response token.

    Example: rewards (1, 2, 3, 4) with an end at the second token become (0, 3, 0, 7).
    """
    ends_BT = (ends_BT | _last_token(mask_BT)) & mask_BT
    prefix_BT = torch.where(mask_BT, rewards_BT, 0.0).cumsum(dim=1)
    # What was summed up to the previous end: the largest end position before this one, looked up in the prefix.
    position_T = torch.arange(rewards_BT.shape[1], device=rewards_BT.device)
    latest_end_BT = torch.where(ends_BT, position_T, -1).cummax(dim=1).values
    previous_end_BT = torch.nn.functional.pad(latest_end_BT[:, :-1], (1, 0), value=-1)
    before_BT = torch.where(previous_end_BT >= 0, prefix_BT.gather(1, previous_end_BT.clamp(min=0)), 0.0)
    return torch.where(ends_BT, prefix_BT - before_BT, 0.0)


def normalise_rewards(rewards_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Divide by the largest |reverse cumulative sum| of the whole batch, so that every return lies in [-1, 1].

    The batch is the global one: the result must not depend on how rows are spread over workers. Rewards that are all
    zero stay zero.
    """
    returns_BT = reverse_cumsum(torch.where(mask_BT, rewards_BT, 0.0))
    return rewards_BT / (returns_BT.abs().max() + _TINY)


def overlong_penalties(lengths_B: Tensor, *, longest: int, window: int) -> Tensor:
    """What is added to the outcome of a long response: from 0 to -1 over the last `window` tokens. [B].

    DAPO's soft overlong punishment (arXiv 2503.14476, eq. 13): a response that was cut off at `longest` tokens was not
    wrong but unfinished, and one that nearly was is told so.

    Example: with `longest` 100 and `window` 20, responses of 80, 90 and 100 tokens get 0, -0.5 and -1.
    """
    return ((longest - window - lengths_B) / window).clamp(-1.0, 0.0)


def reverse_cumsum(values_BT: Tensor, *, gamma: float = 1.0) -> Tensor:
    """`out_t = sum_{s >= t} gamma^(s-t) * values_s`. [B, T].

    By doubling: after round k every entry holds the discounted sum of the next 2^k values, so log2(T) rounds do, and
    no power of gamma is ever divided by.
    """
    if gamma == 1.0:
        return values_BT.flip(1).cumsum(dim=1).flip(1)
    out_BT, stride = values_BT, 1
    while stride < values_BT.shape[1]:
        ahead_BT = torch.nn.functional.pad(out_BT[:, stride:], (0, stride))
        out_BT, stride = out_BT + gamma**stride * ahead_BT, 2 * stride
    return out_BT


def _last_token(mask_BT: Tensor) -> Tensor:
    position_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    last_B = torch.where(mask_BT, position_T, -1).max(dim=1).values
    return position_T == last_B[:, None]
