"""Products whose factors must not change places: matrices and compositions. Pure; used by `values.py`.

An expression is a sum of words with coefficients: `2A^{-1}B+C` is `{("A^-1", "B"): 2, ("C",): 1}`. Products are
multiplied out, inverses and transposes of products are turned round, and a factor next to its inverse disappears.
"""

import re
from collections.abc import Mapping
from fractions import Fraction

from services.verifier.mathematics.tokens import Tokens

Words = Mapping[tuple[str, ...], Fraction]

_GREEK_CAPITAL = r"\\(?:Lambda|Sigma|Omega|Phi|Delta|Gamma|Theta|Psi|Xi)"
_GREEK = r"\\(?:alpha|beta|gamma|delta|lambda|mu|nu|rho|sigma|tau|phi|omega)"
_LETTER = rf"(?:[A-Za-z]|{_GREEK_CAPITAL})(?:_\{{?\w\}}?)?'?"
_TOKEN = re.compile(rf"{_LETTER}|{_GREEK}(?![a-zA-Z])|\d+(?:\.\d+)?|\^|\\cdot|\\circ|\\frac|[-+(){{}}*/]")
_TRANSPOSED = r"\^\{?(?:T|H)\}?"
_MATRIX_MARK = re.compile(
    rf"(?:(?:[A-Z]|{_GREEK_CAPITAL})(?:_\{{?\w\}}?)?|\)|(?<![\\a-zA-Z])[a-z](?=\^\{{?T))(?:\^\{{?-\d\}}?|{_TRANSPOSED})|(?<![\\a-zA-Z])[A-Z]'(?=[A-Z])"
)
_NUMBER = re.compile(rf"{_GREEK}(?:\^-1)?")
_MOST_WORDS, _LONGEST_WORD, _LARGEST_POWER = 64, 24, 6
_INVERSE, _TRANSPOSE = "^-1", "^T"


class _NotWords(Exception):
    """The text is something else."""


def have_ordered_factors(answer: str, gold: str) -> bool:
    """Whether the letters in the gold are matrices: one of them is inverted or transposed, or `AB` meets `BA`."""
    letters = re.findall(
        rf"(?:{_GREEK_CAPITAL}|[A-Za-z])(?:_\{{?\w\}}?)?", re.sub(r"\^\{?[TH]\}?|\\cdot|\\circ", " ", gold)
    )
    if len(set(letters)) < 2:
        return False
    if _MATRIX_MARK.search(gold) or _MATRIX_MARK.search(answer):
        return True
    if re.search("[a-z]", gold):
        return False
    pairs = {pair for pair in re.findall(r"(?=([A-Z][A-Z]))", gold) if pair[0] != pair[1]}
    return any(pair[::-1] in pairs for pair in pairs)


def read_words(text: str) -> Words | None:
    """The sum of words that a text stands for, or None."""
    try:
        return _Reader(text).read()
    except (_NotWords, RecursionError):
        return None


class _Reader:
    def __init__(self, text: str) -> None:
        tokens: list[str] = []
        position = 0
        while position < len(text):
            if text[position].isspace():
                position += 1
                continue
            match = _TOKEN.match(text, position)
            if match is None:
                raise _NotWords
            tokens.append(match.group())
            position = match.end()
        self._tokens = Tokens(tokens)

    def read(self) -> Words:
        words = self._sum()
        if not self._tokens.are_read:
            raise _NotWords
        return words

    def _sum(self) -> Words:
        total: dict[tuple[str, ...], Fraction] = {}
        sign = 1
        if self._tokens.peek() in ("+", "-"):
            sign = -1 if self._tokens.take() == "-" else 1
        while True:
            for word, coefficient in self._product().items():
                total[word] = total.get(word, Fraction(0)) + sign * coefficient
            if self._tokens.peek() not in ("+", "-"):
                return {word: coefficient for word, coefficient in total.items() if coefficient}
            sign = -1 if self._tokens.take() == "-" else 1

    def _product(self) -> Words:
        total = self._power()
        while (token := self._tokens.peek()) and token not in ("+", "-", ")", "}"):
            if token in ("\\cdot", "\\circ", "*"):
                self._tokens.take()
            if token == "/":
                raise _NotWords
            total = _multiplied(total, self._power())
        return total

    def _power(self) -> Words:
        base = self._atom()
        while self._tokens.peek() == "^":
            self._tokens.take()
            base = _raised(base, self._exponent())
        return base

    def _exponent(self) -> str:
        opened = self._tokens.peek() == "{"
        if opened:
            self._tokens.take()
        sign = self._tokens.take() if self._tokens.peek() == "-" else ""
        exponent = sign + self._tokens.take()
        if opened and self._tokens.take() != "}":
            raise _NotWords
        return exponent

    def _atom(self) -> Words:
        token = self._tokens.take()
        if token in ("(", "{"):
            inner = self._sum()
            if self._tokens.take() != (")" if token == "(" else "}"):
                raise _NotWords
            return inner
        if token == "\\frac":
            above, below = self._atom(), self._atom()
            if set(below) != {()}:
                raise _NotWords
            return {word: coefficient / below[()] for word, coefficient in above.items()}
        if token[:1].isdigit():
            return {(): Fraction(token)}
        if not token or not (token[0].isalpha() or token[0] == "\\"):
            raise _NotWords
        return {(token,): Fraction(1)}


def _multiplied(first: Words, second: Words) -> Words:
    total: dict[tuple[str, ...], Fraction] = {}
    for left, one in first.items():
        for right, other in second.items():
            word = _reduced(left + right)
            total[word] = total.get(word, Fraction(0)) + one * other
    if len(total) > _MOST_WORDS or any(len(word) > _LONGEST_WORD for word in total):
        raise _NotWords
    return total


def _reduced(word: tuple[str, ...]) -> tuple[str, ...]:
    # Small Greek letters, and a small letter in front, are numbers, which may stand anywhere.
    numbers = sorted(factor for factor in word if _NUMBER.fullmatch(factor))
    kept: list[str] = []
    for factor in (*numbers, *(factor for factor in word if not _NUMBER.fullmatch(factor))):
        if kept and _inverse(kept[-1]) == factor:
            kept.pop()
        else:
            kept.append(factor)
    return tuple(kept)


def _inverse(factor: str) -> str:
    return factor.removesuffix(_INVERSE) if factor.endswith(_INVERSE) else factor + _INVERSE


def _transpose(factor: str) -> str:
    inverted = factor.endswith(_INVERSE)
    bare = factor.removesuffix(_INVERSE)
    bare = bare.removesuffix(_TRANSPOSE) if bare.endswith(_TRANSPOSE) else bare + _TRANSPOSE
    return bare + _INVERSE if inverted else bare


def _raised(base: Words, exponent: str) -> Words:
    if exponent in ("T", "H"):
        return {tuple(_transpose(factor) for factor in reversed(word)): c for word, c in base.items()}
    if exponent.lstrip("-").isdigit() and len(exponent) < 4:
        power = int(exponent)
        if power < 0:
            base, power = _inverted(base), -power
        if power <= _LARGEST_POWER:
            total: Words = {(): Fraction(1)}
            for _ in range(power):
                total = _multiplied(total, base)
            return total
    return {(f"({_named(base)})^{exponent}",): Fraction(1)}


def _named(words: Words) -> str:
    return "+".join(f"{coefficient}*{'.'.join(word)}" for word, coefficient in sorted(words.items()))


def _inverted(words: Words) -> Words:
    if len(words) != 1:
        # The inverse of a sum is a factor of its own.
        return {(f"({_named(words)}){_INVERSE}",): Fraction(1)}
    ((word, coefficient),) = words.items()
    if any(_TRANSPOSE in factor for factor in word):
        # `(A^TA)^{-1}` may be the inverse of a product of matrices that have none.
        return {(f"({'.'.join(word)}){_INVERSE}",): 1 / coefficient}
    return {tuple(_inverse(factor) for factor in reversed(word)): 1 / coefficient}
