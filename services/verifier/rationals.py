"""Reads exact rational numbers out of mathematical text, with a bound on every step. Pure; used by `exact_math.py`."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction

LARGEST_FACTORIAL = 3000
_MOST_BITS = 40_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """An exact value and how it was written: `0.50` is `Number(value=Fraction(1, 2), decimals=2)`."""

    value: Fraction
    decimals: int | None = None
    """Digits after the point of a plain decimal literal."""
    percent: bool = False


class _NotExact(Exception):
    """The text is not an exact rational number in a form known here."""


_TOKEN = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|\\(?:frac|cdot|times|div)(?![a-zA-Z])|[-+*/^!(){}]")
_DECIMAL = re.compile(r"[-+]?\d*\.(\d+)")
_MIXED = re.compile(r"(-?)(\d+)(?: (\d+)/(\d+)|\\frac\{(\d+)\}\{(\d+)\})")


def read_number(text: str) -> Number | None:
    """The exact value of a number, however it is written, or None."""
    percent = bool(re.search(r"\\?%$", text))
    text = re.sub(r"\\?%$", "", text).strip()
    decimal = _DECIMAL.fullmatch(text)
    try:
        value = _mixed(text) if _MIXED.fullmatch(text) else _Evaluator(text).value()
    except (_NotExact, RecursionError):
        return None
    return Number(
        value=value / 100 if percent else value, decimals=len(decimal.group(1)) if decimal else None, percent=percent
    )


def _mixed(text: str) -> Fraction:
    match = _MIXED.fullmatch(text)
    assert match is not None
    sign, whole, *parts = match.groups()
    numerator, denominator = (int(part) for part in parts if part is not None)
    if not 0 < numerator < denominator:
        raise _NotExact
    value = int(whole) + Fraction(numerator, denominator)
    return -value if sign else value


class _Evaluator:
    """Rational arithmetic on a text, with a bound on every intermediate result."""

    def __init__(self, text: str) -> None:
        self._tokens: list[str] = []
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise _NotExact
            self._tokens.append(match.group())
            position = match.end()
        self._next = 0

    def value(self) -> Fraction:
        """The value of the whole text; `_NotExact` when it is not a plain number."""
        value = self._sum()
        if self._next != len(self._tokens):
            raise _NotExact
        return value

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._next += 1
        return token

    def _sum(self) -> Fraction:
        value = self._product()
        while self._peek() in ("+", "-"):
            value = _bounded(value + self._product() if self._take() == "+" else value - self._product())
        return value

    def _product(self) -> Fraction:
        value = self._signed()
        while self._peek() in ("*", "/", "\\cdot", "\\times", "\\div"):
            divides = self._take() in ("/", "\\div")
            factor = self._signed()
            if divides and factor == 0:
                raise _NotExact
            value = _bounded(value / factor if divides else value * factor)
        return value

    def _signed(self) -> Fraction:
        if self._peek() in ("+", "-"):
            return self._signed() if self._take() == "+" else -self._signed()
        return self._power()

    def _power(self) -> Fraction:
        base = self._atom()
        while self._peek() == "!":
            self._take()
            if base.denominator != 1 or not 0 <= base <= LARGEST_FACTORIAL:
                raise _NotExact
            base = _bounded(Fraction(math.factorial(base.numerator)))
        if self._peek() != "^":
            return base
        self._take()
        # Without braces TeX raises to one digit only: 10^12 is 10^1 2. Who writes that means twelve; not settled here.
        exponent = self._signed() if self._peek() in ("{", "(", "-") else self._atom()
        if exponent.denominator != 1 or abs(exponent) > _MOST_BITS or (base == 0 and exponent <= 0):
            raise _NotExact
        if _bits(base) * abs(exponent.numerator) > _MOST_BITS:
            raise _NotExact
        return Fraction(base**exponent.numerator)

    def _atom(self) -> Fraction:
        token = self._take()
        if token == "\\frac":
            numerator, denominator = self._group(), self._group()
            if denominator == 0:
                raise _NotExact
            return _bounded(numerator / denominator)
        if token in ("(", "{"):
            self._next -= 1
            return self._group()
        if not token or not (token[0].isdigit() or token[0] == "."):
            raise _NotExact
        mantissa, _, exponent = token.lower().partition("e")
        if exponent and abs(int(exponent)) > _MOST_BITS // 4:
            raise _NotExact
        return Fraction(mantissa.rstrip(".")) * Fraction(10) ** int(exponent or 0)

    def _group(self) -> Fraction:
        opening = self._take()
        if opening not in ("(", "{"):
            raise _NotExact
        value = self._sum()
        if self._take() != (")" if opening == "(" else "}"):
            raise _NotExact
        return value


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _bounded(value: Fraction) -> Fraction:
    if _bits(value) > _MOST_BITS:
        raise _NotExact
    return value


def same_number(answer: Number, gold: Number) -> bool:
    """Whether the values are the same, by the rules for percentages and for fractions written as decimals."""
    if answer.value == gold.value:
        return True
    if gold.percent and not answer.percent and answer.value == gold.value * 100:
        return True  # `50` for `50\%`
    if gold.decimals is None and gold.value.denominator != 1 and (answer.decimals or 0) >= 6:
        # A fraction may be given as a decimal, if it is long enough and rounded rightly to its last digit.
        written = abs(answer.value) * 10**answer.decimals if answer.decimals else Fraction(0)
        return written >= 1000 and round(gold.value, answer.decimals) == answer.value
    return False
