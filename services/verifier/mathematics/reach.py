"""Says of a number too large to work out that it cannot be another number. Pure; used by `compare.py`.

`\\frac{7^{7^{7^7}}-7}{6}` is not 11: interval arithmetic on logarithms shows how large it is at least. Positive parts
are followed, and differences in which one side is far larger; anything else has no known size.
"""

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from services.verifier.mathematics.magnitude import MOST_DIGITS
from services.verifier.mathematics.tokens import Tokens

_TOKEN = re.compile(r"\d+(?:\.\d+)?|\\[a-zA-Z]+|\S")
_LARGEST_LOGARITHM = 300.0
_TIMES, _OVER = ("\\cdot", "*"), ("\\div", "/")
_CONSTANTS = {"e": math.log10(math.e), "\\pi": math.log10(math.pi)}
_CLOSING = {"(": ")", "{": "}", "[": "]"}
_FAR = 1.0
_GROWS = re.compile(r"\^|!|\\binom")


class _Unknown(Exception):
    """The size is not known."""


@dataclass(frozen=True, slots=True)
class _Span:
    """Decimal logarithm of a positive number: at least and at most."""

    low: float
    high: float

    def scaled(self, other: "_Span", sign: int = 1) -> "_Span":
        """The product, or with sign -1 the quotient."""
        ends = (other.low, other.high) if sign > 0 else (-other.high, -other.low)
        return _Span(self.low + ends[0], self.high + ends[1])


def is_out_of_reach(answer: str, gold: str, *, gold_is_small: bool) -> bool:
    """Whether the answer is a number at least ten times larger or smaller than the gold, or the gold is zero.

    A gold that is small has no more than `MOST_DIGITS` digits, whatever it is, and a set or an equation is no number.
    """
    if not _GROWS.search(answer):
        return False
    size = _span(answer)
    if size is None:
        return False
    if gold_is_small and size.low > 2 * MOST_DIGITS:
        return True
    if re.fullmatch(r"[-+]?0*\.?0*", gold):
        return size.low > -_LARGEST_LOGARITHM
    other = _span(gold)
    return other is not None and (size.low > other.high + _FAR or size.high < other.low - _FAR)


def _span(text: str) -> _Span | None:
    try:
        span = _Reader(text).read()
    except (_Unknown, RecursionError, OverflowError, ValueError):
        return None
    return None if math.isnan(span.low) or math.isnan(span.high) else span


class _Reader:
    """Recursive descent; every method returns the span of what it has read, whatever its sign."""

    def __init__(self, text: str) -> None:
        self._tokens = Tokens(_TOKEN.findall(text))

    def read(self) -> _Span:
        span = self._sum()
        if not self._tokens.are_read:
            raise _Unknown
        return span

    def _sum(self) -> _Span:
        if self._tokens.peek() in ("+", "-"):
            self._tokens.take()
        total = self._product()
        while self._tokens.peek() in ("+", "-"):
            subtracts = self._tokens.take() == "-"
            part = self._product()
            larger, smaller = (total, part) if total.high >= part.high else (part, total)
            if larger.low <= smaller.high + _FAR and subtracts:
                raise _Unknown
            total = _Span(larger.low - 0.1 * subtracts, larger.high + 0.302 * (not subtracts))
        return total

    def _product(self) -> _Span:
        total = self._power()
        while (token := self._tokens.peek()) and token not in ("+", "-", ")", "}", "]"):
            if token in _TIMES or token in _OVER:
                self._tokens.take()
            total = total.scaled(self._power(), -1 if token in _OVER else 1)
        return total

    def _power(self) -> _Span:
        base = self._factorial(self._atom())
        if self._tokens.peek() != "^":
            return base
        self._tokens.take()
        sign = -1 if self._is_negative() else 1
        exponent = self._power()
        if base.low < 0:
            raise _Unknown
        low = base.low * 10 ** min(exponent.low, _LARGEST_LOGARITHM)
        high = math.inf if exponent.high > _LARGEST_LOGARITHM else base.high * 10**exponent.high
        return _Span(low, high) if sign > 0 else _Span(-high, -low)

    def _is_negative(self) -> bool:
        if self._tokens.peek() == "-":
            self._tokens.take()
            return True
        if self._tokens.peek() == "{":
            self._tokens.take()
            if self._tokens.peek() == "-":
                self._tokens.take()
                # What is left closes with the brace that was opened; only a plain number is followed so far.
                raise _Unknown
            self._tokens.put_back()
        return False

    def _factorial(self, span: _Span) -> _Span:
        while self._tokens.peek() == "!":
            self._tokens.take()
            if self._tokens.peek() == "!" or span.low < math.log10(2):
                raise _Unknown
            # n! is at least (n/e)^n and at most n^n.
            low = 10 ** min(span.low, _LARGEST_LOGARITHM) * max(0.0, span.low - _CONSTANTS["e"])
            high = math.inf if span.high > _LARGEST_LOGARITHM else 10**span.high * span.high
            span = _Span(low, high)
        return span

    def _atom(self) -> _Span:
        token = self._tokens.take()
        if token in _CLOSING:
            inside = self._sum()
            if self._tokens.take() != _CLOSING[token]:
                raise _Unknown
            return inside
        if token[:1].isdigit():
            value = Fraction(token)
            if value <= 0:
                raise _Unknown
            logarithm = math.log10(value.numerator) - math.log10(value.denominator)
            return _Span(logarithm - 1e-9, logarithm + 1e-9) if value != 1 else _Span(0.0, 0.0)
        if token in _CONSTANTS:
            return _Span(_CONSTANTS[token], _CONSTANTS[token])
        if token == "\\frac":
            return self._atom().scaled(self._atom(), -1)
        if token == "\\sqrt" and self._tokens.peek() == "{":
            inside = self._atom()
            return _Span(inside.low / 2, inside.high / 2)
        if token == "\\binom":
            return self._binomial()
        raise _Unknown

    def _binomial(self) -> _Span:
        above, below = self._atom(), self._atom()
        if not 0 < below.low <= below.high < above.low < _LARGEST_LOGARITHM:
            raise _Unknown
        # At least (n/k)^k and at most n^k.
        low = 10**below.low * (above.low - below.high)
        return _Span(low, 10**below.high * above.high)
