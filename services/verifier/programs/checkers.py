"""Compares what a program printed or returned with what was expected.

Pure functions over text and plain values; called by `grader.py`.
"""

import ast
import contextlib
import json
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Any

TOLERANCE = 1e-6
_NEAR_INTEGER = 1e-9
"""Relative distance at which a returned float is a rounding of the integer that was expected; never above 1e-6."""
_EXACT_FLOATS = 2**53
"""From here on floats leave integers out, so that one of them stands for several."""
LONGEST_INTEGER = 4000
"""Digits; Python refuses to convert much longer ones, so they are compared as text."""
DEEPEST = 200
_LONGEST_NUMBER = 400
_LONGEST_LITERAL = 100_000
_LITERAL = re.compile(r"\s*(?:[\[({'\"]|-?\d|True\b|False\b|None\b)")
_FLOATS = ("inf", "-inf", "nan")


# ---------------------------------------------------------------- plain values


def read_integer(digits: str) -> int | str:
    """An integer of JSON, or, when it is longer than Python cares to convert, a text that equals only its like."""
    return int(digits) if len(digits) <= LONGEST_INTEGER else f"integer {digits}"


def value_of_text(text: str) -> Any:
    """What a text stands for in JSON or, where it is none, as Python writes it: `True`, `['a']`, `inf`, `None`.

    Raises:
        ValueError: in neither.
        RecursionError: it is nested too deep.
    """
    try:
        return json.loads(text, parse_int=read_integer)
    except ValueError:
        if text.strip() in _FLOATS:
            return float(text)
        if len(text) > _LONGEST_LITERAL or not _LITERAL.match(text):
            raise
    try:
        return _plain(ast.literal_eval(text.strip()))
    except (SyntaxError, TypeError, MemoryError) as error:
        raise ValueError(f"no literal: {error}") from None


def _plain(literal: Any) -> Any:
    """The literal of JSON's kinds. Raises ValueError."""
    if literal is None or isinstance(literal, bool | int | float | str):
        return literal
    if isinstance(literal, list | tuple):
        return [_plain(item) for item in literal]
    if isinstance(literal, dict):
        return {key if isinstance(key, str) else json.dumps(key): _plain(item) for key, item in literal.items()}
    raise ValueError(f"a {type(literal).__name__}")


def depth_exceeds(value: object, limit: int) -> bool:
    """Whether lists and dicts are nested deeper than `limit`; without recursion."""
    level = [value]
    for _ in range(limit + 1):
        level = [
            inner
            for item in level
            if isinstance(item, list | dict)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return True


# ---------------------------------------------------------------- output


class Comparison(StrEnum):
    """How output is compared; of a returned value the outer list is the lines, and inner ones are the tokens."""

    LINES = "lines"
    UNORDERED_LINES = "unordered_lines"
    UNORDERED_TOKENS = "unordered_tokens"


def same_output(
    printed: bytes, expected: str, comparison: Comparison = Comparison.LINES, tolerance: float = TOLERANCE
) -> bool:
    """Whether what a program printed is what was expected.

    First line by line, but for blanks at the end of lines and of the whole; then token by token, with the same number
    of non-blank lines, where a number may be off by `tolerance` (absolute or relative) if it is expected with a point
    or an exponent. An integer has no tolerance, but may be written as a decimal of exactly its value. Never without a
    line. In any order only where the problem says so.
    """
    try:
        text = printed.decode()
    except UnicodeDecodeError:
        return False
    lines, wanted = _lines(text), _lines(expected)
    if lines == wanted:
        return True
    if comparison is Comparison.UNORDERED_TOKENS:
        return _same_tokens(sorted(text.split(), key=_rank_token), sorted(expected.split(), key=_rank_token), tolerance)
    rows, wanted_rows = ([line.split() for line in each if line] for each in (lines, wanted))
    if comparison is Comparison.UNORDERED_LINES:
        rows, wanted_rows = (sorted(each, key=_rank_tokens) for each in (rows, wanted_rows))
    return len(rows) == len(wanted_rows) and all(
        _same_tokens(row, other, tolerance) for row, other in zip(rows, wanted_rows, strict=True)
    )


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.replace("\r\n", "\n").rstrip().split("\n")]


def _same_tokens(tokens: Sequence[str], wanted: Sequence[str], tolerance: float) -> bool:
    return len(tokens) == len(wanted) and all(
        _same_token(token, other, tolerance) for token, other in zip(tokens, wanted, strict=True)
    )


_FLOAT = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?", re.ASCII)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"-?(?:0|[1-9]\d*)", re.ASCII)


def _same_token(token: str, wanted: str, tolerance: float) -> bool:
    if token == wanted:
        return True
    if len(token) > _LONGEST_NUMBER or len(wanted) > _LONGEST_NUMBER or not _NUMBER.fullmatch(token):
        return False
    if _INTEGER.fullmatch(wanted):
        try:
            return bool(_FLOAT.fullmatch(token)) and Decimal(token) == Decimal(wanted)
        except ArithmeticError:  # an exponent without end
            return False
    if not _FLOAT.fullmatch(wanted):
        return False
    value, other = float(token), float(wanted)
    return math.isfinite(value) and math.isfinite(other) and _close(value, other, tolerance)


def _rank_token(token: str) -> tuple[bool, float, str]:
    # Numbers by their value, so that those that are only nearly equal get the same place.
    is_number = len(token) <= _LONGEST_NUMBER and bool(_NUMBER.fullmatch(token))
    return (not is_number, float(token) if is_number else 0.0, "" if is_number else token)


def _rank_tokens(tokens: list[str]) -> list[tuple[bool, float, str]]:
    return [_rank_token(token) for token in tokens]


def _close(value: float, wanted: float, tolerance: float) -> bool:
    if math.isnan(wanted) or not math.isfinite(wanted):
        return value == wanted or (math.isnan(wanted) and math.isnan(value))
    return abs(value - wanted) <= tolerance * max(1.0, abs(wanted))


# ---------------------------------------------------------------- value


def same_value(
    returned: bytes, expected: object, comparison: Comparison = Comparison.LINES, tolerance: float = TOLERANCE
) -> bool | None:
    """Whether the JSON of a returned value equals the expectation; None when it is no usable JSON.

    An expected float may be missed by `tolerance`, absolute or relative; infinities and NaN equal their like. An
    expected integer may come as a float that is a rounding of it. `true` equals 1; the order of lists counts unless
    `comparison` says otherwise. A list of one expected value stands for the value too, as APPS writes it.
    """
    try:
        value = json.loads(returned, parse_int=read_integer)
    except (ValueError, RecursionError):
        return None
    if depth_exceeds(value, DEEPEST):
        return None
    readings = [expected]
    if isinstance(expected, str):
        # Data sets write an expectation as the value or as its JSON text.
        with contextlib.suppress(ValueError, RecursionError):
            readings.append(value_of_text(expected))
    elif isinstance(expected, list) and len(expected) == 1 and expected[0] is not None:
        readings.append(expected[0])
    compare = _Values(comparison, tolerance)
    return any(compare.same(value, reading) for reading in readings)


class _Values:
    """Compares plain values: `_Values(Comparison.LINES, 1e-6).same([1], [1.0])`."""

    def __init__(self, comparison: Comparison, tolerance: float) -> None:
        self._comparison = comparison
        self._tolerance = tolerance

    def same(self, value: Any, expected: Any, *, is_inner: bool = False) -> bool:
        if isinstance(value, list) and isinstance(expected, list):
            if len(value) != len(expected):
                return False
            if self._is_unordered(is_inner):
                value, expected = sorted(value, key=self._rank), sorted(expected, key=self._rank)
            return all(self.same(one, other, is_inner=True) for one, other in zip(value, expected, strict=True))
        if isinstance(value, dict) and isinstance(expected, dict):
            return value.keys() == expected.keys() and all(
                self.same(value[key], expected[key], is_inner=True) for key in expected
            )
        if isinstance(value, int | float) and isinstance(expected, int | float):
            return self._same_number(value, expected)
        return bool(value == expected)

    def _is_unordered(self, is_inner: bool) -> bool:
        if self._comparison is Comparison.UNORDERED_LINES:
            return not is_inner
        return self._comparison is Comparison.UNORDERED_TOKENS

    def _same_number(self, value: float, expected: float) -> bool:
        if isinstance(expected, float):
            try:
                return _close(float(value), expected, self._tolerance)
            except OverflowError:
                return False
        if not isinstance(value, float):
            return value == expected
        if abs(expected) >= _EXACT_FLOATS:
            return False
        return abs(value - expected) <= min(_NEAR_INTEGER * max(1, abs(expected)), 1e-6)

    def _rank(self, value: Any) -> Any:
        """A key by which equal lists are in equal order, whatever order their own lists have."""
        if isinstance(value, int | float):
            try:
                return (0, float(value))
            except OverflowError:
                return (0, math.inf if value > 0 else -math.inf)
        if isinstance(value, str):
            return (1, value)
        if value is None:
            return (2,)
        if isinstance(value, dict):
            return (3, sorted((key, self._rank(inner)) for key, inner in value.items()))
        ranks = [self._rank(item) for item in value]
        return (4, len(ranks), sorted(ranks) if self._is_unordered(is_inner=True) else ranks)
