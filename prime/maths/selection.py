"""What choosing among several samples of one prompt gives: luck, a score, or a vote.

All are means over random subsets of size `size` of the M samples that there are, so a table over sizes comes from one
set of samples. Shapes: M samples of one prompt.
"""

import math
import random
from collections.abc import Sequence

import torch
from torch import Tensor

from prime.maths.aggregation import vote

_DRAWS = 32


def pass_at(correct_M: Tensor, size: int) -> float:
    """Probability that a random subset of `size` holds a right sample (arXiv 2107.03374, eq. 1).

    Example: one right sample of four and size 2: 1 - C(3, 2) / C(4, 2) = 0.5.
    """
    wrong = int((correct_M == 0).sum())
    return 1.0 - math.comb(wrong, size) / math.comb(len(correct_M), size)


def best_of(scores_M: Tensor, correct_M: Tensor, size: int) -> float:
    """Expected accuracy of the highest score in a random subset of `size` of the M samples.

    The sample of rank i (from 0) wins in C(M-1-i, size-1) of the C(M, size) subsets.

    Example: scores (3, 2, 1) with correct (0, 1, 1) and size 2: the first wins in 2 of 3 subsets, so 1/3.
    """
    count = len(scores_M)
    order = torch.argsort(scores_M, descending=True, stable=True).tolist()
    total = math.comb(count, size)
    return sum(
        math.comb(count - 1 - rank, size - 1) / total * float(correct_M[sample]) for rank, sample in enumerate(order)
    )


def voted(
    classes_M: Sequence[int], correct_M: Tensor, size: int, *, scores_M: Tensor | None = None, seed: int = 0
) -> float:
    """Accuracy of a vote among `size` of the samples: weighted by sigmoid(score) where scores are given, else plain.

    Exact for one and for all M samples; in between the mean over 32 subsets, drawn with `seed`. Ties go as in
    `aggregation.vote`; class -1 holds samples without an answer.

    Example: classes (0, 1, 0) with correct (1, 0, 1) and size 3: 1.
    """
    count = len(correct_M)
    if size == 1:
        return float(correct_M.double().mean())
    draw = random.Random(seed)
    subsets = (
        [list(range(count))] if size == count else [sorted(draw.sample(range(count), size)) for _ in range(_DRAWS)]
    )
    all_classes_M = torch.tensor(list(classes_M))
    values_M = torch.zeros(count) if scores_M is None else scores_M
    right = 0.0
    for subset in subsets:
        winner = vote(values_M[subset], all_classes_M[subset], weighted=scores_M is not None)[0]
        right += float(correct_M[subset[winner]])
    return right / len(subsets)
