"""Evaluates sympy expressions at random rational points, to many digits, with bounded effort. For the workers only.

Our own evaluator on mpmath, not sympy's: it never simplifies, never builds large exact numbers, and says of every value
whether a branch was chosen on the way (the root or the logarithm of a negative number), where equal functions may part.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_SEED = 20240229
_DIGITS = 50
_MORE_DIGITS = 160
_MOST_DIGITS = 12_000
_ATTEMPTS = 24
_ENOUGH = 8
_ENOUGH_OF_ANY_SIGN = 3
_FAR_OUT = (30, -30, 3000, -3000)


class NotEvaluable(Exception):
    """The expression has a part that is not an elementary function of its symbols."""


class _Undefined(Exception):
    """No value at this point: a division by zero, or not a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Both sides at one point."""

    first: Any
    second: Any
    is_plain: bool
    """Neither side chose a branch."""


_FUNCTIONS = {
    **{name: name for name in "sin cos tan cot sec csc asin acos atan acot asec acsc sinh cosh tanh coth".split()},  # noqa: SIM905
    **{name: name for name in ("asinh", "acosh", "atanh", "exp", "floor", "factorial", "gamma", "binomial", "sign")},
    "Abs": "fabs",
    "ceiling": "ceil",
    "conjugate": "conj",
    "re": "re",
    "im": "im",
}
_ON_A_BRANCH = frozenset({"asin", "acos", "acosh", "atanh", "asec", "acsc"})


class _Evaluator:
    def __init__(self, point: dict[Any, Any]) -> None:
        import mpmath  # type: ignore[import-untyped]

        self._mp = mpmath
        self._point = point
        self.chose_branch = False

    def value(self, expression: Any) -> Any:
        """A finite mpmath number."""
        import sympy

        if isinstance(expression, sympy.Rational):
            return self._mp.mpf(expression.p) / expression.q
        if isinstance(expression, sympy.Symbol):
            if expression not in self._point:
                raise NotEvaluable(str(expression))
            return self._point[expression]
        if isinstance(expression, sympy.Float):
            return self._mp.mpf(str(expression))
        if expression is sympy.I:
            return self._mp.mpc(0, 1)
        if isinstance(expression, sympy.NumberSymbol):
            return self._constant(expression)
        return self._finite(self._compound(expression))

    def _constant(self, expression: Any) -> Any:
        import sympy

        known = {sympy.pi: self._mp.pi, sympy.E: self._mp.e, sympy.GoldenRatio: self._mp.phi}
        if expression not in known:
            raise NotEvaluable(str(expression))
        return +known[expression]

    def _compound(self, expression: Any) -> Any:
        name = type(expression).__name__
        if name == "Add":
            return self._mp.fsum(self.value(part) for part in expression.args)
        if name == "Mul":
            return self._mp.fprod([self.value(part) for part in expression.args])
        if name == "Pow":
            return self._power(*expression.args)
        if name == "exp":
            return self._mp.exp(self.value(expression.args[0]))
        if name == "log":
            return self._log(*expression.args)
        if name in ("Max", "Min"):
            values = [self._real(self.value(part)) for part in expression.args]
            return max(values) if name == "Max" else min(values)
        return self._function(name, [self.value(part) for part in expression.args])

    def _power(self, base: Any, exponent: Any) -> Any:
        value = self.value(base)
        if getattr(exponent, "is_Integer", False):
            if value == 0 and exponent.p <= 0:
                raise _Undefined
            return value ** int(exponent.p)
        if self._is_negative(value):
            self.chose_branch = True
        power = self.value(exponent)
        if value == 0 and self._mp.re(power) <= 0:
            raise _Undefined
        return self._mp.power(value, power)

    def _log(self, argument: Any, base: Any = None) -> Any:
        value = self.value(argument)
        if value == 0:
            raise _Undefined
        if self._is_negative(value):
            self.chose_branch = True
        logarithm = self._mp.log(value)
        if base is None:
            return logarithm
        divisor = self._mp.log(self.value(base))
        if divisor == 0:
            raise _Undefined
        return logarithm / divisor

    def _function(self, name: str, values: list[Any]) -> Any:
        function = _FUNCTIONS.get(name)
        if function is None or not values:
            raise NotEvaluable(name)
        if name in ("floor", "ceiling", "sign"):
            values = [self._real(value) for value in values]
        result = getattr(self._mp, function)(*values)
        if name in _ON_A_BRANCH and not self._is_real(result):
            self.chose_branch = True
        return result

    def _is_real(self, value: Any) -> bool:
        imaginary = self._mp.im(value)
        return bool(abs(imaginary) <= abs(self._mp.re(value)) * self._mp.mpf(10) ** (-self._mp.mp.dps + 10))

    def _is_negative(self, value: Any) -> bool:
        return not self._is_real(value) or bool(self._mp.re(value) < 0)

    def _real(self, value: Any) -> Any:
        if not self._is_real(value):
            raise _Undefined
        return self._mp.re(value)

    def _finite(self, value: Any) -> Any:
        if not self._mp.isfinite(value):
            raise _Undefined
        return value


def same_function(first: Any, second: Any) -> bool | None:
    """Whether two expressions agree at random points; None when the points do not tell.

    Raises:
        NotEvaluable: a side has parts that cannot be evaluated.
    """
    symbols = _symbols(first, second)
    if not symbols:
        return _same_constant(first, second)
    if _differ_far_out(first, second, symbols):
        return False
    doubtful, plain, signed = False, 0, 0
    for point, is_signed in _points(symbols):
        sample = _sample(first, second, point)
        if sample is None or not sample.is_plain:
            doubtful = True  # the domains may differ, or the branches
            if sample is not None and _agree(first, second, point, sample):
                signed += is_signed
            continue
        if not _agree(first, second, point, sample):
            return False
        plain += 1
        signed += is_signed
        if plain >= _ENOUGH and signed >= _ENOUGH_OF_ANY_SIGN and not doubtful:
            return True
    if plain >= _ENOUGH and (not doubtful or signed >= _ENOUGH_OF_ANY_SIGN):
        return True if not doubtful or _have_same_domain(first, second, symbols) else None
    return None


def _differ_far_out(first: Any, second: Any, symbols: Sequence[Any]) -> bool:
    """Whether sides in several pieces differ somewhere far from zero, where `max(5, x)` is no longer 5."""
    import sympy

    in_pieces = (sympy.Max, sympy.Min, sympy.floor, sympy.ceiling, sympy.Abs, sympy.sign)
    if not (first.has(*in_pieces) or second.has(*in_pieces)):
        return False
    for distance in _FAR_OUT:
        point = {symbol: sympy.Rational(distance) + sympy.Rational(index, 7) for index, symbol in enumerate(symbols)}
        sample = _sample(first, second, point)
        if sample is not None and sample.is_plain and not _agree(first, second, point, sample):
            return True
    return False


def same_up_to_constant(first: Any, second: Any) -> bool | None:
    """Whether the difference of two expressions is the same at random points; None when the points do not tell.

    Raises:
        NotEvaluable: a side has parts that cannot be evaluated.
    """
    import sympy

    symbols = _symbols(first, second)
    if not symbols:
        return True
    # Beside the points of `same_function`: where both differences are zero, they are nothing but rounding.
    beside = (
        {symbol: value + sympy.Rational(1, 127) for symbol, value in point.items()} for point, _ in _points(symbols)
    )
    start = next((point for point in beside if _sample(first, second, point)), None)
    if start is None:
        return None
    # f - g is constant where f(x) - f(x0) and g(x) - g(x0) agree. With parts that change sign the constant may, too.
    shifted = [
        sympy.Add(side, -_at(side, start), evaluate=False) if _is_plain_at(side, start) else None
        for side in (first, second)
    ]
    if None in shifted:
        return None
    return same_function(*shifted)


def same_up_to_factor(first: Any, second: Any, *, positive: bool) -> bool | None:
    """Whether the quotient of two expressions is the same (positive) constant; None when the points do not tell.

    Raises:
        NotEvaluable: a side has parts that cannot be evaluated.
    """
    import mpmath
    import sympy

    if _free(first) != _free(second) or not _free(first):
        return False
    for point, _ in _points(_symbols(first, second)):
        sample = _sample(first, second, point)
        if sample is None or not sample.is_plain or sample.first == 0 or sample.second == 0:
            continue
        if positive and mpmath.re(sample.first) * mpmath.re(sample.second) < 0:
            return False
        at_first, at_second = _at(first, point), _at(second, point)
        return same_function(sympy.Mul(first, at_second, evaluate=False), sympy.Mul(second, at_first, evaluate=False))
    return None


def _free(expression: Any) -> set[Any]:
    found: set[Any] = expression.free_symbols
    return found


def _symbols(*expressions: Any) -> list[Any]:
    return sorted(set().union(*(_free(expression) for expression in expressions)), key=str)


def _points(symbols: Sequence[Any]) -> Iterator[tuple[dict[Any, Any], bool]]:
    """Rational points, the same in every run: positive ones first, then of any sign."""
    import sympy

    source = random.Random(_SEED)
    for attempt in range(_ATTEMPTS):
        is_signed = attempt % 2 == 1
        point = {}
        for symbol in symbols:
            value = sympy.Rational(source.randint(3, 400), source.choice((97, 101, 103, 107, 109, 113)))
            point[symbol] = -value if is_signed and source.random() < 0.6 else value
        yield point, is_signed


def _sample(first: Any, second: Any, point: dict[Any, Any], digits: int = _DIGITS) -> Sample | None:
    """Both values, or None when one of them is undefined there."""
    import mpmath

    with mpmath.workdps(digits):
        at = {symbol: mpmath.mpf(value.p) / value.q for symbol, value in point.items()}
        sides = []
        plain = True
        for expression in (first, second):
            evaluator = _Evaluator(at)
            try:
                value = evaluator.value(expression)
            except (_Undefined, ZeroDivisionError, ValueError, OverflowError):
                return None
            sides.append(value)
            plain = plain and not evaluator.chose_branch
        return Sample(first=sides[0], second=sides[1], is_plain=plain)


def _agree(first: Any, second: Any, point: dict[Any, Any], sample: Sample) -> bool:
    """Whether two values are equal: their difference vanishes as the digits grow, and does not only get small."""
    import mpmath

    with mpmath.workdps(_MORE_DIGITS):
        size = max(abs(sample.first), abs(sample.second))
        difference = abs(sample.first - sample.second)
        if difference > size * mpmath.mpf(10) ** -20 and size > mpmath.mpf(10) ** -15:
            return False  # too large to be the rounding of a cancellation
    digits = _digits_for(size)
    if digits > _MOST_DIGITS:
        return False  # too large to see a difference of one
    coarse, fine = (_sample(first, second, point, count) for count in (digits, digits + _MORE_DIGITS))
    if coarse is None or fine is None:
        return False
    with mpmath.workdps(digits + _MORE_DIGITS):
        ten, size = mpmath.mpf(10), max(abs(fine.first), abs(fine.second))
        before, after = abs(coarse.first - coarse.second), abs(fine.first - fine.second)
        return bool(after <= before * ten**-60 or after <= size * ten ** -(digits + _MORE_DIGITS - 30))


def _digits_for(size: Any) -> int:
    """So many that a difference of one shows."""
    import mpmath

    extra = int(mpmath.log10(size)) if size > 1 else 0
    return _MORE_DIGITS + max(0, extra)


def _same_constant(first: Any, second: Any) -> bool | None:
    sample = _sample(first, second, {})
    return None if sample is None else _agree(first, second, {}, sample)


def _have_same_domain(first: Any, second: Any, symbols: Sequence[Any]) -> bool:
    """Whether at every point both sides are defined without a choice of branch, or neither is."""
    for point, _ in itertools.islice(_points(symbols), _ATTEMPTS):
        if _is_plain_at(first, point) != _is_plain_at(second, point):
            return False
    return True


def _is_plain_at(expression: Any, point: dict[Any, Any]) -> bool:
    sample = _sample(expression, expression, point)
    return sample is not None and sample.is_plain


def _at(expression: Any, point: dict[Any, Any]) -> Any:
    return expression.xreplace(point)
