"""The clipped policy loss, and the importance weight between sampler and trainer.

Shapes: N response tokens of any number of rows, laid end to end; B rows. A policy loss is a sum in which each token has
a share of the *global* batch, so that any split into micro-batches or workers adds up to the same loss and the same
gradient.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from prime.maths.rows import row_of_token, row_sums

# exp() of a larger log-ratio says nothing more about the ratio, and overflows further on.
_LOG_RATIO_LIMIT = 20.0


class PolicyLoss(NamedTuple):
    """The loss, and two sums over the tokens given here, for metrics."""

    loss: Tensor
    clipped: Tensor
    """How many tokens the clip took the gradient from."""
    kl: Tensor
    """Sum of `(ratio - 1) - log ratio`: an estimate of KL(old || new), never negative."""


def token_shares(lengths_B: Tensor, *, mean: str, num_tokens: int, num_rows: int, longest: int) -> Tensor:
    """What each token counts in the mean over the global batch, rows laid end to end. [N].

    Example: rows of 1 and 3 tokens, alone in their batch, `longest` 4: `token` gives 1/4 each; `sequence` 1/2, and 1/6
    three times; `constant` 1/8 each.

    Args:
        lengths_B: response tokens of each row given here.
        mean: `token`: over all tokens (DAPO, arXiv 2503.14476, eq. 8). `sequence`: over rows of the mean over their
            tokens (GRPO, arXiv 2402.03300, eq. 3). `constant`: the sum over `longest` tokens a row, so that length has
            no influence (Dr. GRPO, arXiv 2503.20783, section 3).
        num_tokens: of the global batch.
        num_rows: of the global batch.
        longest: the largest number of tokens that a response may have.
    """
    match mean:
        case "token":
            shares_B = torch.full_like(lengths_B, 1 / num_tokens, dtype=torch.float32)
        case "sequence":
            shares_B = 1 / (lengths_B.clamp(min=1) * num_rows)
        case _:
            shares_B = torch.full_like(lengths_B, 1 / (longest * num_rows), dtype=torch.float32)
    return shares_B.repeat_interleave(lengths_B)


def clipped_policy_loss(
    logprobs_N: Tensor,
    old_logprobs_N: Tensor,
    advantages_N: Tensor,
    *,
    shares_N: Tensor,
    bounds: tuple[float, float],
    dual_clip: float | None = None,
    lengths_B: Tensor | None = None,
) -> PolicyLoss:
    """PPO's clipped objective (arXiv 1707.06347, eq. 7), or with `lengths_B` GSPO's (arXiv 2507.18071, eq. 5 and 14).

    Args:
        logprobs_N: of the current policy, with gradient.
        old_logprobs_N: of the policy before this update, from the same code; no gradient.
        advantages_N: no gradient.
        shares_N: what each token counts: `token_shares`, times importance weights where there are any; no gradient.
        bounds: (low, high): ratios outside [1 - low, 1 + high] stop pulling further out. A larger `high` lets rare
            tokens gain (DAPO, arXiv 2503.14476, section 3.1).
        dual_clip: what a token with a negative advantage can lose at most, in advantages (arXiv 1912.09729, eq. 5).
        lengths_B: the rows' lengths: every token then has its row's ratio, the geometric mean of the tokens' ratios.
    """
    log_ratio_N = _log_ratios(logprobs_N, old_logprobs_N)
    ratio_N = log_ratio_N.exp() if lengths_B is None else _row_ratios(log_ratio_N, lengths_B)
    plain_N = -advantages_N * ratio_N
    clipped_N = -advantages_N * ratio_N.clamp(1.0 - bounds[0], 1.0 + bounds[1])
    loss_N = torch.maximum(plain_N, clipped_N)
    if dual_clip is not None:
        loss_N = torch.where(advantages_N < 0, torch.minimum(loss_N, -advantages_N * dual_clip), loss_N)
    return _summed(loss_N, shares_N, num_clipped=(clipped_N > plain_N).sum(), log_ratio_N=log_ratio_N)


def cispo_policy_loss(
    logprobs_N: Tensor,
    old_logprobs_N: Tensor,
    advantages_N: Tensor,
    *,
    shares_N: Tensor,
    bounds: tuple[float, float],
) -> PolicyLoss:
    """CISPO: the ratio is a weight that is clipped, and every token keeps its gradient (arXiv 2506.13585, eq. 4 and 5).

    Arguments as of `clipped_policy_loss`.
    """
    log_ratio_N = _log_ratios(logprobs_N, old_logprobs_N)
    ratio_N = log_ratio_N.detach().exp()
    bounded_N = ratio_N.clamp(1.0 - bounds[0], 1.0 + bounds[1])
    loss_N = -bounded_N * advantages_N * logprobs_N
    return _summed(loss_N, shares_N, num_clipped=(bounded_N != ratio_N).sum(), log_ratio_N=log_ratio_N)


def _log_ratios(logprobs_N: Tensor, old_logprobs_N: Tensor) -> Tensor:
    return (logprobs_N - old_logprobs_N).clamp(-_LOG_RATIO_LIMIT, _LOG_RATIO_LIMIT)


def _row_ratios(log_ratio_N: Tensor, lengths_B: Tensor) -> Tensor:
    """Of every token the ratio of its row; its gradient is the token's own."""
    row_N = row_of_token(lengths_B)
    mean_B = row_sums(log_ratio_N.detach(), lengths_B) / lengths_B.clamp(min=1)
    return mean_B.exp()[row_N] * (log_ratio_N - log_ratio_N.detach()).exp()


def _summed(loss_N: Tensor, shares_N: Tensor, *, num_clipped: Tensor, log_ratio_N: Tensor) -> PolicyLoss:
    with torch.no_grad():
        kl = (log_ratio_N.exp() - 1.0 - log_ratio_N).sum()
    return PolicyLoss(loss=(loss_N * shares_N).sum(), clipped=num_clipped, kl=kl)


def divergence(logprobs_N: Tensor, other_N: Tensor) -> Tensor:
    """Per token an estimate of KL(policy || other), without bias and never negative: `e^d - d - 1`, d = other - own.

    [N]. Source: Schulman, "Approximating KL divergence" (2020), estimator k3; GRPO (arXiv 2402.03300) eq. 4.
    """
    difference_N = (other_N - logprobs_N).clamp(-_LOG_RATIO_LIMIT, _LOG_RATIO_LIMIT)
    return difference_N.exp() - difference_N - 1.0


def importance_weights(
    trainer_logprobs_N: Tensor,
    sampler_logprobs_N: Tensor,
    *,
    cap: float,
    kind: str = "truncated",
    lengths_B: Tensor | None = None,
) -> Tensor:
    """`pi_trainer / pi_sampler`, bounded: corrects for tokens from older weights or other kernels. [N], no gradient.

    Example: log-ratios (0.1, 1) of one row with a cap of 2: `truncated` gives 1.11 and 2, `masked` 1.11 and 0,
    `sequence` 2 and 2.

    Args:
        cap: the largest weight.
        kind: `truncated`: a larger one is cut to the cap (AReaL, arXiv 2505.24298, section 4). `masked`: one outside
            [1 / cap, cap] is 0, so the token is not learnt from. `sequence`: all tokens of a row have the product of
            its weights, cut to the cap.
        lengths_B: the rows' lengths, for `sequence`.
    """
    log_ratio_N = (trainer_logprobs_N - sampler_logprobs_N).detach()
    if kind == "sequence":
        if lengths_B is None:
            raise ValueError("weights of whole rows need the rows' lengths")
        log_ratio_N = row_sums(log_ratio_N, lengths_B)[row_of_token(lengths_B)]
    weights_N = log_ratio_N.clamp(max=_LOG_RATIO_LIMIT).exp()
    if kind == "masked":
        return torch.where((weights_N <= cap) & (weights_N * cap >= 1), weights_N, 0.0)
    return weights_N.clamp(max=cap)
