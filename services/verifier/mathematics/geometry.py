"""Statements about points: angles, triangles, parallels. The order of the points counts where it has a meaning. Pure.

`\\angle ABC` is `\\angle CBA` and not `\\angle ACB`. `\\triangle ABC\\sim\\triangle DEF` says which point belongs to
which, so both names may only be reordered together. Used by `proportions.py`.
"""

import re
from dataclasses import dataclass

_ANGLE = re.compile(r"(?P<kind>\\angle|m\\angle|\\widehat|\\overset\{\\frown\})\s*\{?(?P<points>[A-Z]{2,3})\}?")
_RELATION = re.compile(r"\\(?P<name>sim|cong|perp|parallel|nparallel|not\\parallel|equiv)(?![a-zA-Z])")
_WORDS = {"\\bot": "\\perp", "\\|": "\\parallel", "||": "\\parallel", "//": "\\parallel"}
_FIGURE = re.compile(r"\\triangle\s*\{?(?P<points>[A-Z]{3})\}?|(?P<polygon>[A-Z]{3,6})")
_SEGMENT = re.compile(r"(?:\\(?:overline|overleftrightarrow|text|line)\s*)?\{?(?P<points>[A-Z]{2})\}?")
_LONGEST = 120
_CORRESPONDING = ("sim", "cong")


def with_ordered_points(text: str) -> str:
    """The text with each angle and arc written from its smaller end, which does not change what it is."""
    if "\\angle" not in text and "\\widehat" not in text:
        return text

    def ordered(match: re.Match[str]) -> str:
        points = match.group("points")
        return f"{match.group('kind')} {min(points, points[::-1])}"

    return _ANGLE.sub(ordered, text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """`AB\\perp CD` is `Statement(relation="perp", sides=frozenset({"AB", "CD"}), pairs=frozenset())`."""

    relation: str
    sides: frozenset[str]
    """Where each side is a figure of its own."""
    pairs: frozenset[tuple[str, str]]
    """Where points of one figure belong to points of the other, with the figures in the order of their names."""


def read_statement(text: str) -> Statement | None:
    """One relation between two figures."""
    if len(text) > _LONGEST:
        return None
    for word, command in _WORDS.items():
        text = text.replace(word, command + " ")
    relations = list(_RELATION.finditer(text))
    if len(relations) != 1:
        return None
    relation = relations[0]
    left, right = text[: relation.start()].strip(), text[relation.end() :].strip()
    if not left or not right:
        return None
    name = relation.group("name")
    first, second = _FIGURE.fullmatch(left), _FIGURE.fullmatch(right)
    if name in _CORRESPONDING and first and second:
        points = [match.group("points") or match.group("polygon") for match in sorted((first, second), key=_sorted)]
        if len(points[0]) == len(points[1]):
            return Statement(relation=name, sides=frozenset(), pairs=frozenset(zip(*points, strict=True)))
    if name == "equiv":
        return None  # a congruence of numbers
    return Statement(relation=name, sides=frozenset({_side(left), _side(right)}), pairs=frozenset())


def _sorted(match: re.Match[str]) -> str:
    return "".join(sorted(match.group("points") or match.group("polygon")))


def _side(text: str) -> str:
    segment = _SEGMENT.fullmatch(text)
    return "".join(sorted(segment.group("points"))) if segment else with_ordered_points(text).replace(" ", "")


def same_triangle(answer: str, gold: str) -> bool | None:
    """Whether two names of triangles or segments are the same points; None when one of them is no such name."""
    named = r"\\triangle\s*\{?([A-Z]{3})\}?|\\overline\{[A-Z]{2}\}"
    names = [re.fullmatch(named, text) for text in (answer, gold)]
    if not all(names):
        return None
    first, second = (sorted(name.group()) for name in names if name)
    return first == second
