"""Numbers written in a base: `1010_2`, `-221_3`, `0.1_2`, and such numbers inside an expression. Pure.

The base is part of the answer. Algebra would ignore the subscript, so no text with one may reach it.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

_NAMES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_NAMES |= {"eleven": 11, "twelve": 12, "sixteen": 16}
_LONGEST = 1000
_DIGITS = r"(?:[0-9][0-9A-Z]*|[A-F]{2,}(?=\)?_\{?(?:\\text\{)?16))(?:\.[0-9A-Z]+)?"
_BASE = (
    r"_(?:\{\(?(?:\\text\{)?(?:base ?)?(?P<braced>\d{1,2}|[a-z]+)\)?\}{1,2}"
    r"|\\text\{(?:base ?)?(?P<texted>\d{1,2}|[a-z]+)\}|(?P<bare>\d{1,2}|[a-z](?![a-z])))"
)
_SPELT = r"\s*\(?(?:\\text\{)?\s*\(?(?:in )?base ?\}?(?P<spelt>\d{1,2}|[a-z]+)\)?\}?"
_NUMERAL = re.compile(
    rf"(?<![0-9A-Z_.\\}}])(?:(?P<open>\()|(?P<line>\\overline\{{))?(?P<digits>{_DIGITS})(?(open)\))(?(line)\}})"
    rf"(?:{_BASE}|{_SPELT})"
)
_SIGNED = re.compile(r"(?P<sign>[-+]?)(?:\((?P<inside>.*)\)|(?P<plain>.*))", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Based:
    """`-1010_2` is `Based(digits="-1010", base="2")`; the base is the number, or the letter that stands for it."""

    digits: str
    base: str

    def value(self) -> Fraction | None:
        """The number; None when a digit is too large for the base, or the base is no number."""
        if not self.base.isdigit() or not 2 <= int(self.base) <= 36:
            return None
        sign = -1 if self.digits.startswith("-") else 1
        whole, _, fraction = self.digits.lstrip("-").partition(".")
        base = int(self.base)
        try:
            return sign * Fraction(int(whole + fraction, base), base ** len(fraction))
        except ValueError:
            return None


def has_base(text: str) -> bool:
    """Whether some number in the text may have a base."""
    return ("_" in text or "base" in text) and _NUMERAL.search(text) is not None


def read_based(text: str) -> Based | None:
    """One number with its base, with a sign or in brackets."""
    if "_" not in text and "base" not in text:
        return None
    signed = _SIGNED.fullmatch(text)
    assert signed is not None
    sign = "-" if signed.group("sign") == "-" else ""
    for inner in (text[len(signed.group("sign")) :], signed.group("inside")):
        match = _NUMERAL.fullmatch(inner) if inner else None
        if match and len(match.group("digits")) <= _LONGEST:
            digits = match.group("digits").lstrip("0") or "0"
            digits = "0" + digits if digits.startswith(".") else digits
            return Based(digits=sign + digits, base=_base(match))
    return None


def with_plain_bases(text: str) -> str:
    """The text with every base written as a subscript in digits: `12_3` for `(12)_{\\text{three}}`."""
    if not has_base(text):
        return text
    return _NUMERAL.sub(lambda match: f"{match.group('digits')}_{{{_base(match)}}}", text)


@dataclass(frozen=True, slots=True, kw_only=True)
class InTen:
    """`2\\cdot12_3` is `InTen(text="2\\cdot(5)", bases=("3",))`."""

    text: str
    bases: tuple[str, ...]


def in_base_ten(text: str) -> InTen | None:
    """The expression with every numeral written in base ten, and the bases that there were, sorted.

    None when a numeral is none in its base.
    """
    bases: list[str] = []
    fits = True

    def replaced(match: re.Match[str]) -> str:
        nonlocal fits
        based = Based(digits=match.group("digits"), base=_base(match))
        if not based.base.isdigit():
            # `34_b`: its digits as they are; a different base letter is told apart by `bases`.
            bases.append(f"{based.base}:{based.digits}")
            return f"({based.digits})"
        value = based.value()
        if value is None:
            fits = False
            return "0"
        bases.append(based.base)
        return (
            f"({value.numerator})" if value.denominator == 1 else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
        )

    changed = _NUMERAL.sub(replaced, text)
    return InTen(text=changed, bases=tuple(sorted(bases))) if fits else None


def _base(match: re.Match[str]) -> str:
    written = next(group for group in match.group("braced", "texted", "bare", "spelt") if group)
    return written if written.isdigit() else str(_NAMES.get(written, written))
