"""Reads the ground truth of a programming problem: which tests, how they are asked, and how their output is judged.

    {"inputs": ["3 5\\n"], "outputs": ["8\\n"]}                      a script, fed through stdin
    {"inputs": [[3, 5]], "outputs": [8], "fn_name": "add"}           a function, or a method of `class Solution`
    {"assertions": ["assert add(3, 5) == 8"]}                       assertions; of lower trust

Optional keys: `language` (`python`, `cpp` or `any`), `comparison` (`lines`, `unordered_lines`, `unordered_tokens`),
`tolerance`, `checker` (`{"language", "source"}`, a program after testlib's protocol), `cpu_seconds`, `memory_mib`.
Pure; used by `grader.py`.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from prime.errors import InvalidInput
from services.verifier.programs.checkers import DEEPEST, LONGEST_INTEGER, Comparison, depth_exceeds, read_integer

_LARGEST = 64 * 1024 * 1024
_LONGEST_LIMIT_S = 60.0
_LARGEST_MEMORY_MIB = 4096
_TEST_KEYS = ("inputs", "outputs", "fn_name", "assertions", "language")
_JUDGING_KEYS = ("comparison", "tolerance", "checker", "cpu_seconds", "memory_mib")
_LONG_INTEGER = re.compile(r"integer -?\d+")
_KEYS = frozenset((*_TEST_KEYS, *_JUDGING_KEYS))


class Style(StrEnum):
    """How a program is asked."""

    STDIN = "stdin"
    CALL = "call"
    ASSERT = "assert"


class Language(StrEnum):
    """What a program is written in."""

    PYTHON = "python"
    CPP = "cpp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checker:
    """A program that judges output of which several are right: `Checker(language=PYTHON, source="import sys...")`."""

    language: Language
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeTests:
    """A parsed ground truth: `CodeTests(style=STDIN, inputs=("3\\n",), outputs=("6\\n",), languages=(PYTHON,))`."""

    style: Style
    inputs: tuple[Any, ...]
    """Text for a script, the list of arguments for a call, source for an assertion."""
    outputs: tuple[Any, ...]
    """Text for a script, a plain value for a call, nothing for an assertion."""
    fn_name: str
    languages: tuple[Language, ...]
    comparison: Comparison
    tolerance: float
    checker: Checker | None
    cpu_seconds: float | None
    """The problem's own limit, or None for the service's."""
    memory_mib: int | None


def parse_code_tests(ground_truth: str, max_tests: int) -> CodeTests:
    """Check and unpack the ground truth of a programming problem.

    Raises:
        InvalidInput: it is no JSON of the form above, has no test, or a test expects nothing; names the place.
    """
    tree = _load(ground_truth)
    unknown = sorted(set(tree) - _KEYS)
    if unknown:
        raise InvalidInput(f"ground truth: unknown key {unknown[0]!r}; known are {', '.join(sorted(_KEYS))}")
    style, inputs, outputs = _tests(tree, max_tests)
    checker = _checker(tree.get("checker"))
    if style is Style.STDIN and checker is None and not any(output.strip() for output in outputs):
        raise InvalidInput("ground truth: every expected output is blank, so a program that does nothing would pass")
    languages = _languages(tree.get("language", Language.PYTHON))
    if checker is not None and style is not Style.STDIN:
        raise InvalidInput("ground truth: a checker judges what a script prints, not calls or assertions")
    if style is not Style.STDIN and languages != (Language.PYTHON,):
        raise InvalidInput("ground truth: calls and assertions are for Python only")
    return CodeTests(
        style=style,
        inputs=inputs,
        outputs=outputs,
        fn_name=tree.get("fn_name") or "",
        languages=languages,
        comparison=_comparison(tree.get("comparison", Comparison.LINES)),
        tolerance=_number(tree, "tolerance", 1.0, 1e-6),
        checker=checker,
        cpu_seconds=_number(tree, "cpu_seconds", _LONGEST_LIMIT_S, None),
        memory_mib=_whole(tree, "memory_mib", _LARGEST_MEMORY_MIB),
    )


def _load(ground_truth: str) -> dict[str, Any]:
    if len(ground_truth) > _LARGEST:
        raise InvalidInput(f"ground truth of {len(ground_truth)} characters; the limit is {_LARGEST}")
    try:
        tree = json.loads(ground_truth, parse_int=read_integer)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"ground truth of a programming problem is no usable JSON: {error}") from None
    if not isinstance(tree, dict):
        raise InvalidInput("ground truth of a programming problem is not a JSON object with `inputs` and `outputs`")
    return tree


# ---------------------------------------------------------------- tests


def _tests(tree: dict[str, Any], max_tests: int) -> tuple[Style, tuple[Any, ...], tuple[Any, ...]]:
    if "assertions" in tree:
        if "inputs" in tree or "outputs" in tree or "fn_name" in tree:
            raise InvalidInput("ground truth: `assertions` stand alone, without `inputs`, `outputs` or `fn_name`")
        assertions = _assertions(tree["assertions"])
        _count(len(assertions), max_tests)
        return Style.ASSERT, assertions, (None,) * len(assertions)
    inputs, outputs, fn_name = tree.get("inputs"), tree.get("outputs"), tree.get("fn_name")
    if not isinstance(inputs, list) or not isinstance(outputs, list):
        raise InvalidInput("ground truth of a programming problem: `inputs` and `outputs` must both be lists")
    if len(inputs) != len(outputs):
        raise InvalidInput(f"ground truth of a programming problem: {len(inputs)} inputs but {len(outputs)} outputs")
    _count(len(inputs), max_tests)
    if fn_name is None:
        return Style.STDIN, _texts(inputs, "input"), _texts(outputs, "output")
    if not (isinstance(fn_name, str) and fn_name.isidentifier()):
        raise InvalidInput(f"ground truth of a programming problem: fn_name {str(fn_name)[:40]!r} is not a name")
    return Style.CALL, _arguments(inputs), _values(outputs)


def _count(tests: int, max_tests: int) -> None:
    if tests == 0:
        raise InvalidInput("ground truth of a programming problem has no test; nothing could ever fail it")
    if tests > max_tests:
        raise InvalidInput(
            f"ground truth of a programming problem has {tests} tests, the limit is {max_tests} (`max_tests`)"
        )


def _assertions(value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise InvalidInput("ground truth: `assertions` must be source text or a list of it, none of it empty")
    return tuple(texts)


def _texts(values: Sequence[Any], what: str) -> tuple[str, ...]:
    texts = []
    for index, value in enumerate(values):
        if isinstance(value, list) and all(isinstance(line, str) for line in value):
            value = "\n".join(value)
        if not isinstance(value, str):
            raise InvalidInput(f"ground truth: {what} {index} is {_kind(value)}, not text or a list of lines")
        texts.append(value)
    return tuple(texts)


def _arguments(inputs: Sequence[Any]) -> tuple[Any, ...]:
    found = []
    for index, value in enumerate(inputs):
        if isinstance(value, str):
            # One JSON value per line, as the function-call data sets write it.
            try:
                value = [json.loads(line, parse_int=read_integer) for line in value.split("\n") if line.strip()]
            except (ValueError, RecursionError) as error:
                raise InvalidInput(f"ground truth: input {index} is not one JSON value per line: {error}") from None
        if not isinstance(value, list) or depth_exceeds(value, DEEPEST):
            raise InvalidInput(f"ground truth: input {index} is {_kind(value)}, not a (flat enough) list of arguments")
        if _holds_long_integer(value):
            raise InvalidInput(f"ground truth: input {index} holds an integer too long to hand over as a number")
        found.append(value)
    return tuple(found)


def _holds_long_integer(value: Any) -> bool:
    """Whether `read_integer` has put a text in the place of one; good for comparing, not for calling."""
    if isinstance(value, str):
        return len(value) > LONGEST_INTEGER and bool(_LONG_INTEGER.fullmatch(value))
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, list) and any(map(_holds_long_integer, value))


def _values(outputs: Sequence[Any]) -> tuple[Any, ...]:
    for index, value in enumerate(outputs):
        if value is None:
            raise InvalidInput(f"ground truth: output {index} is null; an expectation is never nothing")
        if depth_exceeds(value, DEEPEST):
            raise InvalidInput(f"ground truth: output {index} is nested deeper than {DEEPEST}")
    return tuple(outputs)


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__


# ---------------------------------------------------------------- the optional keys


def _languages(value: Any) -> tuple[Language, ...]:
    if value == "any":
        return (Language.PYTHON, Language.CPP)
    return (_language(value, "language"),)


def _language(value: Any, where: str) -> Language:
    try:
        return Language(value)
    except ValueError:
        raise InvalidInput(f"ground truth: {where} {str(value)[:40]!r} is not known; use python or cpp") from None


def _comparison(value: Any) -> Comparison:
    try:
        return Comparison(value)
    except ValueError:
        known = ", ".join(Comparison)
        raise InvalidInput(f"ground truth: comparison {str(value)[:40]!r} is not known; use one of {known}") from None


def _checker(value: Any) -> Checker | None:
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) != {"language", "source"} or not isinstance(value["source"], str):
        raise InvalidInput("ground truth: a checker is an object with `language` and `source`")
    if not value["source"].strip():
        raise InvalidInput("ground truth: the checker's source is empty")
    return Checker(language=_language(value["language"], "the checker's language"), source=value["source"])


def _number(tree: dict[str, Any], key: str, most: float, default: float | None) -> Any:
    if key not in tree:
        return default
    value = tree[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise InvalidInput(f"ground truth: {key} must be a number above 0 and at most {most:g}, not {str(value)[:40]}")
    return value


def _whole(tree: dict[str, Any], key: str, most: int) -> int | None:
    value = _number(tree, key, most, None)
    if value is not None and (not isinstance(value, int) or value < 32):
        raise InvalidInput(f"ground truth: {key} must be a whole number from 32 to {most}, not {str(value)[:40]}")
    return value
