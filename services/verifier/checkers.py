"""Compares what a response brought with what was expected: chains, programs' output, returned values.

Pure functions over text and plain values; called by `grade.py`. Mathematics has its own file, `exact_math.py`.
"""

import contextlib
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from prime.errors import InvalidInput

_TOLERANCE = 1e-6
_LONGEST_INTEGER = 4000
"""Digits; Python refuses to convert much longer ones, so they are compared as text."""
_DEEPEST = 200


# ---------------------------------------------------------------- chain


def chain_answer(response: str) -> str | None:
    """The text after the last `#`, stripped; None when there is no `#` or nothing after it."""
    _, marker, answer = response.rpartition("#")
    return (answer.strip() or None) if marker else None


# ---------------------------------------------------------------- program

_FENCE = re.compile(r"^[ \t]*```([^\n`]*)$", re.MULTILINE)
_PYTHON_NAMES = {"", "python", "python3", "py"}


def extract_program(response: str) -> str | None:
    """The last complete fenced block of Python, or of no named language; None when there is none.

    A fence that is never closed holds no program, and neither does the thinking part.
    """
    _, thought, text = response.rpartition("</think>")
    if not thought and "<think>" in text:
        return None
    program, opened = None, None
    for fence in _FENCE.finditer(text):
        label = fence.group(1).strip().lower()
        if opened is None:
            opened = (label, fence.end() + 1)
        elif label:
            opened = (label, fence.end() + 1)  # a fence inside a fence: the outer one was never closed
        else:
            if opened[0] in _PYTHON_NAMES:
                program = text[opened[1] : fence.start()]
            opened = None
    return program if opened is None and program is not None and program.strip() else None


# ---------------------------------------------------------------- expectations


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeTests:
    """A parsed ground truth: `CodeTests(fn_name=None, inputs=("3\\n",), outputs=("6\\n",))`."""

    fn_name: str | None
    inputs: tuple[Any, ...]
    """Text for a script; the list of arguments for a call."""
    outputs: tuple[Any, ...]


def parse_code_tests(ground_truth: str, max_tests: int) -> CodeTests:
    """Check and unpack the ground truth of a programming problem.

    Raises:
        InvalidInput: it is no JSON of the agreed form, has no test, or a test expects nothing.
    """
    try:
        tree = json.loads(ground_truth, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"ground truth of a programming problem is no usable JSON: {error}") from None
    if not isinstance(tree, dict):
        raise InvalidInput("ground truth of a programming problem is not a JSON object with `inputs` and `outputs`")
    inputs, outputs, fn_name = tree.get("inputs"), tree.get("outputs"), tree.get("fn_name")
    if not isinstance(inputs, list) or not isinstance(outputs, list):
        raise InvalidInput("ground truth of a programming problem: `inputs` and `outputs` must both be lists")
    if len(inputs) != len(outputs):
        raise InvalidInput(f"ground truth of a programming problem: {len(inputs)} inputs but {len(outputs)} outputs")
    if not inputs:
        raise InvalidInput("ground truth of a programming problem has no test; nothing could ever fail it")
    if len(inputs) > max_tests:
        raise InvalidInput(
            f"ground truth of a programming problem has {len(inputs)} tests, the limit is {max_tests} (`max_tests`)"
        )
    if fn_name is not None and not (isinstance(fn_name, str) and fn_name.isidentifier()):
        raise InvalidInput(f"ground truth of a programming problem: fn_name {str(fn_name)[:40]!r} is not a name")
    if fn_name is None:
        return CodeTests(fn_name=None, inputs=_texts(inputs, "input"), outputs=_texts(outputs, "output"))
    return CodeTests(fn_name=fn_name, inputs=_arguments(inputs), outputs=_values(outputs))


def _texts(values: list[Any], what: str) -> tuple[str, ...]:
    texts = []
    for index, value in enumerate(values):
        if isinstance(value, list) and all(isinstance(line, str) for line in value):
            value = "\n".join(value)
        if not isinstance(value, str):
            raise InvalidInput(f"ground truth: {what} {index} is {_kind(value)}, not text or a list of lines")
        texts.append(value)
    return tuple(texts)


def _arguments(inputs: list[Any]) -> tuple[Any, ...]:
    found = []
    for index, value in enumerate(inputs):
        if isinstance(value, str):
            # One JSON value per line, as the function-call data sets write it.
            try:
                value = [json.loads(line, parse_int=_integer) for line in value.split("\n") if line.strip()]
            except (ValueError, RecursionError) as error:
                raise InvalidInput(f"ground truth: input {index} is not one JSON value per line: {error}") from None
        if not isinstance(value, list) or _depth_exceeds(value, _DEEPEST):
            raise InvalidInput(f"ground truth: input {index} is {_kind(value)}, not a (flat enough) list of arguments")
        found.append(value)
    return tuple(found)


def _values(outputs: list[Any]) -> tuple[Any, ...]:
    found = []
    for index, value in enumerate(outputs):
        if value is None:
            raise InvalidInput(f"ground truth: output {index} is null; an expectation is never nothing")
        if _depth_exceeds(value, _DEEPEST):
            raise InvalidInput(f"ground truth: output {index} is nested deeper than {_DEEPEST}")
        found.append(value)
    return tuple(found)


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else f"integer {digits}"


def _depth_exceeds(value: object, limit: int) -> bool:
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


def same_output(printed: bytes, expected: str) -> bool:
    """Whether what a program printed is what was expected.

    First line by line, but for blanks at the end of lines and of the whole; then token by token, with the same number
    of non-blank lines, where a number may be off by 1e-6 (absolute or relative) if it is expected with a point or an
    exponent. Never for integers, never as sets, never without a line.
    """
    try:
        text = printed.decode()
    except UnicodeDecodeError:
        return False
    lines, wanted = _lines(text), _lines(expected)
    if lines == wanted:
        return True
    lines, wanted = [line for line in lines if line], [line for line in wanted if line]
    return len(lines) == len(wanted) and all(
        _same_tokens(line.split(), other.split()) for line, other in zip(lines, wanted, strict=True)
    )


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.replace("\r\n", "\n").rstrip().split("\n")]


def _same_tokens(tokens: list[str], wanted: list[str]) -> bool:
    return len(tokens) == len(wanted) and all(map(_same_token, tokens, wanted))


_FLOAT = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?", re.ASCII)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)


def _same_token(token: str, wanted: str) -> bool:
    if token == wanted:
        return True
    if len(token) > 400 or not _FLOAT.fullmatch(wanted) or not _NUMBER.fullmatch(token):
        return False
    return _close(float(token), float(wanted))


def _close(value: float, wanted: float) -> bool:
    if not math.isfinite(value) or not math.isfinite(wanted):
        return False
    return abs(value - wanted) <= _TOLERANCE * max(1.0, abs(wanted))


# ---------------------------------------------------------------- value


def same_value(returned: bytes, expected: object) -> bool | None:
    """Whether the JSON of a returned value equals the expectation; None when it is no usable JSON.

    Floats may be off by 1e-6; `true` equals 1; the order of lists counts. A list of one expected value stands for
    the value too, as APPS writes it.
    """
    try:
        value = json.loads(returned, parse_int=_integer)
    except (ValueError, RecursionError):
        return None
    if _depth_exceeds(value, _DEEPEST):
        return None
    if _same_plain(value, expected):
        return True
    if isinstance(expected, str):
        # Data sets write an expectation as the value or as its JSON text.
        with contextlib.suppress(ValueError, RecursionError):
            return _same_plain(value, json.loads(expected, parse_int=_integer))
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
