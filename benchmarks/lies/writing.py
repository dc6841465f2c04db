"""Writes exact numbers, sums and polynomials in LaTeX, in more than one way."""

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction
from math import gcd
from random import Random

Rational = int | Fraction


def number(value: Rational) -> str:
    """As a data set would write it: `-\\frac{2}{3}`."""
    value = Fraction(value)
    if value.denominator == 1:
        return str(value.numerator)
    sign = "-" if value < 0 else ""
    return f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def slashed(value: Rational) -> str:
    """With a slash: `-2/3`."""
    return str(Fraction(value))


def decimal(value: Rational) -> str | None:
    """Written out, if the expansion ends."""
    value = Fraction(value)
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest != 1:
        return None
    with localcontext() as context:
        context.prec = 60
        text = format(Decimal(value.numerator) / Decimal(value.denominator), "f")
    return text


def rounded(value: Rational | Decimal, places: int, off: int = 0) -> str:
    """Correctly rounded to so many decimals; `off` units of the last place beside that."""
    with localcontext() as context:
        context.prec = 60
        exact = (
            value if isinstance(value, Decimal) else Decimal(Fraction(value).numerator) / Fraction(value).denominator
        )
        unit = Decimal(1).scaleb(-places)
        return format(exact.quantize(unit, ROUND_HALF_EVEN) + off * unit, "f")


def root(value: int) -> Decimal:
    """The square root to 50 digits."""
    with localcontext() as context:
        context.prec = 50
        return Decimal(value).sqrt()


def spelled(value: Rational, source: Random) -> str:
    """Any spelling of a number that nobody would call wrong."""
    value = Fraction(value)
    ways = [number(value), number(value).replace("\\frac", "\\dfrac"), number(value).replace("\\frac", "\\tfrac")]
    if value.denominator > 1:
        ways += [
            slashed(value),
            f"{'-' if value < 0 else ''}\\frac{{{2 * abs(value.numerator)}}}{{{2 * value.denominator}}}",
        ]
        written = decimal(value)
        ways += [written] if written else []
    return source.choice(ways)


def term(factor: Rational, letters: str) -> str:
    """`-x^2` for -1 and `x^2`; the factor alone where there are no letters."""
    if not letters:
        return number(factor)
    if abs(factor) == 1:
        return letters if factor > 0 else "-" + letters
    return number(factor) + letters


def total(*terms: tuple[Rational, str]) -> str:
    """A sum with its signs: `3x^2-x+4` for (3, "x^2"), (-1, "x"), (4, "")."""
    text = ""
    for factor, letters in terms:
        if factor == 0:
            continue
        written = term(factor, letters)
        text += written if not text or written.startswith("-") else "+" + written
    return text or "0"


def polynomial(coefficients: Sequence[Rational], letter: str = "x") -> str:
    """From the highest power down to the constant."""
    top = len(coefficients) - 1
    return total(*((factor, power(letter, top - place)) for place, factor in enumerate(coefficients)))


def power(letter: str, exponent: int) -> str:
    """`x^{12}`, `x`, or nothing at all."""
    if exponent == 0:
        return ""
    return letter if exponent == 1 else f"{letter}^{exponent}" if exponent < 10 else f"{letter}^{{{exponent}}}"


def times(one: Sequence[Rational], other: Sequence[Rational]) -> list[Rational]:
    """The product of two polynomials."""
    product: list[Rational] = [0] * (len(one) + len(other) - 1)
    for place, factor in enumerate(one):
        for shift, second in enumerate(other):
            product[place + shift] += factor * second
    return product


def shuffled(items: Sequence[str], source: Random) -> list[str]:
    """The items in another order than theirs, if they have one."""
    others = list(items)
    while others == list(items) and len(set(items)) > 1:
        source.shuffle(others)
    return others


def nonzero(source: Random, most: int = 9) -> int:
    """A small number with a sign."""
    return source.randint(1, most) * source.choice((-1, 1))


def proper(source: Random, most: int = 12) -> Fraction:
    """A positive number that is not whole."""
    while True:
        bottom = source.randint(2, most)
        top = source.randint(1, 3 * most)
        if gcd(top, bottom) == 1:
            return Fraction(top, bottom)


def rational(source: Random) -> Fraction:
    """Whole or not, of either sign, never zero."""
    value = proper(source) if source.random() < 0.4 else Fraction(source.randint(1, 20))
    return value * source.choice((-1, 1))


def rationals(source: Random, count: int) -> list[Fraction]:
    """So many with different absolute values."""
    found: list[Fraction] = []
    while len(found) < count:
        value = rational(source)
        if all(abs(value) != abs(other) for other in found):
            found.append(value)
    return found


SQUAREFREE = (2, 3, 5, 6, 7, 10, 11, 13, 14, 15, 17, 19, 21, 22, 23, 26, 29, 30, 31)
