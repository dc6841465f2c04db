"""When two equations, or two inequalities, say the same. For the workers only.

What is true everywhere says nothing about where it holds, so it is the same as nothing but its own form: the identity
`\\sin2x=2\\sin x\\cos x` is `2\\cos x\\sin x=\\sin2x`, and is neither a line nor another identity.
"""

from typing import Any

from services.verifier.algebra.evaluation import NotEvaluable
from services.verifier.algebra.formal import in_order, is_nothing, ratio_of_forms, without_denominators
from services.verifier.algebra.sampling import same_up_to_factor, vanishes

Sides = tuple[Any, Any]


def same_equation(gold: Sides, answer: Sides, *, positive: bool) -> bool | None:
    """Whether left minus right is the same up to a factor, a positive one for inequalities; None: nothing tells."""
    first, second = gold[0] - gold[1], answer[0] - answer[1]
    if is_nothing(first) or is_nothing(second):
        ours, theirs = ([in_order(side) for side in sides] for sides in (gold, answer))
        return theirs == ours or (not positive and theirs == ours[::-1])
    ratio = ratio_of_forms(first, second)
    if ratio is not None:
        return True if not positive else ratio.is_positive
    try:
        return _compare_values(first, second, positive=positive)
    except NotEvaluable:
        return None


def _compare_values(first: Any, second: Any, *, positive: bool) -> bool | None:
    identities = [vanishes(side) for side in (first, second)]
    if True in identities:
        return False
    if None in identities:
        return None
    same = same_up_to_factor(first, second, positive=positive)
    if same is True or positive:
        return same
    # `y=\frac1x` and `xy=1`: multiplied by what is nowhere zero where both are defined.
    cleared = ratio_of_forms(without_denominators(first), without_denominators(second))
    return True if cleared is not None else same
