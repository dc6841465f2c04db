"""The rules for times of the day, ratios, and statements about points. Pure; used by `policy.py`."""

import re

from services.verifier.mathematics.geometry import read_statement, same_triangle
from services.verifier.mathematics.question import Result
from services.verifier.mathematics.rationals import read_value
from services.verifier.mathematics.ratios import read_clock, read_ratio
from services.verifier.mathematics.rules import Rules

_TIME = re.compile(r"[ap]\.? ?m\b|noon|midnight|clock", re.IGNORECASE)


def compare_times(answer: str, gold: str, _rules: Rules) -> bool | None:
    """Times of the day; what may be a ratio as well has to agree as both."""
    if ":" not in gold and not _TIME.search(gold):
        return None
    time = read_clock(gold)
    if time is None:
        return None
    other = read_clock(answer)
    if other is not None:
        return time.same_time(other)
    if answer.isdigit() and int(answer) == time.hours and time.minutes == time.seconds == 0:
        return True
    return None if time.may_be_ratio else False


def compare_statements(answer: str, gold: str, _rules: Rules) -> bool | None:
    """Which figures are parallel, similar, or the same triangle."""
    if "\\" not in gold and "|" not in gold and "//" not in gold:
        return None
    triangles = same_triangle(answer, gold)
    if triangles is not None:
        return triangles
    statement = read_statement(gold)
    return None if statement is None else statement == read_statement(answer)


def compare_ratios(answer: str, gold: str, rules: Rules) -> Result | None:
    """Part by part, over one part of each; a ratio of two is a fraction, too."""
    left, right = read_ratio(answer), read_ratio(gold)
    if left is None or right is None:
        ratio = left or right
        if ratio is None:
            return None
        if len(ratio.parts) != 2:
            return False
        fraction = _quotient(*ratio.parts)
        return rules.items(fraction, gold) if left else rules.items(answer, fraction)
    if len(left.parts) != len(right.parts):
        return False
    pivot = next((index for index, part in enumerate(right.parts) if read_value(part)), 0)
    if read_value(left.parts[pivot]) == 0:
        return False
    return rules.pairwise(
        (_quotient(part, left.parts[pivot]), _quotient(other, right.parts[pivot]))
        for index, (part, other) in enumerate(zip(left.parts, right.parts, strict=True))
        if index != pivot
    )


def _quotient(above: str, below: str) -> str:
    first, second = read_value(above), read_value(below)
    if first is not None and second:
        value = first / second
        return f"{value.numerator}/{value.denominator}"
    return rf"\frac{{{above}}}{{{below}}}"
