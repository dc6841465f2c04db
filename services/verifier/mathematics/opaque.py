"""Gives what the algebra system would take apart a single symbol: angles, vectors between points. Pure."""

import hashlib
import re

from services.verifier.mathematics.geometry import with_ordered_points

_ANGLES = re.compile(r"(?:m?\\angle|\\widehat) ?\{?[A-Z]{1,3}\}?")
_VECTORS = re.compile(r"\\vec\{[A-Z]{2}\}|\\triangle ?\{?[A-Z]{3}\}?")
_LETTER_SUBSCRIPT = re.compile(r"\\[a-zA-Z]+|([a-zA-Z])_\{?\\(?:text\{([a-zA-Z]+)\}|([a-zA-Z]+))\}?")


def symbol_for(name: str) -> str:
    """A symbol that stands for `name`, the same each time: `q_{123456789}`."""
    return f"q_{{{int(hashlib.sha256(name.encode()).hexdigest()[:12], 16)}}}"


def with_symbols(text: str) -> str:
    """The text with a symbol for each angle, arc, triangle and vector between points, and plain subscripts."""
    if "\\" not in text:
        return text
    text = _LETTER_SUBSCRIPT.sub(_plain_subscript, text)
    for figures in (_ANGLES, _VECTORS):
        text = figures.sub(lambda match: symbol_for(with_ordered_points(match.group()).replace(" ", "")), text)
    return text


def _plain_subscript(match: re.Match[str]) -> str:
    return f"{match.group(1)}_{{{match.group(2) or match.group(3)}}}" if match.group(1) else match.group()
