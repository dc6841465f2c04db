"""The rows of public data sets, read as they are; what cannot be read soundly is refused with the reason."""

import base64
import json
import os
import pickle
import zlib
from typing import Any

import pytest

from prime.errors import InvalidInput
from services.verifier.programs.code_tests import CodeTests, Style, parse_code_tests


def packed(value: object) -> str:
    """As LiveCodeBench packs its private tests."""
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


class _Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/prime-escape",)


def parse(tree: object) -> CodeTests:
    return parse_code_tests(tree if isinstance(tree, str) else json.dumps(tree), 1000)


_STDIN = {"input": "1\n", "output": "2\n", "testtype": "stdin"}
_FUNCTIONAL = {"input": "[1, 2]\n3", "output": "6", "testtype": "functional"}
_CALL = {"fn_name": "add", "input": [1, 2], "output": 3, "type": "function_call"}

SCRIPTS: dict[str, object] = {
    "a list of tests": [_STDIN],
    "a list of tests, as text in text": json.dumps(json.dumps([_STDIN])),
    "a list of tests without a type": [{"input": "1\n", "output": "2\n"}],
    "tests with metadata that names no function": [{**_STDIN, "metadata": {"func_name": None}}],
    "open-r1": {"language": "python", "test_cases": [{**_STDIN, "testtype": None, "type": "stdin_stdout"}]},
    "open-r1 within its column": {"verification_info": {"test_cases": [{**_STDIN, "fn_name": None}]}},
    "open-r1 within its column as text": {"verification_info": json.dumps({"test_cases": [_STDIN]})},
    "LiveCodeBench": {
        "public_test_cases": json.dumps([_STDIN]),
        "private_test_cases": "[]",
        "metadata": "{}",
        "question_title": "Two",
        "starter_code": "",
    },
    "LiveCodeBench, packed": {"public_test_cases": "[]", "private_test_cases": packed(json.dumps([_STDIN]))},
    "packed as a whole": packed(json.dumps([_STDIN])),
    "CodeContests": {
        "name": "1_A. Two",
        "public_tests": {"input": ["1\n"], "output": ["2\n"]},
        "private_tests": {"input": [], "output": []},
        "generated_tests": None,
        "input_file": "",
    },
    "CodeContests as lists": {"public_tests": [{"input": "1\n", "output": "2\n"}]},
    "an empty fn_name": {"inputs": ["1\n"], "outputs": ["2\n"], "fn_name": ""},
    "a null fn_name": {"inputs": ["1\n"], "outputs": ["2\n"], "fn_name": None},
    "TACO within its column": {"input_output": json.dumps({"inputs": ["1\n"], "outputs": ["2\n"]})},
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_rows_of_scripts_are_read_as_they_are(name: str) -> None:
    tests = parse(SCRIPTS[name])
    assert (tests.style, tests.inputs, tests.outputs) == (Style.STDIN, ("1\n",), ("2\n",))


CALLS: dict[str, tuple[object, str, Any, Any]] = {
    "rllm": ([{**_FUNCTIONAL, "metadata": {"func_name": "total"}}], "total", [[1, 2], 3], "6"),
    "LiveCodeBench": (
        {"public_test_cases": json.dumps([_FUNCTIONAL]), "metadata": '{"func_name": "total"}'},
        "total",
        [[1, 2], 3],
        "6",
    ),
    "open-r1": ({"test_cases": [_CALL]}, "add", [1, 2], 3),
    "a name beside the tests": ({"test_cases": [_FUNCTIONAL], "fn_name": "total"}, "total", [[1, 2], 3], "6"),
    "arguments by name": ({"fn_name": "f", "inputs": [{"a": 1, "b": [2]}], "outputs": [3]}, "f", {"a": 1, "b": [2]}, 3),
    "LeetCode's page": (
        {"fn_name": "f", "inputs": ["nums = [2,7], target = 9"], "outputs": [[0, 1]]},
        "f",
        {"nums": [2, 7], "target": 9},
        [0, 1],
    ),
    "geeksforgeeks' page": (
        {"fn_name": "f", "inputs": ["N = 5\narr[] = {1,2,3,4,5}"], "outputs": ["15"]},
        "f",
        {"N": 5, "arr": [1, 2, 3, 4, 5]},
        "15",
    ),
    "geeksforgeeks' texts and matrices": (
        {"fn_name": "f", "inputs": ["S = \"a, b\", T = abc, M[][] = {{1, 2}, {3}}, c = 'x', b = True"], "outputs": [1]},
        "f",
        {"S": "a, b", "T": "abc", "M": [[1, 2], [3]], "c": "x", "b": True},
        1,
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_rows_of_calls_are_read_as_they_are(name: str) -> None:
    tree, function, arguments, expected = CALLS[name]
    tests = parse(tree)
    assert (tests.style, tests.fn_name, tests.inputs, tests.outputs) == (
        Style.CALL,
        function,
        (arguments,),
        (expected,),
    )


def test_the_tests_of_all_columns_are_put_together() -> None:
    tests = {key: {"input": [key], "output": ["x"]} for key in ("public_tests", "private_tests", "generated_tests")}
    assert parse(tests).inputs == ("public_tests", "private_tests", "generated_tests")


def test_limits_of_a_row_act() -> None:
    row = {"public_tests": {"input": ["1"], "output": ["1"]}, "memory_limit_bytes": 256000000}
    tests = parse({**row, "time_limit": {"seconds": 3, "nanos": 500000000}})
    assert (tests.cpu_seconds, tests.memory_mib) == (7.0, 244)
    assert parse({**row, "time_limit": None}).cpu_seconds is None


@pytest.mark.parametrize("key", ["assertions", "assert_case", "test_cases"])
def test_assertions_are_a_list_of_texts(key: str) -> None:
    tests = parse({key: ["assert f(1) == 2", "assert f(2) == 3"]})
    assert (tests.style, len(tests.inputs)) == (Style.ASSERT, 2)


def test_assertions_may_stand_beside_empty_tests() -> None:
    assert parse({"assert_case": ["assert f(1) == 2"], "inputs": [""], "outputs": [None]}).style is Style.ASSERT


def test_no_input_is_an_empty_one() -> None:
    assert parse({"inputs": [None, "1"], "outputs": ["1", "1"]}).inputs == ("", "1")


NULLS: dict[str, tuple[dict[str, Any], int]] = {
    "null": ({"fn_name": "f", "inputs": [[1], [2]], "outputs": [1, None]}, 1),
    "null as text": ({"fn_name": "f", "inputs": ["1", "2"], "outputs": ["1", "null"]}, 1),
    "None as text": ({"fn_name": "f", "inputs": ["1", "2"], "outputs": ["1", "None"]}, 1),
    "null as APPS wraps it": ({"fn_name": "f", "inputs": [[1], [2]], "outputs": [[1], [None]]}, 1),
    "null of a script": ({"inputs": ["1", "2"], "outputs": ["1", None]}, 1),
    "null within a list": ({"fn_name": "f", "inputs": [[1], [2]], "outputs": [[1, 2], [None]]}, 0),
    "the text null of a script": ({"inputs": ["1", "2"], "outputs": ["1", "null"]}, 0),
}


@pytest.mark.parametrize("name", NULLS)
def test_a_test_that_expects_nothing_is_left_out_and_counted(name: str) -> None:
    tree, dropped = NULLS[name]
    tests = parse(tree)
    assert (tests.dropped, len(tests.inputs)) == (dropped, 2 - dropped)


REFUSED: dict[str, tuple[object, str]] = {
    "only nulls": ({"fn_name": "f", "inputs": [[1], [2]], "outputs": [None, None]}, "an expectation is never nothing"),
    "only null as text": ({"fn_name": "f", "inputs": ["[1]"], "outputs": ["null"]}, "an expectation is never nothing"),
    "only null as text with blanks": ({"fn_name": "f", "inputs": ["1"], "outputs": [" null\n"]}, "never nothing"),
    "only null as APPS wraps it": ({"fn_name": "f", "inputs": [[1]], "outputs": [[None]]}, "never nothing"),
    "null as APPS wraps it, as text": ({"fn_name": "f", "inputs": ["1"], "outputs": ["[null]"]}, "never nothing"),
    "only null in a list of tests": ([{**_FUNCTIONAL, "output": "null", "fn_name": "f"}], "never nothing"),
    "scripts and functions": ([_STDIN, {**_FUNCTIONAL, "fn_name": "f"}], "tests of several functions"),
    "a function without a name": ([_FUNCTIONAL], "calls a function that nothing names"),
    "an unknown type": ([{**_STDIN, "testtype": "interactive"}], "unknown type 'interactive'"),
    "an unknown key of a test": ([{**_STDIN, "weight": 3}], "unknown key 'weight'"),
    "a test without output": ([{"input": "1"}], "with `input` and `output`"),
    "a list of texts": (["1"], "with `input` and `output`"),
    "an unknown key beside the tests": ({"test_cases": [_STDIN], "timeout": 3}, "unknown key 'timeout'"),
    "unequal columns": ({"public_tests": {"input": ["1"], "output": []}}, "equally long"),
    "a program that reads a file": ({"public_tests": {"input": [], "output": []}, "input_file": "a.in"}, "a.in"),
    "a packed object": (packed(_Runs()), "is not unpickled"),
    "a packed list": (packed([_STDIN]), "is not unpickled"),
    "packed tests of an object": ({"public_test_cases": "[]", "private_test_cases": packed(_Runs())}, "not unpickled"),
    "a packed number": (packed(3), "is not unpickled"),
    "packed garbage": ("eJgarbage", "neither JSON nor a packed text"),
    "a packed bomb": (base64.b64encode(zlib.compress(b"x" * (65 * 2**20))).decode(), "unpacks to more than"),
    "a text that is no assignment": ({"fn_name": "f", "inputs": ["N is 5"], "outputs": [1]}, "not one JSON value"),
    "an assignment without an end": (
        {"fn_name": "f", "inputs": ["arr[] = {1, 2"], "outputs": [1]},
        "not one JSON value",
    ),
    "the same name twice": ({"fn_name": "f", "inputs": ["a = 1, a = 2"], "outputs": [1]}, "not one JSON value"),
    "a number that may be a text": ({"fn_name": "f", "inputs": ["s = 0110"], "outputs": [1]}, "not one JSON value"),
    "names that are none": ({"fn_name": "f", "inputs": [{"1": 2}], "outputs": [1]}, "whose name is none"),
    "a comparison of assertions": ({"assertions": ["assert f(1)"], "comparison": "unordered_lines"}, "no effect"),
    "a tolerance of assertions": ({"assertions": ["assert f(1)"], "tolerance": 0.1}, "no effect"),
    "a tolerance of a checker": (
        {"inputs": ["1"], "outputs": ["1"], "checker": {"language": "python", "source": "x"}, "tolerance": 0.1},
        "no effect",
    ),
    "assertions beside outputs": ({"assert_case": ["assert f(1)"], "inputs": ["1"], "outputs": ["1"]}, "which of them"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_soundly_is_refused_with_the_reason(name: str) -> None:
    tree, said = REFUSED[name]
    with pytest.raises(InvalidInput, match=said):
        parse(tree)
    assert not os.path.exists("/tmp/prime-escape")
