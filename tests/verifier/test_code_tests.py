"""What is no usable ground truth of a programming problem. Never a pass, and never a zero."""

import json
from typing import Any

import pytest

from prime.errors import InvalidInput
from services.verifier.programs.code_tests import Language, Style, parse_code_tests

_GOOD: dict[str, Any] = {"inputs": ["1"], "outputs": ["1"]}
_CALL: dict[str, Any] = {"fn_name": "f", "inputs": [[1]], "outputs": [1]}

REFUSED: dict[str, tuple[object, str]] = {
    "a list": ([], "not a JSON object"),
    "no outputs": ({"inputs": ["1"]}, "must both be lists"),
    "unequal lists": ({"inputs": ["1", "2"], "outputs": ["1"]}, "2 inputs but 1 outputs"),
    "no test": ({"inputs": [], "outputs": []}, "no test"),
    "no test of a call": ({**_CALL, "inputs": [], "outputs": []}, "no test"),
    "no assertion": ({"assertions": []}, "no test"),
    "an empty assertion": ({"assertions": ["assert f(1)", " "]}, "none of it empty"),
    "assertions beside tests": ({**_GOOD, "assertions": ["assert f(1)"]}, "stand alone"),
    "nothing expected anywhere": ({"inputs": ["1", "2"], "outputs": ["", " \n"]}, "does nothing would pass"),
    "null output": ({"inputs": ["1"], "outputs": [None]}, "output 0 is null"),
    "null output of a call": ({**_CALL, "outputs": [None]}, "output 0 is null"),
    "None as text of a call": ({**_CALL, "outputs": ["None"]}, "output 0 is null"),
    "null input of a call": ({**_CALL, "inputs": [None]}, "input 0 is null"),
    "a number as input": ({"inputs": [1], "outputs": ["1"]}, "input 0 is int"),
    "a number as output": ({"inputs": ["1"], "outputs": [1]}, "output 0 is int"),
    "arguments that are no list": ({**_CALL, "inputs": [1]}, "input 0 is int"),
    "arguments that are no JSON": ({**_CALL, "inputs": ["{"]}, "not one JSON value per line"),
    "arguments nested too deep": ({**_CALL, "inputs": ["[" * 300 + "]" * 300]}, "not a .flat enough. list"),
    "an expectation nested too deep": ({**_CALL, "outputs": [json.loads("[" * 300 + "]" * 300)]}, "deeper than 200"),
    "a function name that is none": ({**_CALL, "fn_name": "f()"}, "is not a name"),
    "a function name that is no text": ({**_CALL, "fn_name": 1}, "is not a name"),
    "100,000 tests": ({"inputs": ["1"] * 10**5, "outputs": ["1"] * 10**5}, "100000 tests, the limit is 1000"),
    "an unknown key": ({**_GOOD, "timeout": 3}, "unknown key 'timeout'"),
    "an unknown language": ({**_GOOD, "language": "java"}, "'java' is not known"),
    "a call in C++": ({**_CALL, "language": "cpp"}, "Python only"),
    "an unknown comparison": ({**_GOOD, "comparison": "sets"}, "use one of lines"),
    "a negative time": ({**_GOOD, "cpu_seconds": -1}, "cpu_seconds must be a number above 0"),
    "no time at all": ({**_GOOD, "cpu_seconds": 0}, "cpu_seconds must be a number above 0"),
    "endless time": ({**_GOOD, "cpu_seconds": float("inf")}, "at most 60"),
    "time that is no number": ({**_GOOD, "cpu_seconds": float("nan")}, "cpu_seconds must be a number"),
    "time as text": ({**_GOOD, "cpu_seconds": "1"}, "cpu_seconds must be a number"),
    "negative memory": ({**_GOOD, "memory_mib": -5}, "memory_mib must be a number above 0"),
    "too little memory": ({**_GOOD, "memory_mib": 1}, "whole number from 32"),
    "too much memory": ({**_GOOD, "memory_mib": 10**6}, "at most 4096"),
    "a fraction of memory": ({**_GOOD, "memory_mib": 64.5}, "whole number"),
    "a negative tolerance": ({**_GOOD, "tolerance": -1e-6}, "tolerance must be"),
    "a tolerance that takes anything": ({**_GOOD, "tolerance": 1e9}, "at most 1"),
    "a tolerance of true": ({**_GOOD, "tolerance": True}, "tolerance must be"),
    "a checker without source": ({**_GOOD, "checker": {"language": "python"}}, "`language` and `source`"),
    "an empty checker": ({**_GOOD, "checker": {"language": "python", "source": " "}}, "source is empty"),
    "a checker in an unknown language": ({**_GOOD, "checker": {"language": "sh", "source": "x"}}, "'sh' is not known"),
    "a checker of a call": ({**_CALL, "checker": {"language": "python", "source": "x"}}, "not calls or assertions"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_unusable_ground_truth_is_refused_with_the_reason(name: str) -> None:
    tree, said = REFUSED[name]
    with pytest.raises(InvalidInput, match=said):
        parse_code_tests(json.dumps(tree), 1000)


@pytest.mark.parametrize(
    "text", ["", "{", "nothing", "[" * 100_000, '{"inputs": ["1"], "outputs": ' + "[" * 5000 + "]" * 5000 + "}"]
)
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_code_tests(text, 1000)


def test_a_ground_truth_without_end_is_refused_unread() -> None:
    with pytest.raises(InvalidInput, match="the limit is"):
        parse_code_tests(" " * (64 * 2**20 + 1), 1000)


def test_a_script_is_read_with_the_usual_for_what_it_does_not_say() -> None:
    tests = parse_code_tests(json.dumps({"inputs": [["3", "5"], "x"], "outputs": ["8", ["a", "b"]]}), 10)
    assert (tests.style, tests.languages) == (Style.STDIN, (Language.PYTHON,))
    assert tests.inputs == ("3\n5", "x")
    assert tests.outputs == ("8", "a\nb")
    assert (tests.tolerance, tests.cpu_seconds, tests.memory_mib, tests.checker) == (1e-6, None, None, None)


def test_any_language_is_python_or_cpp() -> None:
    tests = parse_code_tests(json.dumps({**_GOOD, "language": "any"}), 10)
    assert tests.languages == (Language.PYTHON, Language.CPP)


def test_a_long_integer_in_an_expectation_is_kept() -> None:
    text = '{"fn_name": "f", "inputs": [[1]], "outputs": [' + "9" * 10_000 + "]}"
    assert parse_code_tests(text, 10).outputs == ("integer " + "9" * 10_000,)


def test_one_text_of_assertions_is_one_test() -> None:
    tests = parse_code_tests(json.dumps({"assertions": "assert f(1)\nassert f(2)"}), 10)
    assert (tests.style, len(tests.inputs), tests.outputs) == (Style.ASSERT, 1, (None,))
