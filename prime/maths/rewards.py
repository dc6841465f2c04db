"""Implicit process rewards from two log-prob tensors, what a step is worth, their bounds and their scale.

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
    ends_BT = (ends_BT | last_tokens(mask_BT)) & mask_BT
    prefix_BT = torch.where(mask_BT, rewards_BT, 0.0).cumsum(dim=1)
    return torch.where(ends_BT, prefix_BT - _at_previous_end(prefix_BT, ends_BT), 0.0)


def value_differences_at_ends(rewards_BT: Tensor, ends_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """By how much each step changes the value of the response so far, on the step's last token. [B, T].

    The value after t tokens is the mean of their rewards, as the `prefix` loss learns it (IPVRM, arXiv 2604.13197,
    eq. 9 and the difference that follows it). With every token an end, this is the temporal difference per token. The
    differences of a response add up to its mean reward.

    Example: rewards (1, 3, -4) with ends at the second and third token have the values 2 and 0, so (0, 2, -2).
    """
    ends_BT = (ends_BT | last_tokens(mask_BT)) & mask_BT
    place_T = torch.arange(1, rewards_BT.shape[1] + 1, device=rewards_BT.device)
    value_BT = torch.where(mask_BT, rewards_BT, 0.0).cumsum(dim=1) / place_T
    return torch.where(ends_BT, value_BT - _at_previous_end(value_BT, ends_BT), 0.0)


def bounded_rewards(rewards_BT: Tensor, *, limit: float, kind: str) -> Tensor:
    """Rewards within [-limit, limit]: `clip` cuts them, `tanh` bends them (`limit * tanh(r / limit)`). [B, T].

    A single token's log-ratio can outweigh a whole response, and a policy finds such tokens.
    """
    if kind == "tanh":
        return limit * torch.tanh(rewards_BT / limit)
    return rewards_BT.clamp(-limit, limit)


def min_form(rewards_BT: Tensor, at_BT: Tensor, *, temperature: float) -> Tensor:
    """PURE's credit (arXiv 2504.15275, eq. 5): the sum of a response's rewards is close to its least one. [B, T].

    Each reward counts by `softmax(-r / temperature)` over the places of its response that have one (`at_BT`).

    Example: rewards (1, -1) with temperature 0.1 become about (0, -1).
    """
    weights_BT = torch.softmax(torch.where(at_BT, -rewards_BT / temperature, -torch.inf), dim=1)
    return torch.where(at_BT, weights_BT * rewards_BT, 0.0)


def largest_return(rewards_BT: Tensor, mask_BT: Tensor) -> float:
    """The largest |reverse cumulative sum| of the batch."""
    return float(reverse_cumsum(torch.where(mask_BT, rewards_BT, 0.0)).abs().max())


def root_mean_square_return(rewards_BT: Tensor, mask_BT: Tensor) -> float:
    """Root of the mean squared reverse cumulative sum over the batch's response tokens."""
    returns_BT = reverse_cumsum(torch.where(mask_BT, rewards_BT, 0.0))
    return float((returns_BT[mask_BT].square().mean()).sqrt())


def normalise_rewards(rewards_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Divide by the largest |reverse cumulative sum| of the whole batch, so that every return lies in [-1, 1].

    The batch is the global one: the result must not depend on how rows are spread over workers. Rewards that are all
    zero stay zero.
    """
    return rewards_BT / (largest_return(rewards_BT, mask_BT) + _TINY)


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


def _at_previous_end(values_BT: Tensor, ends_BT: Tensor) -> Tensor:
    """The value at the nearest marked token before each token; 0 before the first. [B, T]."""
    position_T = torch.arange(values_BT.shape[1], device=values_BT.device)
    latest_end_BT = torch.where(ends_BT, position_T, -1).cummax(dim=1).values
    previous_end_BT = torch.nn.functional.pad(latest_end_BT[:, :-1], (1, 0), value=-1)
    return torch.where(previous_end_BT >= 0, values_BT.gather(1, previous_end_BT.clamp(min=0)), 0.0)


def last_tokens(mask_BT: Tensor) -> Tensor:
    """True on the last response token of each row. [B, T]."""
    position_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    last_B = torch.where(mask_BT, position_T, -1).max(dim=1).values
    return position_T == last_B[:, None]
