"""Finds the program in a response, and compares what it printed or returned with what was expected.

Pure functions over text and plain values; called by `grader.py`.
"""

import contextlib
import json
import math
import re
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any

_TOLERANCE = 1e-6
LONGEST_INTEGER = 4000
"""Digits; Python refuses to convert much longer ones, so they are compared as text."""
DEEPEST = 200


# ---------------------------------------------------------------- program

_FENCE = re.compile(r"^[ \t]*```([^\n`]*)$", re.MULTILINE)
FENCE_LABELS: Mapping[str, str] = {
    **dict.fromkeys(("", "python", "python3", "py"), "python"),
    **dict.fromkeys(("cpp", "c++", "cc", "cxx", "cpp17", "c++17", "cpp20", "c++20"), "cpp"),
}
"""What a block's label says about its language; a block without one is Python."""


def extract_program(response: str, languages: Collection[str] = ("python",)) -> tuple[str, str] | None:
    """Language and source of the last complete fenced block in one of `languages`; None when there is none.

    A fence that is never closed holds no program, and neither does the thinking part. Where only one language is asked
    for, a block without a label is taken to be in it.
    """
    _, thought, text = response.rpartition("</think>")
    if not thought and "<think>" in text:
        return None
    only = next(iter(languages)) if len(languages) == 1 else None
    program, opened = None, None
    for fence in _FENCE.finditer(text):
        label = fence.group(1).strip().lower()
        if opened is None or label:
            opened = (label, fence.end() + 1)  # a fence inside a fence: the outer one was never closed
            continue
        language = only if only and not opened[0] else FENCE_LABELS.get(opened[0])
        if language in languages:
            program = (str(language), text[opened[1] : fence.start()])
        opened = None
    return program if opened is None and program is not None and program[1].strip() else None


# ---------------------------------------------------------------- plain values


def read_integer(digits: str) -> int | str:
    """An integer of JSON, or, when it is longer than Python cares to convert, a text that equals only its like."""
    return int(digits) if len(digits) <= LONGEST_INTEGER else f"integer {digits}"


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
    """How printed output is compared."""

    LINES = "lines"
    UNORDERED_LINES = "unordered_lines"
    UNORDERED_TOKENS = "unordered_tokens"


def same_output(
    printed: bytes, expected: str, comparison: Comparison = Comparison.LINES, tolerance: float = _TOLERANCE
) -> bool:
    """Whether what a program printed is what was expected.

    First line by line, but for blanks at the end of lines and of the whole; then token by token, with the same number
    of non-blank lines, where a number may be off by `tolerance` (absolute or relative) if it is expected with a point
    or an exponent. Never for integers, never without a line. In any order only where the problem says so.
    """
    try:
        text = printed.decode()
    except UnicodeDecodeError:
        return False
    lines, wanted = _lines(text), _lines(expected)
    if lines == wanted:
        return True
    if comparison is Comparison.UNORDERED_TOKENS:
        return sorted(text.split()) == sorted(expected.split())
    lines, wanted = [line for line in lines if line], [line for line in wanted if line]
    if comparison is Comparison.UNORDERED_LINES:
        return sorted(line.split() for line in lines) == sorted(line.split() for line in wanted)
    return len(lines) == len(wanted) and all(
        _same_tokens(line.split(), other.split(), tolerance) for line, other in zip(lines, wanted, strict=True)
    )


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.replace("\r\n", "\n").rstrip().split("\n")]


def _same_tokens(tokens: list[str], wanted: list[str], tolerance: float) -> bool:
    return len(tokens) == len(wanted) and all(
        _same_token(token, other, tolerance) for token, other in zip(tokens, wanted, strict=True)
    )


_FLOAT = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?", re.ASCII)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)


def _same_token(token: str, wanted: str, tolerance: float) -> bool:
    if token == wanted:
        return True
    if len(token) > 400 or not _FLOAT.fullmatch(wanted) or not _NUMBER.fullmatch(token):
        return False
    return _close(float(token), float(wanted), tolerance)


def _close(value: float, wanted: float, tolerance: float = _TOLERANCE) -> bool:
    if not math.isfinite(value) or not math.isfinite(wanted):
        return False
    return abs(value - wanted) <= tolerance * max(1.0, abs(wanted))


# ---------------------------------------------------------------- value


def same_value(returned: bytes, expected: object) -> bool | None:
    """Whether the JSON of a returned value equals the expectation; None when it is no usable JSON.

    Floats may be off by 1e-6; `true` equals 1; the order of lists counts. A list of one expected value stands for
    the value too, as APPS writes it.
    """
    try:
        value = json.loads(returned, parse_int=read_integer)
    except (ValueError, RecursionError):
        return None
    if depth_exceeds(value, DEEPEST):
        return None
    if _same_plain(value, expected):
        return True
    if isinstance(expected, str):
        # Data sets write an expectation as the value or as its JSON text.
        with contextlib.suppress(ValueError, RecursionError):
            return _same_plain(value, json.loads(expected, parse_int=read_integer))
    return isinstance(expected, list) and len(expected) == 1 and _same_plain(value, expected[0])


def _same_plain(value: Any, expected: Any) -> bool:
    if isinstance(value, list) and isinstance(expected, list):
        return len(value) == len(expected) and all(map(_same_plain, value, expected))
    if isinstance(value, dict) and isinstance(expected, dict):
        return value.keys() == expected.keys() and all(_same_plain(value[key], expected[key]) for key in expected)
    numbers = isinstance(value, int | float) and isinstance(expected, int | float)
    if numbers and isinstance(expected, float):
        try:
            return _close(float(value), expected)
        except OverflowError:
            return False
    return bool(value == expected)
