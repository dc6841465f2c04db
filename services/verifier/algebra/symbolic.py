"""Settles questions of algebra with the parser and the comparison of Math-Verify. Runs inside the workers only.

Each leaf is parsed by the LaTeX parser of Math-Verify, compared at random points (`sampling.py`), and handed to
Math-Verify's own comparison when the points do not tell; what that calls equal is vetoed when plain numbers differ.
"""

import functools
import itertools
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from services.verifier.algebra.parsing import parse, parse_gold
from services.verifier.algebra.sampling import (
    NotEvaluable,
    same_function,
    same_up_to_constant,
    same_up_to_factor,
)
from services.verifier.mathematics.question import How

_FLOAT_DIGITS = 6
_VETO_DIGITS = 30
_LITERAL = re.compile(r"([-+]?)(\d*)\.(\d+)")
_CONSTANT = re.compile(r"[Cc](_\{?\w+\}?)?")
_RENAMED_CONSTANT = re.compile(r"[A-Zck](_\{?\w+\}?)?")
_MOST_CONSTANTS = 3


class UnparsableGold(Exception):
    """The gold is nothing that Math-Verify can read; the message is its text."""


def settle(question: Any) -> bool:
    """The verdict on a question in the form of `mathematics/question.to_json`.

    Raises:
        UnparsableGold: a gold cannot be read, so that no answer could be right.
    """
    if isinstance(question, bool):
        return question
    kind, *rest = question
    if kind == "all":
        return all(settle(part) for part in rest[0])
    if kind == "matching":
        return _is_matching(rest[0])
    gold, answer, decimals = rest
    return _settle_leaf(How(kind), gold, answer, decimals)


def _is_matching(rows: Sequence[Sequence[Any]]) -> bool:
    """Whether every row finds a column of its own; each cell is settled at most once."""
    taken: dict[int, int] = {}
    cell = functools.cache(lambda row, column: settle(rows[row][column]))

    def place(row: int, seen: set[int]) -> bool:
        for column in range(len(rows)):
            if column not in seen and cell(row, column):
                seen.add(column)
                if column not in taken or place(taken[column], seen):
                    taken[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(rows)))


def _settle_leaf(how: How, gold: str, answer: str, decimals: int) -> bool:
    if gold == answer:
        return True
    if how is How.AS_WRITTEN:
        return _as_written(gold, answer)
    left, right = parse_gold(gold), parse(answer)
    if left is None:
        raise UnparsableGold(gold)  # Math-Verify would make something of its beginning
    if right is None:
        return False
    if how in (How.SAME, How.UP_TO_NAMES):
        same = _same(left, right, gold, answer, decimals)
        return same or (how is How.UP_TO_NAMES and _same_with_constants_renamed(left, right))
    if not (_is_expression(left) and _is_expression(right)):
        return False
    try:
        if how is How.UP_TO_CONSTANT:
            return same_up_to_constant(left, right) is True
        return same_up_to_factor(left, right, positive=how is How.UP_TO_POSITIVE_FACTOR) is True
    except NotEvaluable:
        return False


def _as_written(gold: str, answer: str) -> bool:
    """What Math-Verify's own pipeline makes of two texts."""
    left, right = _pipeline(gold), _pipeline(answer)
    if not left:
        raise UnparsableGold(gold)
    return bool(right) and _verify(left, right)


def _pipeline(text: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    # LaTeX only: the other extractor hands the text to Python's eval.
    config = LatexExtractionConfig(boxed_match_priority=0)
    found: list[Any] = parse(
        f"\\boxed{{{text}}}", extraction_config=[config], fallback_mode="no_fallback", parsing_timeout=None
    )
    return found


# ---------------------------------------------------------------- comparing


def _is_expression(parsed: Any) -> bool:
    import sympy

    return isinstance(parsed, sympy.Expr) and not parsed.has(sympy.zoo, sympy.oo, -sympy.oo, sympy.nan)


def _same(left: Any, right: Any, gold: str, answer: str, decimals: int) -> bool:
    import sympy

    if isinstance(left, sympy.MatrixBase) and isinstance(right, sympy.MatrixBase):
        return left.shape == right.shape and all(
            _same_expression(first, second) for first, second in zip(left, right, strict=True)
        )
    if not (_is_expression(left) and _is_expression(right)):
        return not _is_unbounded(left, right) and _verify([left], [right])
    for number, exact in ((answer, left), (gold, right)):
        rounded = _rounds_to(number, exact, decimals)
        if rounded is not None:
            return rounded
    return _same_expression(left, right)


def _is_unbounded(left: Any, right: Any) -> bool:
    import sympy

    # Two undefined values are no more equal than two unequal ones.
    return any(isinstance(side, sympy.Expr) and side.has(sympy.zoo, sympy.nan) for side in (left, right))


def _same_expression(left: Any, right: Any) -> bool:
    import sympy

    if left == right:
        return True
    if not (_is_expression(left) and _is_expression(right)):
        return False
    difference = sympy.Add(left, sympy.Mul(-1, right))
    if isinstance(difference, sympy.Rational):
        return bool(difference == 0)
    try:
        agree = same_function(_worked_out(left), _worked_out(right))
    except NotEvaluable:
        agree = None
    return agree if agree is not None else _verify([left], [right])


def _worked_out(expression: Any) -> Any:
    import sympy

    held = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit, sympy.Derivative)
    return expression.doit() if expression.has(*held) else expression


def _same_with_constants_renamed(left: Any, right: Any) -> bool:
    """`Ce^x` and `Ke^x`: the names of constants are free, where nothing but them and one variable occurs."""
    if not (_is_expression(left) and _is_expression(right)) or len(left.free_symbols & right.free_symbols) != 1:
        return False
    ours = sorted(left.free_symbols - right.free_symbols, key=str)
    theirs = sorted(right.free_symbols - left.free_symbols, key=str)
    if not 0 < len(ours) == len(theirs) <= _MOST_CONSTANTS:
        return False
    if not any(all(_CONSTANT.fullmatch(symbol.name) for symbol in side) for side in (ours, theirs)):
        return False
    if not all(_RENAMED_CONSTANT.fullmatch(symbol.name) for symbol in ours + theirs):
        return False
    return any(
        _same_expression(left, right.xreplace(dict(zip(order, ours, strict=True))))
        for order in itertools.permutations(theirs)
    )


def _rounds_to(text: str, exact: Any, decimals: int) -> bool | None:
    """Whether a decimal literal is a constant, rounded; None when the text is no literal or the other no constant."""
    import sympy

    literal = _LITERAL.fullmatch(text)
    if literal is None or exact.free_symbols or isinstance(exact, sympy.Rational):
        return None
    sign, whole, fraction = literal.groups()
    value = Fraction(int(whole + fraction), 10 ** len(fraction)) * (-1 if sign == "-" else 1)
    if len(fraction) < decimals or int(whole + fraction) < (1000 if decimals >= 4 else 1):
        return False
    half = Fraction(1, 2 * 10 ** len(fraction))
    shown = sympy.N(exact, len(whole + fraction) + 30)
    if not shown.is_Float and not shown.is_Integer:
        return False
    return bool(abs(Fraction(str(shown)) - value) <= half)


def _verify(left: list[Any], right: list[Any]) -> bool:
    from math_verify import verify

    if not verify(left, right, float_rounding=_FLOAT_DIGITS, strict=True, timeout_seconds=None):
        return False
    return _numbers_agree(left[0], right[0])


def _numbers_agree(gold: Any, answer: Any) -> bool:
    """A veto over what was found equal: false when both are plain real numbers that differ.

    Math-Verify rounds to a fixed decimal place and so takes any two tiny numbers for equal.
    """
    import sympy

    if not all(isinstance(side, sympy.Expr) and side.is_number for side in (gold, answer)):
        return True
    first, second = sympy.N(gold, _VETO_DIGITS + 10), sympy.N(answer, _VETO_DIGITS + 10)
    if not (first.is_Float or first.is_Integer) or not (second.is_Float or second.is_Integer):
        return True
    difference, size = abs(first - second), max(abs(first), abs(second))
    return bool(difference <= size * sympy.Float(10) ** -_VETO_DIGITS)
