"""What an implicit PRM learns from outcomes: on whole responses, on pairs of them, or on every prefix.

Shapes: N response tokens of B rows, laid end to end; B rows. A ratio is `log pi_prm - log pi_ref` of one token.
Sources: ImplicitPRM (arXiv 2412.01981) for `cross_entropy` and `pairwise_dpo`; IPVRM (arXiv 2604.13197) for values of
prefixes and for the balance of an online update.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from prime.maths.rows import group_means, group_sums, place_of_token, row_of_token, row_sums


def response_logits(ratios_N: Tensor, lengths_B: Tensor, *, beta: float) -> Tensor:
    """`beta` times the sum of a response's ratios: the log-odds of its outcome (ImplicitPRM, prop. 3.1). [B]."""
    return beta * row_sums(ratios_N, lengths_B)


def prefix_values(ratios_N: Tensor, lengths_B: Tensor, *, beta: float) -> Tensor:
    """`beta` times the mean of the ratios up to each token (IPVRM, eq. 9): the log-odds of the outcome so far. [N].

    Example: ratios (1, 3) and (-2,) with beta 1 give (1, 2) and (-2,).
    """
    # In float64: one sum runs over all rows, and each row's is the difference of two of its entries.
    total_N = ratios_N.double().cumsum(dim=0)
    before_B = torch.nn.functional.pad(total_N, (1, 0))[lengths_B.cumsum(dim=0) - lengths_B]
    sums_N = (total_N - before_B[row_of_token(lengths_B)]).to(ratios_N.dtype)
    return beta * sums_N / (place_of_token(lengths_B) + 1)


def cross_entropy(
    logits: Tensor,
    outcomes: Tensor,
    *,
    margin: float = 0.0,
    shifts: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Sum of the cross-entropy between `sigmoid(logit)` and the outcome, which may be soft. Scalar.

    With logits, so that the gradient does not vanish where the PRM is most wrong. All tensors have one shape.

    Args:
        logits: log-odds that the outcome is 1.
        outcomes: in [0, 1].
        margin: how far beyond 0 a logit should be, on either side (IPVRM, eq. 9).
        shifts: what is known of the outcome without the logit, in log-odds: `difficulty_shifts`.
        weights: what each outcome counts: `label_weights`.
    """
    logits = logits if shifts is None else logits + shifts
    losses = outcomes * softplus(margin - logits) + (1.0 - outcomes) * softplus(margin + logits)
    return (losses if weights is None else losses * weights).sum()


def prefix_cross_entropy(
    values_N: Tensor,
    outcomes_B: Tensor,
    lengths_B: Tensor,
    *,
    emphasis: str,
    margin: float = 0.0,
    shifts_B: Tensor | None = None,
    weights_B: Tensor | None = None,
) -> Tensor:
    """`cross_entropy` of a row's outcome at each of its `prefix_values`, whose weights add up to the row's. Scalar."""
    shares_N = prefix_weights(lengths_B, emphasis=emphasis)
    return cross_entropy(
        values_N,
        outcomes_B.repeat_interleave(lengths_B),
        margin=margin,
        shifts=None if shifts_B is None else shifts_B.repeat_interleave(lengths_B),
        weights=shares_N if weights_B is None else weights_B.repeat_interleave(lengths_B) * shares_N,
    )


def pairwise_dpo(logits_B: Tensor, outcomes_B: Tensor, group_B: Tensor) -> Tensor:
    """Mean over all pairs of one group with different outcomes of `-log sigmoid(better - worse)`. Scalar.

    0, with a zero gradient, when no group has such a pair.
    """
    better_BB = (group_B[:, None] == group_B[None, :]) & (outcomes_B[:, None] > outcomes_B[None, :])
    gap_BB = logits_B[:, None] - logits_B[None, :]
    loss_BB = torch.where(better_BB, -logsigmoid(gap_BB), 0.0)
    return loss_BB.sum() / better_BB.sum().clamp(min=1)


def prefix_weights(lengths_B: Tensor, *, emphasis: str) -> Tensor:
    """What each prefix of a response counts; a response's add up to 1. [N].

    Example: for 3 tokens `even` gives 1/3 each, `late` 1/6, 2/6, 3/6 and `early` 3/6, 2/6, 1/6. IPVRM finds that late
    prefixes help to choose among responses, and early ones to find the first error (tables 3 and 4).
    """
    length_N = lengths_B.repeat_interleave(lengths_B).float()
    place_N = place_of_token(lengths_B) + 1.0
    match emphasis:
        case "late":
            return 2.0 * place_N / (length_N * (length_N + 1.0))
        case "early":
            return 2.0 * (length_N - place_N + 1.0) / (length_N * (length_N + 1.0))
        case _:
            return 1.0 / length_N


def label_weights(outcomes_B: Tensor, group_B: Tensor) -> Tensor:
    """Weights with which right and wrong responses of a group count alike; 1 on average. [B].

    A response counts as much as the other outcome is frequent in its group: IPVRM's dynamic loss weighting. A group in
    which all outcomes are equal keeps weights of 1.

    Example: outcomes (1, 1, 1, 0) give (2/3, 2/3, 2/3, 2).
    """
    mean_B = group_means(outcomes_B, group_B)
    raw_B = outcomes_B * (1.0 - mean_B) + (1.0 - outcomes_B) * mean_B
    scale_B = group_means(raw_B, group_B)
    return torch.where(scale_B > 0, raw_B / scale_B.clamp(min=1e-8), 1.0)


def difficulty_shifts(outcomes_B: Tensor, group_B: Tensor) -> Tensor:
    """The log-odds of a right response to the row's prompt: IPVRM's adaptive difficulty boundary. [B].

    Added to the logit, it leaves to the PRM only what the prompt's difficulty does not explain. A share of 0 or 1
    counts as half a response away from it.

    Example: outcomes (1, 1, 1, 0) give log 3 = 1.10 four times.
    """
    count_B = group_sums(torch.ones_like(outcomes_B), group_B)
    least_B = 0.5 / count_B
    share_B = torch.minimum(torch.maximum(group_means(outcomes_B, group_B), least_B), 1.0 - least_B)
    return torch.logit(share_B)
