"""Settles questions of algebra with the parser and the comparison of Math-Verify. Runs inside the workers only.

Each leaf is parsed by the LaTeX parser of Math-Verify and compared at many points (`sampling.py`). Where the points do
not tell, its form decides (`formal.py`), then Math-Verify's own comparison; what that calls equal is vetoed when plain
numbers differ. What nothing decides is None. A gold that cannot be read is a text, and equal to its own text only.
"""

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

from services.verifier.algebra.equations import same_equation
from services.verifier.algebra.evaluation import NotEvaluable, evaluate
from services.verifier.algebra.expressions import is_expression, same_expression, verify
from services.verifier.algebra.formal import have_same_form, with_standard_indices
from services.verifier.algebra.parsing import applied_letters, parse, parse_gold
from services.verifier.algebra.sampling import same_up_to_constant
from services.verifier.algebra.unknowns import with_known_parts
from services.verifier.mathematics.names import split_equals
from services.verifier.mathematics.question import How

_ABOUT_DIGITS = 30
_NUMBER = re.compile(r"-?\d*\.?\d*")
_LITERAL = re.compile(r"([-+]?)(\d*)\.(\d+)")
_CONSTANT = re.compile(r"[Cc](_\{?\w+\}?)?")
_RENAMED_CONSTANT = re.compile(r"[A-Zck](_\{?\w+\}?)?")
_MOST_CONSTANTS = 3


def settle(question: Any) -> bool | None:
    """The verdict on a question in the form of `mathematics/question.to_json`; None where nothing decides it."""
    if isinstance(question, bool):
        return question
    kind, *rest = question
    if kind == "all":
        return _all(settle(part) for part in rest[0])
    if kind == "matching":
        return _is_matching(rest[0])
    gold, answer, decimals = rest
    return _settle_leaf(How(kind), gold, answer, decimals)


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    """False where one is false, whatever else is open."""
    is_open = False
    for verdict in verdicts:
        if verdict is False:
            return False
        is_open = is_open or verdict is None
    return None if is_open else True


def _is_matching(rows: Sequence[Sequence[Any]]) -> bool | None:
    """Whether every row finds a column of its own; each cell is settled at most once."""
    cell = functools.cache(lambda row, column: settle(rows[row][column]))
    if _can_match(len(rows), lambda row, column: cell(row, column) is True):
        return True
    return None if _can_match(len(rows), lambda row, column: cell(row, column) is not False) else False


def _can_match(size: int, fits: Callable[[int, int], bool]) -> bool:
    taken: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        for column in range(size):
            if column not in seen and fits(row, column):
                seen.add(column)
                if column not in taken or place(taken[column], seen):
                    taken[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(size))


def _settle_leaf(how: How, gold: str, answer: str, decimals: int) -> bool | None:
    if gold == answer:
        return True
    if how is How.AS_WRITTEN:
        return _as_written(gold, answer)
    if how is How.ABOUT:
        return _is_about(answer, gold)
    applied = applied_letters(gold + " " + answer)
    if how in (How.UP_TO_FACTOR, How.UP_TO_POSITIVE_FACTOR):
        return _compare_equations(gold, answer, applied, positive=how is How.UP_TO_POSITIVE_FACTOR)
    left, right = parse_gold(gold, applied), parse(answer, applied)
    if left is None or right is None:
        return False
    left, right = with_standard_indices(left), with_standard_indices(right)
    if how is How.UP_TO_CONSTANT:
        if not (is_expression(left) and is_expression(right)):
            return False
        try:
            return same_up_to_constant(left, right)
        except NotEvaluable:
            return True if have_same_form(left, right) else None
    same = _same(left, right, gold, answer, decimals)
    if same is not True and how is How.UP_TO_NAMES and _same_with_constants_renamed(left, right):
        return True
    return same


def _compare_equations(gold: str, answer: str, applied: frozenset[str], *, positive: bool) -> bool | None:
    left, right = (
        [with_known_parts(with_standard_indices(parse(side, applied))) for side in split_equals(text)]
        for text in (gold, answer)
    )
    if len(left) != 2 or len(right) != 2 or not all(is_expression(side) for side in left + right):
        return False
    return same_equation((left[0], left[1]), (right[0], right[1]), positive=positive)


def _is_about(remark: str, exact: str) -> bool:
    """Whether a decimal is a rough value of a constant: to its last digit, or to two in a hundred; degrees count."""
    import mpmath  # type: ignore[import-untyped]

    percent = remark.endswith("%")
    values = []
    for text in (remark.rstrip("\\%"), exact):
        parsed = parse(text)
        if not is_expression(parsed) or parsed.free_symbols:
            return False
        try:
            value = evaluate(parsed, {}, _ABOUT_DIGITS)
        except NotEvaluable:
            return False
        if value is None:
            return False
        values.append(value.number)
    about, value = values[0] / (100 if percent else 1), values[1]
    near = abs(value) * mpmath.mpf("0.02")
    if _NUMBER.fullmatch(remark):
        decimals = len(remark.partition(".")[2])
        near = max(near, mpmath.mpf(10) ** -decimals if decimals else mpmath.mpf("0.5"))
    in_degrees = mpmath.degrees(value) if "arc" in exact or "^{-1}" in exact else value
    return bool(abs(about - value) <= near or abs(about - in_degrees) <= abs(in_degrees) * mpmath.mpf("0.02"))


def _as_written(gold: str, answer: str) -> bool:
    """What Math-Verify's own pipeline makes of two texts."""
    left, right = _pipeline(gold), _pipeline(answer)
    return bool(left and right) and verify(left, right)


def _pipeline(text: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    # LaTeX only: the other extractor hands the text to Python's eval.
    config = LatexExtractionConfig(boxed_match_priority=0)
    found: list[Any] = parse(
        f"\\boxed{{{text}}}", extraction_config=[config], fallback_mode="no_fallback", parsing_timeout=None
    )
    return found


# ---------------------------------------------------------------- comparing


def _same(left: Any, right: Any, gold: str, answer: str, decimals: int) -> bool | None:
    import sympy

    if isinstance(left, sympy.MatrixBase) and isinstance(right, sympy.MatrixBase):
        return left.shape == right.shape and _all(
            same_expression(first, second) for first, second in zip(left, right, strict=True)
        )
    if not (is_expression(left) and is_expression(right)):
        return not _is_unbounded(left, right) and verify([left], [right])
    for number, exact in ((answer, left), (gold, right)):
        rounded = _rounds_to(number, exact, decimals)
        if rounded is not None:
            return rounded
    return same_expression(left, right)


def _is_unbounded(left: Any, right: Any) -> bool:
    import sympy

    # Two undefined values are no more equal than two unequal ones.
    return any(isinstance(side, sympy.Expr) and side.has(sympy.zoo, sympy.nan) for side in (left, right))


def _same_with_constants_renamed(left: Any, right: Any) -> bool:
    """`Ce^x` and `Ke^x`: the names of constants are free, where nothing but them and one variable occurs."""
    if not (is_expression(left) and is_expression(right)) or len(left.free_symbols & right.free_symbols) != 1:
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
        same_expression(left, right.xreplace(dict(zip(order, ours, strict=True)))) is True
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
