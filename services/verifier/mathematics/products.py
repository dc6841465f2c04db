"""Products whose factors must not change places: matrices and compositions. Pure; used by `values.py`.

An expression is a sum of words with coefficients: `2A^{-1}B+C` is `{("A^-1", "B"): 2, ("C",): 1}`. Products are
multiplied out, inverses and transposes of products are turned round, and a factor next to its inverse disappears.
"""

import re
from collections.abc import Mapping
from fractions import Fraction

from services.verifier.mathematics.tokens import Tokens

Words = Mapping[tuple[str, ...], Fraction]

_TOKEN = re.compile(r"[A-Z](?:_\{?\w\}?)?'?|\d+(?:\.\d+)?|\^|\\cdot|\\circ|\\frac|[-+(){}*/]|T|\\top")
_MATRIX_MARK = re.compile(r"(?:[A-Z](?:_\{?\w\}?)?|\))\^\{?(?:-1|T|\\top)(?![0-9])\}?")
_CAPITALS = re.compile(r"[A-Z](?:_\{?\w\}?)?")
_MOST_WORDS, _LONGEST_WORD = 64, 24
_INVERSE, _TRANSPOSE = "^-1", "^T"


class _NotWords(Exception):
    """The text is something else."""


def have_ordered_factors(*texts: str) -> bool:
    """Whether the capitals in the texts are matrices: one of them is inverted or transposed, or `AB` meets `BA`."""
    if any(re.search(r"[a-z]", re.sub(r"\\(?:cdot|circ|top|frac)|_\{?\w\}?", "", text)) for text in texts):
        return False
    if all(len(set(_CAPITALS.findall(text.replace("^T", "").replace("^{T}", "")))) < 2 for text in texts):
        return False
    if any(_MATRIX_MARK.search(text) for text in texts):
        return True
    pairs = {pair for text in texts[-1:] for pair in re.findall(r"(?=([A-Z][A-Z]))", text) if pair[0] != pair[1]}
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
        if not token or not token[0].isupper():
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
    kept: list[str] = []
    for factor in word:
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
    if exponent in ("T", "\\top"):
        return {tuple(_transpose(factor) for factor in reversed(word)): c for word, c in base.items()}
    if exponent.lstrip("-").isdigit() and len(exponent) < 4:
        power = int(exponent)
        if power < 0:
            base, power = _inverted(base), -power
        total: Words = {(): Fraction(1)}
        for _ in range(min(power, _LONGEST_WORD + 1)):
            total = _multiplied(total, base)
        return total
    raise _NotWords


def _inverted(words: Words) -> Words:
    if len(words) != 1:
        # The inverse of a sum is a factor of its own.
        name = "+".join(f"{coefficient}*{'.'.join(word)}" for word, coefficient in sorted(words.items()))
        return {(f"({name}){_INVERSE}",): Fraction(1)}
    ((word, coefficient),) = words.items()
    return {tuple(_inverse(factor) for factor in reversed(word)): 1 / coefficient}
