"""What every rule of the policy is given: the options, and how to compare items and ask algebra. Pure.

A rule is a function `(answer, gold, rules) -> Result | None`: True, False, the question that is left, or None where the
texts do not have its form. `policy.py` has them in their order.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from services.verifier.mathematics.question import DECIMALS, How, Result, conjunction
from services.verifier.mathematics.rationals import Number, same_number


class TooManyToMatch(Exception):
    """Two lists are too long to find out which item belongs to which, or a chain too long to follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules under the options of one request."""

    options: frozenset[str]
    decimals: int = DECIMALS
    """Digits behind the point that a rounded value must have."""
    percent_sign_optional: bool = True
    items: Callable[[str, str], Result]
    """Compares two items, whatever their form."""
    leaf: Callable[[str, str, How], Result]
    """The question for algebra whether two expressions are equal in the sense of `How`."""

    def pairwise(self, pairs: Iterable[tuple[str, str]]) -> Result:
        """Whether each item is its counterpart."""
        return conjunction(self.items(answer, gold) for answer, gold in pairs)

    def same_value(self, answer: Number, gold: Number) -> bool:
        """Whether two numbers count as the same."""
        return same_number(answer, gold, decimals=self.decimals, percent_sign_optional=self.percent_sign_optional)


def settled(result: Result | None) -> Result:
    """The result of `matching`, which has none for what is too large."""
    if result is None:
        raise TooManyToMatch
    return result
