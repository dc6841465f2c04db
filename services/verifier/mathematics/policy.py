"""The policy: when two normalised answers are the same, form by form. Pure; used by `compare.py`.

Each rule answers True, False, the question that is left for algebra, or None where the texts do not have its form. The
rules are tried from the most to the least specific; what none of them knows is compared as an expression.
"""

import re

from services.verifier.mathematics import options as math_options
from services.verifier.mathematics.bases import with_plain_bases
from services.verifier.mathematics.equations import compare_equations, compare_with_name_left_out
from services.verifier.mathematics.forms import read_residue, split_items
from services.verifier.mathematics.geometry import with_ordered_points
from services.verifier.mathematics.leaves import make_leaf
from services.verifier.mathematics.listings import compare_lists, compare_matrices
from services.verifier.mathematics.names import split_equals
from services.verifier.mathematics.proportions import compare_ratios, compare_statements, compare_times
from services.verifier.mathematics.question import DECIMALS, How, Result
from services.verifier.mathematics.rationals import Number
from services.verifier.mathematics.relations import compare_relations
from services.verifier.mathematics.rules import Rules
from services.verifier.mathematics.values import compare_approximations, compare_bases, compare_texts, compare_values

_IN_ORDER = (
    compare_texts,
    compare_approximations,
    compare_bases,
    compare_with_name_left_out,
    compare_times,
    compare_statements,
    compare_relations,
    compare_matrices,
    compare_lists,
    compare_equations,
    compare_ratios,
)
_HELD = re.compile(r"\\(?:sum|prod|o?i{1,3}nt|lim)(?![a-zA-Z])|\\frac\{d\}\{d[a-z]\}")
_IN_SET = re.compile(r"^[a-z]\\in(?=\\\{)")


class Policy:
    """The rules under the options of one request."""

    def __init__(self, options: frozenset[str]) -> None:
        decimals = 2 if math_options.TWO_DECIMALS in options else DECIMALS

        def leaf(answer: str, gold: str, how: How) -> Result:
            return make_leaf(answer, gold, how, options, decimals)

        self._rules = Rules(
            options=options,
            decimals=decimals,
            percent_sign_optional=math_options.PERCENT_BY_VALUE not in options,
            items=self._compare_items,
            leaf=leaf,
        )

    def same_value(self, answer: Number, gold: Number) -> bool:
        """Whether two numbers count as the same."""
        return self._rules.same_value(answer, gold)

    def compare(self, answer: str, gold: str) -> Result:
        """Compare two whole answers.

        Raises:
            TooManyToMatch: two long lists with too much left open.
        """
        answer, gold = with_plain_bases(answer), with_plain_bases(gold)
        first, second = read_residue(answer), read_residue(gold)
        if first or second:
            return first == second
        if _HELD.search(answer) and not _HELD.search(gold) and _is_left_to_do(answer):
            return False  # the question again
        return self._compare_items(answer, gold)

    def _compare_items(self, answer: str, gold: str) -> Result:
        answer, gold = (with_ordered_points(_IN_SET.sub("", text)) for text in (answer, gold))
        for rule in _IN_ORDER:
            result = rule(answer, gold, self._rules)
            if result is not None:
                return result
        return compare_values(answer, gold, self._rules)


def _is_left_to_do(answer: str) -> bool:
    """Whether an item ends in an integral, a sum or a limit; `\\int_0^1 x dx=1/2` ends in its value."""
    return any(_HELD.search(split_equals(item)[-1]) for item in split_items(answer))
