"""Makes texts ready for algebra: bases and percentages worked out, degrees as radians, figures as symbols. Pure."""

import re

from services.verifier.mathematics import options as math_options
from services.verifier.mathematics.bases import has_base, in_base_ten
from services.verifier.mathematics.opaque import with_symbols
from services.verifier.mathematics.question import DECIMALS, How, Leaf, Result
from services.verifier.mathematics.rationals import read_value

_MARKED = re.compile(r"[\w)}](?:'+|\^(?:T|\\(?:prime|top|dagger|cdot))(?![a-zA-Z]))")
_DEGREES = re.compile("(\\d+(?:\\.\\d+)?|[a-zA-Z]|\\\\[a-z]+|\\))\u00b0")


def make_leaf(answer: str, gold: str, how: How, options: frozenset[str], decimals: int = DECIMALS) -> Result:
    """The question whether two expressions are equal; False where what algebra would overlook already differs."""
    if has_base(answer) or has_base(gold):
        left, right = in_base_ten(answer), in_base_ten(gold)
        if left is None or right is None:
            return False
        if left.bases != right.bases and math_options.CONVERT_BASES not in options:
            return False
        answer, gold = left.text, right.text
    answer, gold = (with_symbols(_in_radians(_without_percent(text))) for text in (answer, gold))
    if sorted(_MARKED.findall(answer)) != sorted(_MARKED.findall(gold)):
        return False  # transposes and the like, whose marks the parser drops
    return Leaf(answer=answer, gold=gold, how=how, decimals=decimals)


def _without_percent(text: str) -> str:
    value = read_value(text) if text.endswith("%") else None
    return text if value is None else f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def _in_radians(text: str) -> str:
    return _DEGREES.sub(r"(\1\\cdot\\frac{\\pi}{180})", text) if "\u00b0" in text else text
