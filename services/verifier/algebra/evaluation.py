"""Evaluates sympy expressions at a point, to many digits, with bounded effort. For the workers only.

Our own evaluator on mpmath, not sympy's: it never simplifies, never builds large exact numbers, and says of every value
whether a branch was chosen on the way (the root or the logarithm of a negative number), where equal functions may part.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MOST_TERMS = 400
_TERMS_TO_SHRINK = 80
_MOST_DIGITS_OF_AN_INTEGRAL, _PIECES, _LARGEST_ERROR = 20, 8, 1e-9
_SMALL_TERMS = 3
_LARGEST_WHOLE_POWER = 10**6


class NotEvaluable(Exception):
    """The expression has a part that is not an elementary function of its symbols."""


class Undefined(Exception):
    """No value at this point: a division by zero, or not a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A finite number, and how it came about."""

    number: Any
    is_plain: bool
    """No branch was chosen on the way."""


def evaluate(expression: Any, point: Mapping[Any, Any], digits: int) -> Value | None:
    """The value where each symbol has the rational number that `point` gives it; None: it has none.

    Raises:
        NotEvaluable: the expression has parts that cannot be evaluated.
    """
    import mpmath  # type: ignore[import-untyped]

    with mpmath.workdps(digits):
        evaluator = _Evaluator({symbol: mpmath.mpf(value.p) / value.q for symbol, value in point.items()})
        try:
            number = evaluator.value(expression)
        except (Undefined, ZeroDivisionError, ValueError, OverflowError):
            return None
        return Value(number=number, is_plain=not evaluator.chose_branch)


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
        import mpmath

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
        if name in ("Sum", "Product"):
            return self._repeated(expression, adds=name == "Sum")
        if name == "Integral":
            return self._integrated(expression)
        if name in ("Max", "Min"):
            values = [self._real(self.value(part)) for part in expression.args]
            return max(values) if name == "Max" else min(values)
        return self._function(name, [self.value(part) for part in expression.args])

    def _repeated(self, expression: Any, *, adds: bool) -> Any:
        """A sum or a product over whole numbers, worked out term by term; an endless one as far as its terms count."""
        body, *limits = expression.args
        if len(limits) != 1:
            raise NotEvaluable("several indices")
        index, low, high = limits[0]
        first = self._whole(self.value(low))
        is_endless = high.is_infinite
        last = first + _MOST_TERMS if is_endless else self._whole(self.value(high))
        if last - first > _MOST_TERMS:
            raise Undefined
        total = self._mp.mpf(0 if adds else 1)
        if last < first:
            return total
        outer, small = self._point.get(index), 0
        try:
            for number in range(first, last + 1):
                self._point[index] = self._mp.mpf(number)
                term = self.value(body)
                total = total + term if adds else total * term
                small = small + 1 if abs(term if adds else term - 1) < self._mp.mpf(10) ** (-self._mp.mp.dps - 5) else 0
                if is_endless and small >= _SMALL_TERMS:
                    return total
                if is_endless and number == first + _TERMS_TO_SHRINK and abs(term) > 1e-6:
                    raise Undefined
        finally:
            if outer is None:
                self._point.pop(index, None)
            else:
                self._point[index] = outer
        if is_endless:
            raise Undefined  # it converges too slowly, or not at all
        return total

    def _integrated(self, expression: Any) -> Any:
        """A definite integral, numerically and roughly."""
        body, *limits = expression.args
        if self._mp.mp.dps > _MOST_DIGITS_OF_AN_INTEGRAL or len(limits) != 1 or len(limits[0]) != 3:
            raise NotEvaluable("integral")
        variable, low, high = limits[0]
        if low.is_infinite or high.is_infinite:
            raise NotEvaluable("integral without end")
        ends = [self._mp.re(self.value(end)) for end in (low, high)]
        outer = self._point.get(variable)

        def integrand(at: Any) -> Any:
            self._point[variable] = at
            return self.value(body)

        try:
            pieces = self._mp.linspace(*ends, _PIECES + 1)
            value, error = self._mp.quad(integrand, pieces, maxdegree=5, error=True)
        finally:
            if outer is None:
                self._point.pop(variable, None)
            else:
                self._point[variable] = outer
        if error > _LARGEST_ERROR * max(1, abs(value)):
            raise NotEvaluable("integral that converges too slowly")
        return value

    def _whole(self, value: Any) -> int:
        nearest = self._mp.nint(self._mp.re(value))
        if abs(value - nearest) > self._mp.mpf(10) ** (-self._mp.mp.dps // 2) or abs(nearest) > 10**6:
            raise Undefined
        return int(nearest)

    def _power(self, base: Any, exponent: Any) -> Any:
        value = self.value(base)
        if getattr(exponent, "is_Integer", False):
            if value == 0 and exponent.p <= 0:
                raise Undefined
            return value ** int(exponent.p)
        power = self.value(exponent)
        if self._mp.isint(power) and abs(power) < _LARGEST_WHOLE_POWER:
            if value == 0 and power <= 0:
                raise Undefined
            return value ** int(self._mp.re(power))
        if self._is_negative(value):
            self.chose_branch = True
        if value == 0 and self._mp.re(power) <= 0:
            raise Undefined
        return self._mp.power(value, power)

    def _log(self, argument: Any, base: Any = None) -> Any:
        value = self.value(argument)
        if value == 0:
            raise Undefined
        if self._is_negative(value):
            self.chose_branch = True
        logarithm = self._mp.log(value)
        if base is None:
            return logarithm
        divisor = self._mp.log(self.value(base))
        if divisor == 0:
            raise Undefined
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
            raise Undefined
        return self._mp.re(value)

    def _finite(self, value: Any) -> Any:
        if not self._mp.isfinite(value):
            raise Undefined
        return value
