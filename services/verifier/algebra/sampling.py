"""Compares sympy expressions by their values at rational points. For the workers only.

The points follow from the expressions, so they are the same in every run. They change with every answer, so an answer
cannot be made that is right at them and wrong elsewhere.

Every judgement is True, False, or None where the points do not tell. A point does not count where a side is undefined
or chooses a branch. So points are tried near zero first and then further out, until enough of them lie in the domain of
both sides (`\\ln(x-7)` has none near zero). What is zero but for rounding is zero.
"""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from services.verifier.algebra.evaluation import Value, evaluate

_DIGITS = 50
_MORE_DIGITS = 160
_MOST_DIGITS = 12_000
_NEAR, _FAR = 24, 40
_FEW = 10
_FEW_ROUGH, _ROUGH_DIGITS, _ROUGHLY = 2, 15, 1e-7
_ENOUGH = 8
_ENOUGH_IN_A_SMALL_DOMAIN = 4
_ENOUGH_OF_ANY_SIGN = 3
_FAR_OUT = (30, -30, 3000, -3000)
_DENOMINATORS = (97, 101, 103, 107, 109, 113)
_WIDTHS = (1, 30, 4, 300, 1, 100, 12, 3000)
_WHOLE_NUMBERS = (3, 1, 5, 2, 8, 4, 13, 6, 17, 10, 25, 7)

Point = Mapping[Any, Any]


class Agreement(Enum):
    """What the points say of two functions."""

    SAME = "same"
    DIFFERENT = "different"
    OTHER_DOMAIN = "other domain"
    """They agree where both are defined, and somewhere only one of them is."""
    UNKNOWN = "unknown"
    """Too few points lie in their domains."""


def compare_functions(first: Any, second: Any, whole: frozenset[Any] = frozenset()) -> Agreement:
    """Whether two expressions agree wherever both are defined; the symbols in `whole` stand for whole numbers.

    Raises:
        NotEvaluable: a side has parts that cannot be evaluated.
    """
    symbols = _symbols(first, second)
    if not symbols:
        same = _agree_at(first, second, {})
        return Agreement.UNKNOWN if same is None else Agreement.SAME if same else Agreement.DIFFERENT
    if _differ_far_out(first, second, symbols):
        return Agreement.DIFFERENT
    seen = _Seen()
    for point, is_signed in _points(
        (first, second), symbols, whole | _whole_symbols(first, second), _are_endless(first, second)
    ):
        if _compare_at(first, second, point, seen, is_signed=is_signed) is False:
            return Agreement.DIFFERENT
        if seen.are_enough:
            return Agreement.SAME
    return seen.verdict()


def same_function(first: Any, second: Any) -> bool | None:
    """The same in short: another domain makes another function. Raises what `compare_functions` raises."""
    found = compare_functions(first, second)
    return None if found is Agreement.UNKNOWN else found is Agreement.SAME


@dataclass(slots=True, kw_only=True)
class _Seen:
    """What the points have shown so far, none of them a difference."""

    points: int = 0
    plain: int = 0
    """Both sides are defined, chose no branch, and agree."""
    signed: int = 0
    """Of these, those with a negative coordinate."""
    on_a_branch: int = 0
    """Both chose a branch, and agree."""
    apart: bool = False
    """Somewhere only one side was defined without a branch: the domains may differ."""

    @property
    def are_enough(self) -> bool:
        if self.apart or self.plain < _ENOUGH:
            return False
        return self.signed >= _ENOUGH_OF_ANY_SIGN or self.points >= _NEAR

    def verdict(self) -> Agreement:
        if self.apart:
            return Agreement.OTHER_DOMAIN
        if self.plain >= _ENOUGH_IN_A_SMALL_DOMAIN or self.plain + self.on_a_branch >= _ENOUGH:
            return Agreement.SAME
        return Agreement.UNKNOWN


def _compare_at(first: Any, second: Any, point: Point, seen: _Seen, *, is_signed: bool) -> bool | None:
    left, right = evaluate(first, point, _DIGITS), evaluate(second, point, _DIGITS)
    seen.points += 1
    if left is None and right is None:
        return None
    if left is None or right is None or left.is_plain != right.is_plain:
        seen.apart = True
        # On one side of a branch cut two equal functions may part; a difference there says nothing.
        return None
    agree = _agree(first, second, point, left, right)
    if agree is None:
        return None
    if left.is_plain:
        seen.plain += agree
        seen.signed += agree and is_signed
        return agree
    seen.on_a_branch += agree
    seen.apart = seen.apart or not agree
    return None


def _differ_far_out(first: Any, second: Any, symbols: Sequence[Any]) -> bool:
    """Whether sides in several pieces differ somewhere far from zero, where `max(5, x)` is no longer 5."""
    import sympy

    in_pieces = (sympy.Max, sympy.Min, sympy.floor, sympy.ceiling, sympy.Abs, sympy.sign)
    if not (first.has(*in_pieces) or second.has(*in_pieces)):
        return False
    for distance in _FAR_OUT:
        point = {symbol: sympy.Rational(distance) + sympy.Rational(index, 7) for index, symbol in enumerate(symbols)}
        if _compare_at(first, second, point, _Seen(), is_signed=False) is False:
            return True
    return False


def differ_roughly(first: Any, second: Any) -> bool:
    """Whether two expressions differ at some point in their first digits, which is enough to tell them apart.

    Raises:
        NotEvaluable: a side has parts that cannot be evaluated.
    """
    for point, _ in itertools.islice(_points((first, second), _symbols(first, second)), _FEW_ROUGH):
        left, right = evaluate(first, point, _ROUGH_DIGITS), evaluate(second, point, _ROUGH_DIGITS)
        if left is None or right is None or not (left.is_plain and right.is_plain):
            continue
        if abs(left.number - right.number) > _ROUGHLY * max(1, abs(left.number), abs(right.number)):
            return True
    return False


def same_up_to_constant(first: Any, second: Any) -> bool | None:
    """Whether the difference of two expressions is a constant.

    Raises:
        NotEvaluable: a side has parts that cannot be evaluated.
    """
    import sympy

    symbols = _symbols(first, second)
    if not symbols:
        return True
    # Beside the points of `same_function`: where both differences are zero, they are nothing but rounding.
    beside = (
        {symbol: value + sympy.Rational(1, 127) for symbol, value in point.items()}
        for point, _ in _points((first, second), symbols)
    )
    start = next((point for point in beside if _is_plain_at(first, point) and _is_plain_at(second, point)), None)
    if start is None:
        return same_function(*(sympy.diff(side, symbols[0]) for side in (first, second))) if len(symbols) == 1 else None
    # f - g is constant where f(x) - f(x0) and g(x) - g(x0) agree.
    return same_function(*(sympy.Add(side, -side.xreplace(start), evaluate=False) for side in (first, second)))


def vanishes(expression: Any) -> bool | None:
    """Whether it is zero, rounding included, everywhere in its own domain.

    Raises:
        NotEvaluable: it has parts that cannot be evaluated.
    """
    import sympy

    zeros = 0
    symbols = _symbols(expression)
    for point, _ in _points((expression,), symbols, _whole_symbols(expression), _are_endless(expression)):
        value = evaluate(expression, point, _DIGITS)
        if value is None or not value.is_plain:
            continue
        agree = _agree(expression, sympy.S.Zero, point, value, Value(number=0, is_plain=True))
        if agree is False:
            return False
        zeros += agree is True
        if zeros >= _ENOUGH or not symbols:
            break
    return True if zeros >= min(_ENOUGH_IN_A_SMALL_DOMAIN, 1 + 3 * len(symbols)) else None


def same_up_to_factor(first: Any, second: Any, *, positive: bool) -> bool | None:
    """Whether the quotient of two expressions, neither of which vanishes everywhere, is a (positive) constant.

    Raises:
        NotEvaluable: a side has parts that cannot be evaluated.
    """
    import mpmath  # type: ignore[import-untyped]
    import sympy

    for point, _ in _points((first, second), _symbols(first, second), _whole_symbols(first, second)):
        values = [evaluate(side, point, _DIGITS) for side in (first, second)]
        if any(value is None or not value.is_plain for value in values):
            continue
        zeros = [
            _agree(side, sympy.S.Zero, point, value, Value(number=0, is_plain=True))
            for side, value in zip((first, second), values, strict=True)
            if value is not None
        ]
        if None in zeros or all(zeros):
            continue
        if any(zeros):
            return False
        left, right = (value.number for value in values if value is not None)
        if positive and mpmath.re(left) * mpmath.re(right) < 0:
            return False
        at_first, at_second = first.xreplace(dict(point)), second.xreplace(dict(point))
        return same_function(sympy.Mul(first, at_second, evaluate=False), sympy.Mul(second, at_first, evaluate=False))
    return None


def _symbols(*expressions: Any) -> list[Any]:
    return sorted(set().union(*(expression.free_symbols for expression in expressions)), key=str)


def _whole_symbols(*expressions: Any) -> frozenset[Any]:
    """Symbols that a sum or a product runs to, and which therefore stand for whole numbers."""
    import sympy

    ends = (
        end
        for expression in expressions
        for repeated in expression.atoms(sympy.Sum, sympy.Product)
        for _, *limits in repeated.limits
        for end in limits
    )
    return frozenset().union(*(end.free_symbols for end in ends))


def _are_endless(*expressions: Any) -> bool:
    """Whether a sum or a product without end is among them, which converges near zero if anywhere."""
    import sympy

    return any(
        limits[-1].is_infinite
        for expression in expressions
        for repeated in expression.atoms(sympy.Sum, sympy.Product)
        for limits in repeated.limits
    )


def _points(
    of: Sequence[Any], symbols: Sequence[Any], whole: frozenset[Any] = frozenset(), are_small: bool = False
) -> Iterator[tuple[dict[Any, Any], bool]]:
    """Rational points and whether a coordinate is negative: positive ones and of any sign, near zero first."""
    import sympy

    source = random.Random(" = ".join(map(str, of)))
    for attempt in range(_FEW if are_small else _NEAR + _FAR):
        is_signed = attempt % 2 == 1
        point = {}
        for symbol in symbols:
            value = sympy.Rational(source.randint(3, 400), source.choice(_DENOMINATORS))
            value = -value if is_signed and source.random() < 0.6 else value
            if are_small:
                value /= 12
            if attempt >= _NEAR:
                value = value * _WIDTHS[attempt % len(_WIDTHS)] / 4
            if symbol in whole:
                value = sympy.Integer(_WHOLE_NUMBERS[attempt % len(_WHOLE_NUMBERS)] + attempt // len(_WHOLE_NUMBERS))
            point[symbol] = value
        yield point, is_signed


def _agree(first: Any, second: Any, point: Point, left: Value, right: Value) -> bool | None:
    """Whether two values are equal: their difference vanishes as the digits grow, and does not only get small.

    None where they are too large to tell.
    """
    import mpmath

    with mpmath.workdps(_MORE_DIGITS):
        size = max(abs(left.number), abs(right.number))
        difference = abs(left.number - right.number)
        if difference > size * mpmath.mpf(10) ** -20 and size > mpmath.mpf(10) ** -15:
            return False  # too large to be the rounding of a cancellation
    # The terms of an endless sum are too many for that many digits.
    more = _DIGITS // 2 if _are_endless(first, second) else _MORE_DIGITS
    digits = more + max(0, int(mpmath.log10(size)) if size > 1 else 0)
    if digits > _MOST_DIGITS:
        return None
    coarse, fine = (_differ_by(first, second, point, count) for count in (digits, digits + more))
    if coarse is None or fine is None:
        return None
    with mpmath.workdps(digits + more):
        ten = mpmath.mpf(10)
        (before, _), (after, size) = coarse, fine
        if before == 0 and after <= ten ** -(digits + more // 2):
            return True  # nothing but rounding, which was lucky once
        return bool(after <= before * ten ** -(3 * more // 8) or after <= size * ten ** -(digits + more - more // 5))


def _differ_by(first: Any, second: Any, point: Point, digits: int) -> tuple[Any, Any] | None:
    """How far apart both values are, and the larger of them."""
    import mpmath

    left, right = evaluate(first, point, digits), evaluate(second, point, digits)
    if left is None or right is None:
        return None
    with mpmath.workdps(digits):
        return abs(left.number - right.number), max(abs(left.number), abs(right.number))


def _agree_at(first: Any, second: Any, point: Point) -> bool | None:
    left, right = evaluate(first, point, _DIGITS), evaluate(second, point, _DIGITS)
    return None if left is None or right is None else _agree(first, second, point, left, right)


def _is_plain_at(expression: Any, point: Point) -> bool:
    value = evaluate(expression, point, _DIGITS)
    return value is not None and value.is_plain
