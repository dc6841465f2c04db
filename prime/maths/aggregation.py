"""From step values to a response's score, and from scored candidates to a winner.

Shapes: S steps of one response; N candidates of one prompt.
"""

import torch
from torch import Tensor


def aggregates(values_NS: Tensor, mask_NS: Tensor, *, probabilities: bool) -> dict[str, Tensor]:
    """Every aggregation of step values that has a meaning, by name: sum, mean, min, last; prod of probabilities. [N].

    `mask_NS` is True on steps; each row's steps come first. Implicit rewards are log-ratios of either sign, and a
    product of those says nothing: `prod` is there only when the values are probabilities, i.e. after a sigmoid.

    Example: values ((0.5, -1, 0.25),) give sum -0.25, mean -0.083, min -1 and last 0.25.
    """
    count_N = mask_NS.sum(dim=1)
    sum_N = torch.where(mask_NS, values_NS, 0.0).sum(dim=1)
    found = {
        "sum": sum_N,
        "mean": sum_N / count_N,
        "min": torch.where(mask_NS, values_NS, float("inf")).amin(dim=1),
        "last": values_NS.gather(1, count_N[:, None] - 1).squeeze(1),
    }
    if probabilities:
        found["prod"] = torch.where(mask_NS, values_NS, 1.0).prod(dim=1)
    return found


def vote(scores_N: Tensor, classes_N: Tensor, *, weighted: bool) -> list[int]:
    """Candidates in the order of the vote: the winner first. [N].

    Each class of equal answers has one vote per candidate, or sigmoid(score) of each with `weighted` (ImplicitPRM,
    arXiv 2412.01981, section 4). Class -1 holds those without an answer; it comes last. Classes of equal weight are
    ordered by their best score; within a class the best score comes first, and the earlier candidate on a tie.

    Example: scores (0.1, 2.0, 0.3) with classes (0, 1, 0): the majority gives (2, 0, 1), and so does the weighted
    vote: 0.525 + 0.574 against 0.881.
    """
    weights_N = torch.sigmoid(scores_N.double()) if weighted else torch.ones(len(scores_N), dtype=torch.float64)
    totals, best = {}, {}
    for number in set(classes_N.tolist()):
        members_N = classes_N == number
        totals[number] = float(weights_N[members_N].sum())
        best[number] = float(scores_N[members_N].max())

    def place(candidate: int) -> tuple[bool, float, float, int, float, int]:
        number = int(classes_N[candidate])
        return number < 0, -totals[number], -best[number], number, -float(scores_N[candidate]), candidate

    return sorted(range(len(scores_N)), key=place)
