"""Reads the ground truth of a programming problem: which tests, how they are asked, and how their output is judged.

    {"inputs": ["3 5\\n"], "outputs": ["8\\n"]}                      a script, fed through stdin
    {"inputs": [[3, 5]], "outputs": [8], "fn_name": "add"}           a function, or a method of `class Solution`
    {"assertions": ["assert add(3, 5) == 8"]}                       assertions

The rows of public data sets are read as they are, by `row_formats.py`.
Optional keys: `language` (`python`, `cpp` or `any`), `comparison` (`lines`, `unordered_lines`, `unordered_tokens`),
`tolerance`, `checker` (`{"language", "source"}`, a program after testlib's protocol), `cpu_seconds`, `memory_mib`.
Pure; used by `grader.py`.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from prime.errors import InvalidInput
from services.verifier.programs.arguments import read_arguments
from services.verifier.programs.assertions import read_assertions
from services.verifier.programs.checkers import DEEPEST, TOLERANCE, Comparison, depth_exceeds, value_of_text
from services.verifier.programs.row_formats import read_row

_LONGEST_LIMIT_S = 60.0
_LARGEST_MEMORY_MIB = 4096
_TEST_KEYS = ("inputs", "outputs", "fn_name", "assertions", "language")
_JUDGING_KEYS = ("comparison", "tolerance", "checker", "cpu_seconds", "memory_mib")
_LANGUAGES = {"python3": "python", "py": "python", "c++": "cpp"}
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
    """Text for a script, `Arguments` for a call, an `Assertion`."""
    outputs: tuple[Any, ...]
    """Text for a script, a plain value for a call, nothing for an assertion."""
    fn_name: str
    dropped: int
    """Tests that were left out since they expect nothing."""
    languages: tuple[Language, ...]
    comparison: Comparison
    tolerance: float
    checker: Checker | None
    cpu_seconds: float | None
    """The problem's own limit, or None for the service's."""
    memory_mib: int | None

    @property
    def names(self) -> tuple[str, ...]:
        """What a program is asked for by name."""
        if self.style is Style.ASSERT:
            return tuple(dict.fromkeys(name for assertion in self.inputs for name in assertion.asks))
        return (self.fn_name,) if self.fn_name else ()

    @property
    def is_unordered(self) -> bool:
        """Whether the order of what comes out may be another."""
        return self.comparison is not Comparison.LINES


def parse_code_tests(ground_truth: str, max_tests: int) -> CodeTests:
    """Check and unpack the ground truth of a programming problem.

    Raises:
        InvalidInput: it is no JSON of the form above, has no test, or a test expects nothing; names the place.
    """
    tree = read_row(ground_truth)
    unknown = sorted(set(tree) - _KEYS)
    if unknown:
        raise InvalidInput(f"ground truth: unknown key {unknown[0]!r}; known are {', '.join(sorted(_KEYS))}")
    tests = _tests(tree, max_tests)
    checker = _checker(tree.get("checker"))
    languages = _languages(tree.get("language", Language.PYTHON))
    comparison = _comparison(tree.get("comparison", Comparison.LINES))
    tolerance = _number(tree, "tolerance", 1.0, TOLERANCE)
    _check_judging(tests, checker, languages)
    if (tests.style is Style.ASSERT or checker is not None) and (
        comparison is not Comparison.LINES or tolerance != TOLERANCE
    ):
        raise InvalidInput("ground truth: `comparison` and `tolerance` have no effect on assertions and checkers")
    return CodeTests(
        style=tests.style,
        inputs=tests.inputs,
        outputs=tests.outputs,
        fn_name=tests.fn_name,
        dropped=tests.dropped,
        languages=languages,
        comparison=comparison,
        tolerance=tolerance,
        checker=checker,
        cpu_seconds=_number(tree, "cpu_seconds", _LONGEST_LIMIT_S, None),
        memory_mib=_whole(tree, "memory_mib", _LARGEST_MEMORY_MIB),
    )


def _check_judging(tests: "_Tests", checker: Checker | None, languages: Sequence[Language]) -> None:
    is_script = tests.style is Style.STDIN
    if is_script and checker is None and not any(output.strip() for output in tests.outputs):
        raise InvalidInput("ground truth: every expected output is blank, so a program that does nothing would pass")
    if checker is not None and not is_script:
        raise InvalidInput("ground truth: a checker judges what a script prints, not calls or assertions")
    if not is_script and tuple(languages) != (Language.PYTHON,):
        raise InvalidInput("ground truth: calls and assertions are for Python only")


# ---------------------------------------------------------------- tests


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tests:
    style: Style
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    fn_name: str
    dropped: int = 0


def _tests(tree: dict[str, Any], max_tests: int) -> _Tests:
    fn_name = tree.get("fn_name") or ""
    if fn_name and not (isinstance(fn_name, str) and fn_name.isidentifier()):
        raise InvalidInput(f"ground truth of a programming problem: fn_name {str(fn_name)[:40]!r} is not a name")
    if "assertions" in tree:
        if "inputs" in tree or "outputs" in tree:
            raise InvalidInput("ground truth: `assertions` stand alone, without `inputs` or `outputs`")
        assertions = read_assertions(tree["assertions"], fn_name)
        _count(len(assertions), max_tests)
        return _Tests(style=Style.ASSERT, inputs=assertions, outputs=(None,) * len(assertions), fn_name=fn_name)
    inputs, outputs = tree.get("inputs"), tree.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list):
        raise InvalidInput("ground truth of a programming problem: `inputs` and `outputs` must both be lists")
    if len(inputs) != len(outputs):
        raise InvalidInput(f"ground truth of a programming problem: {len(inputs)} inputs but {len(outputs)} outputs")
    _count(len(inputs), max_tests)
    kept, expected = _with_expectation(inputs, outputs, is_call=bool(fn_name))
    dropped = len(inputs) - len(kept)
    if fn_name:
        arguments = tuple(read_arguments(given, index) for index, given in enumerate(kept))
        return _Tests(style=Style.CALL, inputs=arguments, outputs=_values(expected), fn_name=fn_name, dropped=dropped)
    texts = _texts(["" if given is None else given for given in kept], "input")
    return _Tests(style=Style.STDIN, inputs=texts, outputs=_texts(expected, "output"), fn_name="", dropped=dropped)


def _count(tests: int, max_tests: int) -> None:
    if tests == 0:
        raise InvalidInput("ground truth of a programming problem has no test; nothing could ever fail it")
    if tests > max_tests:
        raise InvalidInput(
            f"ground truth of a programming problem has {tests} tests, the limit is {max_tests} (`max_tests`)"
        )


def _texts(values: Sequence[Any], what: str) -> tuple[str, ...]:
    texts = []
    for index, value in enumerate(values):
        if isinstance(value, list) and all(isinstance(line, str) for line in value):
            value = "\n".join(value)
        if not isinstance(value, str):
            raise InvalidInput(f"ground truth: {what} {index} is {_kind(value)}, not text or a list of lines")
        texts.append(value)
    return tuple(texts)


def _with_expectation(inputs: Sequence[Any], outputs: Sequence[Any], is_call: bool) -> tuple[list[Any], list[Any]]:
    """Tests without those that expect nothing: data that is missing, which doing nothing would satisfy.

    Raises:
        InvalidInput: none is left.
    """
    read = [_json_of(output) if is_call else output for output in outputs]
    wraps = is_call and all(isinstance(each, list) and len(each) == 1 for each in read if each is not None)
    kept = [number for number, each in enumerate(read) if each is not None and not (wraps and each == [None])]
    if not kept:
        raise InvalidInput("ground truth: output 0 is null, and so are all; an expectation is never nothing")
    return [inputs[number] for number in kept], [outputs[number] for number in kept]


def _json_of(value: Any) -> Any:
    if isinstance(value, str) and ("null" in value or "None" in value):
        with contextlib.suppress(ValueError, RecursionError):
            return value_of_text(value)
    return value


def _values(outputs: Sequence[Any]) -> tuple[Any, ...]:
    for index, value in enumerate(outputs):
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
        return Language(_LANGUAGES.get(value, value) if isinstance(value, str) else value)
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
