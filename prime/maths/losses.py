"""The clipped policy loss, the PRM losses, and the importance weight between sampler and trainer.

Shapes: N response tokens of any number of rows, laid end to end; B rows. A loss is a sum divided by a count of the
*global* batch that the caller passes in, so that any split into micro-batches or workers adds up to the same loss
and the same gradient.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

# exp() of a larger log-ratio says nothing more about the ratio, and overflows further on.
_LOG_RATIO_LIMIT = 20.0
# Of a sum over a response: no two scores that say something are so close.
_ROUNDING = 1e-5


class PolicyLoss(NamedTuple):
    """The loss, and two sums over the tokens given here, for metrics."""

    loss: Tensor
    clipped: Tensor
    """How many tokens the clip took the gradient from."""
    kl: Tensor
    """Sum of `(ratio - 1) - log ratio`: an estimate of KL(old || new), never negative."""


def clipped_policy_loss(
    logprobs_N: Tensor,
    old_logprobs_N: Tensor,
    advantages_N: Tensor,
    *,
    clip: float,
    num_tokens: int,
    clip_high: float | None = None,
    weights_N: Tensor | None = None,
) -> PolicyLoss:
    """PPO's clipped objective, token mean over the global batch (PPO, arXiv 1707.06347, eq. 7).

    Args:
        logprobs_N: of the current policy, with gradient.
        old_logprobs_N: of the policy before this update, from the same code; no gradient.
        advantages_N: no gradient.
        clip: ratios outside [1 - clip, 1 + clip_high] stop pulling further out.
        clip_high: None: as `clip`. Larger, it lets rare tokens gain (DAPO, arXiv 2503.14476, section 3.1).
        num_tokens: response tokens of the global batch: the denominator.
        weights_N: truncated importance weights towards the sampler, if any; no gradient.
    """
    log_ratio_N = (logprobs_N - old_logprobs_N).clamp(-_LOG_RATIO_LIMIT, _LOG_RATIO_LIMIT)
    ratio_N = log_ratio_N.exp()
    plain_N = -advantages_N * ratio_N
    clipped_N = -advantages_N * ratio_N.clamp(1.0 - clip, 1.0 + (clip if clip_high is None else clip_high))
    loss_N = torch.maximum(plain_N, clipped_N)
    if weights_N is not None:
        loss_N = loss_N * weights_N
    with torch.no_grad():
        num_clipped = (clipped_N > plain_N).sum()
        kl = (ratio_N - 1.0 - log_ratio_N).sum()
    return PolicyLoss(loss=loss_N.sum() / num_tokens, clipped=num_clipped, kl=kl)


def divergence(logprobs_N: Tensor, other_N: Tensor) -> Tensor:
    """Per token an estimate of KL(policy || other), without bias and never negative: `e^d - d - 1`, d = other - own.

    [N]. Source: Schulman, "Approximating KL divergence" (2020), estimator k3; GRPO (arXiv 2402.03300) eq. 4.
    """
    difference_N = (other_N - logprobs_N).clamp(-_LOG_RATIO_LIMIT, _LOG_RATIO_LIMIT)
    return difference_N.exp() - difference_N - 1.0


def importance_weights(trainer_logprobs_N: Tensor, sampler_logprobs_N: Tensor, *, cap: float) -> Tensor:
    """`min(pi_trainer / pi_sampler, cap)`: corrects for tokens from older weights or other kernels. [N], no gradient.

    Source: truncated importance sampling, arXiv 2505.24298 (AReaL) section 4.
    """
    log_ratio_N = (trainer_logprobs_N - sampler_logprobs_N).detach()
    return log_ratio_N.clamp(max=_LOG_RATIO_LIMIT).exp().clamp(max=cap)


def cross_entropy(logits_B: Tensor, outcomes_B: Tensor) -> Tensor:
    """Sum over rows of BCE between `sigmoid(logit)` and the outcome, which may be soft. Scalar.

    With logits, so that the gradient does not vanish where the PRM is most wrong.
    """
    return binary_cross_entropy_with_logits(logits_B, outcomes_B, reduction="sum")


def pairwise_dpo(logits_B: Tensor, outcomes_B: Tensor, group_B: Tensor) -> Tensor:
    """Mean over all pairs of one group with different outcomes of `-log sigmoid(better - worse)`. Scalar.

    0, with a zero gradient, when no group has such a pair.
    """
    better_BB = (group_B[:, None] == group_B[None, :]) & (outcomes_B[:, None] > outcomes_B[None, :])
    gap_BB = logits_B[:, None] - logits_B[None, :]
    loss_BB = torch.where(better_BB, -logsigmoid(gap_BB), 0.0)
    return loss_BB.sum() / better_BB.sum().clamp(min=1)


def pair_accuracy(scores_B: Tensor, outcomes_B: Tensor, group_B: Tensor) -> float:
    """Share of pairs within groups that the scores put in the order of the outcomes, weighted by the outcome gap.

    Equal scores count half, and so do those that differ by rounding alone: a PRM that is still its reference has 0.5,
    also where a machine's kernels round by the shape of a batch. A batch without any gap has nothing to say: 0.5.
    """
    gap_BB = outcomes_B[:, None] - outcomes_B[None, :]
    weight_BB = torch.where((group_B[:, None] == group_B[None, :]) & (gap_BB > 0), gap_BB, 0.0)
    total = weight_BB.sum()
    if total == 0:
        return 0.5
    difference_BB = scores_B[:, None] - scores_B[None, :]
    is_tie_BB = difference_BB.abs() < _ROUNDING
    agree_BB = torch.where(is_tie_BB, 0.5, (difference_BB > 0).to(weight_BB.dtype))
    return float((weight_BB * agree_BB).sum() / total)
