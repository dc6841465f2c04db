"""Reads exact rational numbers out of mathematical text, with a bound on every step. Pure; used by `compare.py`."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from services.verifier.mathematics.tokens import Tokens

LARGEST_FACTORIAL = 3000
"""Exact arithmetic goes a little further than the guards in front of the algebra system, to tell `1/2004!` apart."""
_MOST_BITS = 40_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """An exact value and how it was written: `0.50` is `Number(value=Fraction(1, 2), decimals=2)`."""

    value: Fraction
    decimals: int | None = None
    """Digits after the point of a plain decimal literal."""
    percent: bool = False

    @property
    def is_count(self) -> bool:
        """Whether it is written without a sign and without a fraction, as a number of percent would be."""
        return self.value >= 0 and (self.decimals is not None or self.value.denominator == 1)


class _NotExact(Exception):
    """The text is not an exact rational number in a form known here."""


_TOKEN = re.compile(
    r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
    r"|\\(?:frac|binom|cdot|times|div)(?![a-zA-Z])|[-+*/^!(){}]",
    re.ASCII,
)
_PERCENT = re.compile(r"\s*\\?%")
_PLAIN = re.compile(r"([-+]?)(\d{1,400})(?:\.(\d{1,400})|/(\d{1,400}))?", re.ASCII)
_FRACTION = re.compile(r"([-+]?)\\frac\{(\d{1,400})\}\{(\d{1,400})\}", re.ASCII)
_LISTED = r"[-+]?\d{1,100}(?:/\d{1,100}|\.\d{1,100})?"
_LIST = re.compile(rf"([(\[]?){_LISTED}(?:[,;]{_LISTED})+([)\]]?)", re.ASCII)
_DECIMAL = re.compile(r"[-+]?\d*\.(\d+)", re.ASCII)
_MIXED = re.compile(r"([-+]?)(\d+)(?: (\d+)/(\d+)| ?\\frac\{(\d+)\}\{(\d+)\})", re.ASCII)
_STARTED = re.compile(r"(-?)(\d*)\.(\d{2,100})", re.ASCII)
_RECURRING = re.compile(r"(-?)(\d*)\.(\d*)(?:\\(?:overline|bar|dot)\{|\()(\d+)[})]", re.ASCII)
_DOTTED = re.compile(r"\\dot\{(\d)\}(\d*)\\dot\{(\d)\}", re.ASCII)


def read_number(text: str) -> Number | None:
    """The exact value of a number, however it is written, or None."""
    plain = _PLAIN.fullmatch(text)
    if plain:
        return _plain(*plain.groups())
    fraction = _FRACTION.fullmatch(text)
    if fraction:
        sign, numerator, denominator = fraction.groups()
        return _plain(sign, numerator, None, denominator)
    percent = text.endswith("%")
    if percent:
        text = _PERCENT.sub("", text).strip()
    if text.endswith("\\dots"):
        return _going_on(text.removesuffix("\\dots"), percent=percent)
    if not text or not (text[-1].isdigit() or text[-1] in ")}!."):
        return None
    decimal = _DECIMAL.fullmatch(text)
    try:
        value = _value(text)
    except (_NotExact, RecursionError):
        return None
    return Number(
        value=value / 100 if percent else value, decimals=len(decimal.group(1)) if decimal else None, percent=percent
    )


def _going_on(text: str, *, percent: bool) -> Number | None:
    """`0.1666\\dots` is 1/6: the last digits are there often enough to say how it goes on."""
    match = _STARTED.fullmatch(text)
    if match is None:
        return None
    sign, whole, decimals = match.groups()
    for length in range(1, len(decimals) // 2 + 1):
        block = decimals[-length:]
        shown = len(decimals) - len(re.sub(f"(?:{block})+$", "", decimals))
        times = shown // length
        if times >= 3 or (times == 2 and (length > 1 or shown == len(decimals))):
            fixed = decimals[: len(decimals) - times * length]
            value = Fraction(int((whole or "0") + fixed), 10 ** len(fixed))
            value += Fraction(int(block), (10**length - 1) * 10 ** len(fixed))
            value = -value if sign else value
            return Number(value=value / 100 if percent else value, percent=percent)
    return None


def _plain(sign: str, whole: str, decimals: str | None, divisor: str | None) -> Number | None:
    if decimals is not None:
        value = Fraction(int(whole + decimals), 10 ** len(decimals))
        return Number(value=-value if sign == "-" else value, decimals=len(decimals))
    numerator = -int(whole) if sign == "-" else int(whole)
    if divisor is None:
        return Number(value=Fraction(numerator))
    denominator = int(divisor)
    return Number(value=Fraction(numerator, denominator)) if denominator else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """`(1,0.5]` is `Numbers(brackets="(]", values=(Fraction(1), Fraction(1, 2)), has_decimals=True)`."""

    brackets: str
    values: tuple[Fraction, ...]
    has_decimals: bool


def read_value(text: str) -> Fraction | None:
    """The value of a number alone, without how it was written; None where it is none that can be read."""
    number = read_number(text)
    return None if number is None else number.value


def read_numbers(text: str) -> Numbers | None:
    """Two or more plain numbers between commas, in brackets or not; without brackets, in order of size."""
    match = _LIST.fullmatch(text)
    if match is None or bool(match.group(1)) != bool(match.group(2)):
        return None
    brackets = match.group(1) + match.group(2)
    try:
        values = [_listed(item) for item in text.strip("()[]").replace(";", ",").split(",")]
    except ZeroDivisionError:
        return None
    return Numbers(brackets=brackets, values=tuple(values if brackets else sorted(values)), has_decimals="." in text)


def _listed(item: str) -> Fraction:
    # Reading a text is what a Fraction does most slowly.
    return Fraction(int(item)) if item.lstrip("+-").isdigit() else Fraction(item)


def _value(text: str) -> Fraction:
    text = _DOTTED.sub(r"\\overline{\1\2\3}", text)
    mixed, recurring = _MIXED.fullmatch(text), _RECURRING.fullmatch(text)
    if mixed:
        return _mixed(mixed)
    if recurring:
        sign, whole, fixed, repeated = recurring.groups()
        value = Fraction(int((whole or "0") + fixed), 10 ** len(fixed))
        value += Fraction(int(repeated), (10 ** len(repeated) - 1) * 10 ** len(fixed))
        return -value if sign else value
    return _Evaluator(text).value()


def _mixed(match: re.Match[str]) -> Fraction:
    sign, whole, *parts = match.groups()
    numerator, denominator = (int(part) for part in parts if part is not None)
    if not 0 < numerator < denominator:
        raise _NotExact
    value = int(whole) + Fraction(numerator, denominator)
    return -value if sign == "-" else value


class _Evaluator:
    """Rational arithmetic on a text, with a bound on every intermediate result."""

    def __init__(self, text: str) -> None:
        tokens: list[str] = []
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise _NotExact
            tokens.append(match.group())
            position = match.end()
        self._tokens = Tokens(tokens)

    def value(self) -> Fraction:
        """The value of the whole text; `_NotExact` when it is not a plain number."""
        value = self._sum()
        if not self._tokens.are_read:
            raise _NotExact
        return value

    def _sum(self) -> Fraction:
        value = self._product()
        while self._tokens.peek() in ("+", "-"):
            value = _bounded(value + self._product() if self._tokens.take() == "+" else value - self._product())
        return value

    def _product(self) -> Fraction:
        value = self._signed()
        while self._tokens.peek() in ("*", "/", "\\cdot", "\\times", "\\div"):
            divides = self._tokens.take() in ("/", "\\div")
            factor = self._signed()
            if divides and factor == 0:
                raise _NotExact
            value = _bounded(value / factor if divides else value * factor)
        return value

    def _signed(self) -> Fraction:
        if self._tokens.peek() in ("+", "-"):
            return self._signed() if self._tokens.take() == "+" else -self._signed()
        return self._power()

    def _power(self) -> Fraction:
        base = self._atom()
        if self._tokens.peek() == "!":
            self._tokens.take()
            if self._tokens.peek() == "!":
                raise _NotExact  # a double factorial, which is something else than the factorial of a factorial
            if base.denominator != 1 or not 0 <= base <= LARGEST_FACTORIAL:
                raise _NotExact
            base = _bounded(Fraction(math.factorial(base.numerator)))
        if self._tokens.peek() != "^":
            return base
        self._tokens.take()
        # Without braces TeX raises to one digit only: 10^12 is 10^1 2. Who writes that means twelve; not settled here.
        exponent = self._signed() if self._tokens.peek() in ("{", "(", "-") else self._atom()
        if exponent.denominator != 1 or abs(exponent) > _MOST_BITS or (base == 0 and exponent <= 0):
            raise _NotExact
        if _bits(base) * abs(exponent.numerator) > _MOST_BITS:
            raise _NotExact
        return Fraction(base**exponent.numerator)

    def _atom(self) -> Fraction:
        token = self._tokens.take()
        if token == "\\frac":
            numerator, denominator = self._group(), self._group()
            if denominator == 0:
                raise _NotExact
            return _bounded(numerator / denominator)
        if token == "\\binom":
            return _binomial(self._group(), self._group())
        if token in ("(", "{"):
            self._tokens.put_back()
            return self._group()
        if not token or not (token[0].isdigit() or token[0] == "."):
            raise _NotExact
        mantissa, _, exponent = token.lower().partition("e")
        if exponent and abs(int(exponent)) > _MOST_BITS // 4:
            raise _NotExact
        return Fraction(mantissa.rstrip(".")) * Fraction(10) ** int(exponent or 0)

    def _group(self) -> Fraction:
        opening = self._tokens.take()
        if opening not in ("(", "{"):
            raise _NotExact
        value = self._sum()
        if self._tokens.take() != (")" if opening == "(" else "}"):
            raise _NotExact
        return value


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _bounded(value: Fraction) -> Fraction:
    if _bits(value) > _MOST_BITS:
        raise _NotExact
    return value


def _binomial(n: Fraction, k: Fraction) -> Fraction:
    if n.denominator != 1 or k.denominator != 1 or not 0 <= k <= n <= LARGEST_FACTORIAL:
        raise _NotExact
    return _bounded(Fraction(math.comb(n.numerator, k.numerator)))


def same_number(answer: Number, gold: Number, *, decimals: int, percent_sign_optional: bool) -> bool:
    """Whether the values are the same, by the rules for percentages and for fractions written as decimals.

    `decimals` is how many a rounded value must have.
    """
    if answer.value == gold.value:
        return True
    if percent_sign_optional and answer.percent != gold.percent:
        percent, bare = (answer, gold) if answer.percent else (gold, answer)
        if bare.value == percent.value * 100 and (gold.percent or bare.is_count):
            return True  # `50` and `50\\%`
    if gold.decimals is None:
        return is_rounded(answer, gold.value, decimals)
    return answer.decimals is None and is_rounded(gold, answer.value, decimals)


def is_rounded(number: Number, exact: Fraction, decimals: int) -> bool:
    """Whether a decimal literal is the exact fraction, rounded rightly to its last digit, and long enough to say so.

    Long enough is `decimals` of them and four digits that count; with fewer than four asked for, one digit.
    """
    if number.decimals is None or number.decimals < decimals or exact.denominator == 1:
        return False
    written = abs(number.value) * 10**number.decimals
    if written < (1000 if decimals >= 4 else 1):
        return False
    return abs(number.value - exact) <= Fraction(1, 2 * 10**number.decimals)
