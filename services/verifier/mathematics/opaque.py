"""Gives what the algebra system would take apart a single symbol: angles, vectors between points. Pure."""

import hashlib
import re

from services.verifier.mathematics.geometry import with_ordered_points

_ANGLES = re.compile(r"(?:m?\\angle|\\widehat) ?\{?[A-Z]{1,3}\}?")
_VECTORS = re.compile(r"\\vec\{[A-Z]{2}\}|\\triangle ?\{?[A-Z]{3}\}?")
_SUBSCRIPT = r"\\(?:text\{[a-zA-Z]+\}|[a-zA-Z]+)"
_LETTER_SUBSCRIPT = re.compile(
    rf"\\[a-zA-Z]+|(?P<letter>[a-zA-Z])_(?:\{{(?P<braced>{_SUBSCRIPT})\}}|(?P<bare>{_SUBSCRIPT}))"
)
_PART = r"(?:d|\\partial)(?:[^{}a-zA-Z]|\{\d\}|\\,)*"
_DERIVATIVES = re.compile(rf"\\frac\{{{_PART}[a-zA-Z]\}}\{{(?:{_PART}[a-zA-Z](?:\^\{{?\d\}}?)?\s*)+\}}")
_MARKED_LETTERS = re.compile(r"(?<![\\a-zA-Z])([a-zA-Z])('+)(?!\()|\\(d?dot)\{([a-zA-Z])\}")


def symbol_for(name: str) -> str:
    """A symbol that stands for `name`, the same each time: `q_{123456789}`."""
    return f"q_{{{int(hashlib.sha256(name.encode()).hexdigest()[:12], 16)}}}"


def with_symbols(text: str) -> str:
    """The text with a symbol for each angle, arc, triangle, vector and derivative, and with plain subscripts."""
    if "'" in text or "dot{" in text:
        text = _MARKED_LETTERS.sub(_marked_letter, text)
    if "\\" not in text:
        return text
    text = _DERIVATIVES.sub(lambda match: symbol_for(re.sub(r"[{}\s]|\\,", "", match.group())), text)
    text = _LETTER_SUBSCRIPT.sub(_plain_subscript, text)
    for figures in (_ANGLES, _VECTORS):
        text = figures.sub(lambda match: symbol_for(with_ordered_points(match.group()).replace(" ", "")), text)
    return text


def _plain_subscript(match: re.Match[str]) -> str:
    if not match.group("letter"):
        return match.group()
    name = re.sub(r"\\text\{|[\\}]", "", match.group("braced") or match.group("bare"))
    return f"{match.group('letter')}_{{{name}}}"


def _marked_letter(match: re.Match[str]) -> str:
    """`y''` and `\\ddot{y}`: the parser would drop the marks."""
    if match.group(1):
        return symbol_for(match.group(1) + match.group(2))
    return symbol_for(match.group(4) + "." * len(match.group(3).removesuffix("ot")))
