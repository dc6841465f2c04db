"""Reads sets of real numbers, however they are written: intervals, unions, inequalities, all but some points. Pure.

`x<1 or x\\ge3`, `(-\\infty,1)\\cup[3,\\infty)` and `\\{x|x<1\\text{ or }x\\ge3\\}` are the same `Region`.
"""

import itertools
import re
from dataclasses import dataclass

from services.verifier.mathematics.brackets import closes_at_end
from services.verifier.mathematics.forms import expand_signs, split_items
from services.verifier.mathematics.names import SYMBOL
from services.verifier.mathematics.rationals import read_number

_LOWEST, _HIGHEST = "-\\infty", "\\infty"
_SIGN = re.compile(r"<|>|\\(?:le|ge)(?![a-zA-Z])")
_NAME = re.compile(SYMBOL)
_VARIABLE = re.compile(r"(?<![\\a-zA-Z])(?!e(?![a-zA-Z]))[a-zA-Z]")
_ABSOLUTE = re.compile(rf"\|(?P<name>{SYMBOL})\|")
_MEMBER = re.compile(rf"(?P<name>{SYMBOL})\\in(?![a-zA-Z])(?P<set>.+)", re.DOTALL)
_BUILDER = re.compile(rf"\\\{{(?P<name>{SYMBOL})(?:\\in(?:\\mathbb\{{R\}}|R))?[|:](?P<condition>.+)\\\}}", re.DOTALL)
_UNEQUAL = re.compile(
    rf"(?P<name>{SYMBOL})\\ne(?![a-zA-Z])(?P<points>[^{{}}]+|.*\\frac.*)"
    rf"|(?P<other>{SYMBOL})\\(?:notin|ne)(?![a-zA-Z])\\\{{(?P<listed>.+)\\\}}",
    re.DOTALL,
)
_WITHOUT = re.compile(
    r"(?:\\mathbb\{R\}|\\R|\(-\\infty,\\infty\))(?:\\setminus|\\backslash|-)\\\{(?P<points>.+)\\\}", re.DOTALL
)
_OPERATOR = re.compile(r"\\(cup|cap)(?![a-zA-Z])")
_OPERATOR_AROUND = re.compile(r"\\(?:cup|cap)(?![a-zA-Z])")
_ALL = frozenset(["\\mathbb{R}", "\\R", "(-\\infty,+\\infty)"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One interval: `[1,3)` is `Piece(low="1", high="3", low_closed=True, high_closed=False)`."""

    low: str
    high: str
    low_closed: bool
    high_closed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A union of intervals, and the variable that lies in it when one is named."""

    name: str
    pieces: tuple[Piece, ...]
    as_inequality: bool

    @property
    def has_constant_ends(self) -> bool:
        """Whether no end depends on another variable, as in `x>y`."""
        return not any(_VARIABLE.search(end) for piece in self.pieces for end in (piece.low, piece.high))


def read_region(text: str) -> Region | None:
    """The set that the text describes in a solved form, or None."""
    builder = _BUILDER.fullmatch(text)
    if builder:
        inner = read_region(builder.group("condition"))
        return _named(inner, builder.group("name")) if inner and inner.as_inequality else None
    member = _MEMBER.fullmatch(text)
    if member:
        return _named(read_region(member.group("set")), member.group("name"))
    if text in _ALL:
        return _intervals((_piece(_LOWEST, _HIGHEST),))
    without = _WITHOUT.fullmatch(text)
    if without:
        return _all_but(without.group("points"), name="")
    unequal = _UNEQUAL.fullmatch(text)
    if unequal:
        name = unequal.group("name") or unequal.group("other")
        return _all_but(unequal.group("points") or unequal.group("listed"), name=name)
    if _SIGN.search(text):
        return _read_inequalities(text)
    return _read_union(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """`A\\cup B` is `Combination(operator="cup", operands=("A", "B"))`; the order of the operands is free."""

    operator: str
    operands: tuple[str, ...]

    @property
    def has_names(self) -> bool:
        """Whether an operand is a set known by its name only, with which nothing can be worked out."""
        return any(_NAME.fullmatch(operand) for operand in self.operands)


def read_combination(text: str) -> Combination | None:
    """Unions only, or intersections only, outside all brackets."""
    operators = set(_OPERATOR.findall(text))
    operands = tuple(part.strip() for part in _OPERATOR_AROUND.split(text))
    if len(operators) != 1 or not all(operands):
        return None
    if any(sum(map(part.count, "([{")) != sum(map(part.count, ")]}")) for part in operands):
        return None
    return Combination(operator=operators.pop(), operands=operands)


def _named(region: Region | None, name: str) -> Region | None:
    if region is None or region.name not in ("", name):
        return None
    return Region(name=name, pieces=region.pieces, as_inequality=region.as_inequality)


def _intervals(pieces: tuple[Piece, ...]) -> Region:
    return Region(name="", pieces=pieces, as_inequality=False)


def _piece(low: str, high: str, low_closed: bool = False, high_closed: bool = False) -> Piece:
    # An end at infinity is open however it is written.
    low, high = low.strip(), high.strip().removeprefix("+")
    return Piece(
        low=low, high=high, low_closed=low_closed and low != _LOWEST, high_closed=high_closed and high != _HIGHEST
    )


def _read_union(text: str) -> Region | None:
    pieces = [_read_interval(part.strip()) for part in re.split(r"\\cup(?![a-zA-Z])", text)]
    found = tuple(piece for piece in pieces if piece is not None)
    return _intervals(found) if len(found) == len(pieces) else None


def _read_interval(text: str) -> Piece | None:
    if text[:1] not in ("(", "[") or text[-1:] not in (")", "]") or not closes_at_end(text):
        # `]1,3[` is not read: too easily something else.
        return None
    items = split_items(text[1:-1])
    if len(items) != 2 or not all(items):
        return None
    return _piece(items[0], items[1], text[0] == "[", text[-1] == "]")


def _all_but(points: str, name: str) -> Region | None:
    """Everything except some points, which have to be numbers when there are several, to be put in order."""
    if " or " in points:
        return None
    again = re.compile(rf"{re.escape(name)}\\ne(?![a-zA-Z])") if name else None
    items = list(expand_signs([again.sub("", item, count=1) if again else item for item in split_items(points)]))
    if len(items) > 1:
        numbers = [(number.value, item) for item in items if (number := read_number(item)) is not None]
        if len(numbers) != len(items):
            return None
        if len({value for value, _ in numbers}) != len(numbers):
            return None
        items = [item for _, item in sorted(numbers)]
    ends = [_LOWEST, *items, _HIGHEST]
    pieces = tuple(_piece(low, high) for low, high in itertools.pairwise(ends))
    return Region(name=name, pieces=pieces, as_inequality=bool(name))


def _read_inequalities(text: str) -> Region | None:
    for word, combine in ((r"\bor\b|\\cup(?![a-zA-Z])", _either), (r"\band\b", _both), (",", _outward)):
        parts = [part.strip() for part in re.split(word, text)]
        if len(parts) > 1:
            regions = [_read_inequality(part) for part in parts]
            found = [region for region in regions if region is not None]
            if len(found) != len(parts) or len({region.name for region in found}) != 1:
                return None
            return combine(found)
    return _read_inequality(text)


def _either(regions: list[Region]) -> Region | None:
    pieces = tuple(piece for region in regions for piece in region.pieces)
    return Region(name=regions[0].name, pieces=pieces, as_inequality=True)


def _both(regions: list[Region]) -> Region | None:
    """Two half-lines that face each other."""
    if len(regions) != 2 or any(len(region.pieces) != 1 for region in regions):
        return None
    first, second = (region.pieces[0] for region in regions)
    if first.low == _LOWEST:
        first, second = second, first
    if first.high != _HIGHEST or second.low != _LOWEST or first.low == _LOWEST or second.high == _HIGHEST:
        return None
    low, high = read_number(first.low), read_number(second.high)
    if low is not None and high is not None and low.value >= high.value:
        return None
    inside = Piece(low=first.low, high=second.high, low_closed=first.low_closed, high_closed=second.high_closed)
    return Region(name=regions[0].name, pieces=(inside,), as_inequality=True)


def _outward(regions: list[Region]) -> Region | None:
    """A comma means `or` between half-lines that face away from each other, and `and` between others."""
    return _both(regions) or (_either(regions) if _are_apart(regions) else None)


def _are_apart(regions: list[Region]) -> bool:
    pieces = [piece for region in regions for piece in region.pieces]
    lows = [read_number(piece.low) for piece in pieces if piece.low != _LOWEST]
    highs = [read_number(piece.high) for piece in pieces if piece.high != _HIGHEST]
    if len(pieces) != 2 or len(lows) != 1 or len(highs) != 1 or lows[0] is None or highs[0] is None:
        return False
    return highs[0].value < lows[0].value


def _read_inequality(text: str) -> Region | None:
    signs, parts = _SIGN.findall(text), [part.strip() for part in _SIGN.split(text)]
    if not all(parts):
        return None
    closed = ["e" in sign for sign in signs]
    upwards = [sign in ("<", "\\le") for sign in signs]
    if len(signs) == 2 and upwards[0] == upwards[1] and _is_solved(parts[1], parts[0] + parts[2]):
        if not upwards[0]:
            parts.reverse()
            closed.reverse()
        return Region(name=parts[1], pieces=(_piece(parts[0], parts[2], *closed),), as_inequality=True)
    if len(signs) != 1:
        return None
    if _is_solved(parts[1], parts[0]):
        parts.reverse()
        upwards[0] = not upwards[0]
    absolute = _ABSOLUTE.fullmatch(parts[0])
    if absolute:
        return _from_absolute(absolute.group("name"), parts[1], inside=upwards[0], closed=closed[0])
    if not _is_solved(parts[0], parts[1]):
        return None
    bound = parts[1]
    piece = _piece(_LOWEST, bound, False, closed[0]) if upwards[0] else _piece(bound, _HIGHEST, closed[0], False)
    return Region(name=parts[0], pieces=(piece,), as_inequality=True)


def _from_absolute(name: str, bound: str, *, inside: bool, closed: bool) -> Region | None:
    """`|x|<5`; with more between the bars it is an inequality still to be solved."""
    if not _is_positive(bound):
        return None
    if inside:
        pieces: tuple[Piece, ...] = (_piece(f"-{bound}", bound, closed, closed),)
    else:
        pieces = (_piece(_LOWEST, f"-{bound}", False, closed), _piece(bound, _HIGHEST, closed, False))
    return Region(name=name, pieces=pieces, as_inequality=True)


def _is_positive(bound: str) -> bool:
    number = read_number(bound)
    if number is not None:
        return number.value > 0
    return "-" not in bound and not _VARIABLE.search(bound) and bool(re.search(r"\d|\\pi", bound))


def _is_solved(name: str, others: str) -> bool:
    """Whether this is a variable alone that does not occur on the other side."""
    if _NAME.fullmatch(name) is None or name == "e":
        return False
    return name not in re.findall(rf"\\[a-zA-Z]+|{SYMBOL}", others)
