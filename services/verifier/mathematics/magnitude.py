"""Bounds how large the value of a mathematical text could get, without computing it. Pure; used by `compare.py`.

Reads the text much as the algebra system would, but tolerantly: what it does not know counts as a symbol. Each part
gets two bounds in decimal digits, by interval arithmetic on logarithms:

    high     log10 of the absolute value, at most:  `10^6` has 6, `x` has 0
    weight   digits to write the value down exactly: `1/3^{100}` has about 49

`10^{10^{10}}` has an exponent with high 10, so its weight is 10^10, and nobody has to try.
"""

import math
import re
from dataclasses import dataclass

from services.verifier.mathematics.guards import MOST_ELEMENTS
from services.verifier.mathematics.tokens import Tokens

MOST_DIGITS = 100_000
"""Digits of a value, or of anything on the way to it."""
LARGEST_FACTORIAL = 2000
"""Argument of a factorial or a binomial coefficient; also the most terms of a sum or a product."""
MOST_TERMS = 2000
"""Terms of a power of a sum, multiplied out."""
LARGEST_EXPONENT = 10_000
"""Of a symbol."""

_TOKEN = re.compile(r"\d+(?:\.\d+)?|\.\d+|\\(?:text|operatorname|mathrm)\s*\{[^{}]*\}|\\[a-zA-Z]+|\\.|[^\s]")
_LARGE_EXPONENT = re.compile(r"(?<=\d)[eE][-+]?\d{5}")
_OPENING = {"(": ")", "[": "]", "{": "}", "\\{": "\\}"}
_CLOSING = frozenset([*_OPENING.values(), "\\rfloor", "\\rceil", "\\rangle"])
_SEPARATORS = frozenset(",;=<>&\\\\")
_RELATIONS = frozenset(
    ["\\\\", "\\le", "\\ge", "\\ne", "\\in", "\\cup", "\\cap", "\\to", "\\approx", "\\mid", "\\pmod"]
)
_TIMES = frozenset(["\\cdot", "\\times", "\\div", "/", "*"])
_PLUS = frozenset(["+", "-", "\\pm", "\\mp"])
_SILENT = frozenset(["|", "\\left", "\\right", "\\lfloor", "\\lceil", "\\langle", "'", "\\displaystyle"])
_REPEATED = frozenset(["\\sum", "\\prod"])
_DEEPEST = 200


class _TooLarge(Exception):
    """A bound is passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    high: float = 0.0
    weight: float = 1.0
    symbolic: bool = False
    terms: int = 1


_ONE = _Size()
_CONSTANTS = {"e": _Size(high=0.435), "\\pi": _Size(high=0.498)}


def is_too_big(text: str) -> bool:
    """Whether the value, or something on the way to it, could have more than `MOST_DIGITS` digits or too many terms."""
    if _LARGE_EXPONENT.search(text):
        return True
    if not re.search(r"\^|!|\\binom|\\choose|\\sum|\\prod|\\exp", text) and len(text) < MOST_DIGITS:
        return False  # without these, a value has no more digits than its text
    try:
        _Reader(text).read()
    except (_TooLarge, OverflowError, RecursionError):
        return True
    return False


def _checked(size: _Size) -> _Size:
    if size.weight > MOST_DIGITS or abs(size.high) > MOST_DIGITS or size.terms > MOST_TERMS:
        raise _TooLarge
    return size


class _Reader:
    """Recursive descent over tokens; every method returns the bounds of what it has read."""

    def __init__(self, text: str) -> None:
        self._tokens = Tokens(_TOKEN.findall(text))
        self._depth = 0

    def read(self) -> None:
        """Read everything; `_TooLarge` when a bound is passed."""
        while not self._tokens.are_read:
            self._list()
            self._tokens.take()  # a bracket that was never opened

    def _list(self) -> _Size:
        """Expressions up to a closing bracket or the end; the largest of them, with the weight of all."""
        found = [self._sum()]
        while (token := self._tokens.peek()) and token not in _CLOSING:
            if token in _SEPARATORS or token in _RELATIONS:
                self._tokens.take()
            found.append(self._sum())
            if len(found) > 4 * MOST_ELEMENTS:
                raise _TooLarge
        if len(found) == 1:
            return found[0]
        return _checked(
            _Size(
                high=max(size.high for size in found),
                weight=sum(size.weight for size in found),
                symbolic=any(size.symbolic for size in found),
            )
        )

    def _sum(self) -> _Size:
        total = self._product()
        while self._tokens.peek() in _PLUS:
            self._tokens.take()
            part = self._product()
            symbolic = total.symbolic or part.symbolic
            total = _checked(
                _Size(
                    high=max(total.high, part.high) + 0.302,
                    weight=total.weight + part.weight,
                    symbolic=symbolic,
                    terms=total.terms + part.terms if symbolic else 1,
                )
            )
        return total

    def _product(self) -> _Size:
        total = self._signed()
        while True:
            token = self._tokens.peek()
            if token in _TIMES:
                self._tokens.take()
                part = self._signed()
            elif self._ends_product(token):
                return total
            else:
                part = self._power()
            # Divisors only shrink the value, unless they are small: their weight bounds how small.
            high = total.high + (part.weight if token in ("/", "\\div") else part.high)
            total = _checked(
                _Size(
                    high=high,
                    weight=total.weight + part.weight,
                    symbolic=total.symbolic or part.symbolic,
                    terms=total.terms * part.terms,
                )
            )

    def _ends_product(self, token: str) -> bool:
        return not token or token in _CLOSING or token in _PLUS or token in _SEPARATORS or token in _RELATIONS

    def _signed(self) -> _Size:
        while self._tokens.peek() in _PLUS:
            self._tokens.take()
        return self._power()

    def _power(self) -> _Size:
        base = self._factorials(self._atom())
        if self._tokens.peek() != "^":
            return base
        self._tokens.take()
        exponent = self._exponent()
        return self._factorials(_raised(base, exponent))

    def _exponent(self) -> _Size:
        # Right to left, with a sign: 2^{3}^{4} and 2^3^4 are read as towers, the costlier way.
        if self._tokens.peek() in _PLUS:
            self._tokens.take()
        exponent = self._factorials(self._atom())
        if self._tokens.peek() == "^":
            self._tokens.take()
            return _raised(exponent, self._exponent())
        return exponent

    def _factorials(self, size: _Size) -> _Size:
        while self._tokens.peek() == "!":
            self._tokens.take()
            if self._tokens.peek() == "!":
                raise _TooLarge  # a double factorial, which the algebra system takes for a factorial of a factorial
            size = _factorial(size)
        return size

    def _atom(self) -> _Size:
        token = self._tokens.peek()
        if self._ends_product(token):
            return _ONE
        self._tokens.take()
        if token[0].isdecimal() or token[0] == ".":
            return _checked(_number(token))
        if token in _OPENING:
            return self._group()
        if token in _SILENT or token == "^":
            return self._atom()
        return self._named(token)

    def _named(self, token: str) -> _Size:
        if token in ("\\frac", "\\binom", "\\dbinom", "\\tbinom"):
            return self._two_groups(is_fraction=token == "\\frac")
        if token == "\\sqrt":
            return self._root()
        if token in _REPEATED:
            return self._repeated()
        if token == "\\exp":
            return _raised(_CONSTANTS["e"], self._power())
        if token in _CONSTANTS:
            return _CONSTANTS[token]
        if token == "_":
            self._atom()
            return _ONE
        return _Size(symbolic=len(token) == 1 and token.isalpha())

    def _group(self) -> _Size:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _TooLarge
        size = self._list()
        self._tokens.take()
        self._depth -= 1
        return size

    def _two_groups(self, *, is_fraction: bool) -> _Size:
        first, second = self._atom(), self._atom()
        if is_fraction:
            return _checked(
                _Size(
                    high=first.high + second.weight,
                    weight=first.weight + second.weight,
                    symbolic=first.symbolic or second.symbolic,
                )
            )
        if first.symbolic or second.symbolic:
            return _checked(_Size(weight=first.weight + second.weight, symbolic=True))
        _check_count(first)
        digits = 0.302 * 10**first.high
        return _checked(_Size(high=digits, weight=digits + 1))

    def _root(self) -> _Size:
        if self._tokens.peek() == "[":
            self._tokens.take()
            self._group()
        inside = self._atom()
        return _Size(high=max(0.0, inside.high), weight=inside.weight + 1, symbolic=inside.symbolic)

    def _repeated(self) -> _Size:
        """A sum or a product: as many times as its bounds say, when they are numbers."""
        count = 1.0
        while self._tokens.peek() in ("_", "^"):
            self._tokens.take()
            bound = self._atom()
            if not bound.symbolic:
                _check_count(bound)
                count = max(count, 10**bound.high)
        body = self._product()
        return _checked(_Size(high=count * max(1.0, body.high), weight=count * body.weight, symbolic=body.symbolic))


def _number(token: str) -> _Size:
    whole, _, decimals = token.partition(".")
    significant = len(whole.lstrip("0"))
    high = math.log10(int(whole[:300] or "0") or 1) + max(0, len(whole) - 300) if significant <= 300 else significant
    return _Size(high=high, weight=max(1, significant) + len(decimals))


def _raised(base: _Size, exponent: _Size) -> _Size:
    value = 10**exponent.high if exponent.high < 300 else math.inf
    if base.symbolic:
        if exponent.symbolic:
            return _Size(weight=base.weight + exponent.weight, symbolic=True)
        if value > LARGEST_EXPONENT * 1.001:
            raise _TooLarge
        # (a+b+c)^n has C(n + 2, 2) terms when multiplied out.
        count = round(value)
        terms = math.comb(count + base.terms - 1, base.terms - 1) if base.terms > 1 else 1
        return _checked(_Size(high=base.high * value, weight=base.weight + value, symbolic=True, terms=terms))
    if exponent.symbolic:
        return _checked(_Size(high=base.high * max(1.0, value), weight=base.weight + exponent.weight, symbolic=True))
    return _checked(_Size(high=base.high * value, weight=base.weight * max(1.0, value)))


def _factorial(size: _Size) -> _Size:
    if size.symbolic:
        return _Size(weight=size.weight, symbolic=True)
    _check_count(size)
    digits = 10**size.high * max(1.0, size.high)
    return _checked(_Size(high=digits, weight=digits + 1))


def _check_count(size: _Size) -> None:
    if size.high > math.log10(LARGEST_FACTORIAL) + 1e-9:
        raise _TooLarge
