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
from services.verifier.algebra.formal import from_one_start, have_same_form, with_standard_indices
from services.verifier.algebra.parsing import applied_letters, parse, parse_gold
from services.verifier.algebra.sampling import Agreement, compare_functions, differ_roughly, same_up_to_constant
from services.verifier.algebra.unknowns import have_other_unknowns, with_example, with_known_parts
from services.verifier.mathematics.names import split_equals
from services.verifier.mathematics.question import How

_FLOAT_DIGITS = 6
_VETO_DIGITS = 30
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
        if not (_is_expression(left) and _is_expression(right)):
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
    if len(left) != 2 or len(right) != 2 or not all(_is_expression(side) for side in left + right):
        return False
    return same_equation((left[0], left[1]), (right[0], right[1]), positive=positive)


def _is_about(remark: str, exact: str) -> bool:
    """Whether a decimal is a rough value of a constant: to its last digit, or to two in a hundred; degrees count."""
    import mpmath  # type: ignore[import-untyped]

    percent = remark.endswith("%")
    values = []
    for text in (remark.rstrip("\\%"), exact):
        parsed = parse(text)
        if not _is_expression(parsed) or parsed.free_symbols:
            return False
        try:
            value = evaluate(parsed, {}, _VETO_DIGITS)
        except NotEvaluable:
            return False
        if value is None:
            return False
        values.append(value.number)
    about, value = values[0] / (100 if percent else 1), values[1]
    decimals = len(remark.partition(".")[2].rstrip("\\%"))
    near = max(abs(value) * mpmath.mpf("0.02"), mpmath.mpf(15) / 10 ** (decimals + 1))
    return bool(abs(about - value) <= near or abs(about - mpmath.degrees(value)) <= 180 * near)


def _as_written(gold: str, answer: str) -> bool:
    """What Math-Verify's own pipeline makes of two texts."""
    left, right = _pipeline(gold), _pipeline(answer)
    return bool(left and right) and _verify(left, right)


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
    from sympy.concrete.expr_with_limits import ExprWithLimits

    if not isinstance(parsed, sympy.Expr):
        return False
    if parsed.has(sympy.oo) and parsed.has(ExprWithLimits):
        # A sum may run to infinity; what is summed has to be finite.
        parsed = parsed.replace(lambda node: isinstance(node, ExprWithLimits), lambda node: node.function)
    return not parsed.has(sympy.zoo, sympy.oo, -sympy.oo, sympy.nan)


def _same(left: Any, right: Any, gold: str, answer: str, decimals: int) -> bool | None:
    import sympy

    if isinstance(left, sympy.MatrixBase) and isinstance(right, sympy.MatrixBase):
        return left.shape == right.shape and _all(
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


def _same_expression(left: Any, right: Any) -> bool | None:
    import sympy

    if left == right:
        return True
    if not (_is_expression(left) and _is_expression(right)):
        return False
    difference = sympy.Add(left, sympy.Mul(-1, right))
    if isinstance(difference, sympy.Rational):
        return bool(difference == 0)
    found = (
        _compare_repeated(left, right) if _is_repeated(left) or _is_repeated(right) else _compare_values(left, right)
    )
    if found in (Agreement.SAME, Agreement.DIFFERENT):
        return found is Agreement.SAME
    if found is Agreement.OTHER_DOMAIN and _is_repeated(left):
        return False  # Math-Verify would try to work them out
    if have_same_form(left, right) or _verify([left], [right]):
        return True
    return False if found is Agreement.OTHER_DOMAIN else None


def _compare_repeated(left: Any, right: Any) -> Agreement:
    """Sums and products: the same when their terms are, else by their values, else worked out."""
    left, right = from_one_start(left, right)
    if left == right or _have_same_terms(left, right):
        return Agreement.SAME
    found = _compare_values(left, right)
    return _compare_values(left.doit(), right.doit()) if found is Agreement.UNKNOWN else found


def _compare_values(left: Any, right: Any, whole: frozenset[Any] = frozenset()) -> Agreement:
    if left.has(_integral()) or right.has(_integral()):
        if _differ_roughly(left, right):
            return Agreement.DIFFERENT
    first, second = with_known_parts(left), with_known_parts(right)
    try:
        found = compare_functions(first, second, whole)
        if found is not Agreement.DIFFERENT or not have_other_unknowns(first, second):
            return found
        found = compare_functions(with_example(left), with_example(right), whole)
    except NotEvaluable:
        return Agreement.UNKNOWN
    return Agreement.DIFFERENT if found is Agreement.DIFFERENT else Agreement.UNKNOWN


def _integral() -> Any:
    import sympy

    return sympy.Integral


def _differ_roughly(left: Any, right: Any) -> bool:
    """Whether numerical integration already tells two expressions apart; working them out may take for ever."""
    try:
        return differ_roughly(left, right)
    except NotEvaluable:
        return False


def _is_repeated(expression: Any) -> bool:
    import sympy

    return bool(expression.has(sympy.Sum, sympy.Product))


def _have_same_terms(left: Any, right: Any) -> bool:
    if type(left) is not type(right) or not hasattr(left, "limits") or left.limits != right.limits:
        return False
    found = _compare_values(left.function, right.function, frozenset(left.variables))
    return found is Agreement.SAME


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
        _same_expression(left, right.xreplace(dict(zip(order, ours, strict=True)))) is True
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
