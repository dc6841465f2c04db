"""Reads the rows of public data sets as they are, and gives them the one form that `code_tests.py` knows.

    [{"input": "3 5", "output": "8", "testtype": "stdin"}]                              LiveCodeBench, rllm
    {"public_test_cases": ..., "private_test_cases": ..., "metadata": ...}              LiveCodeBench, compressed or not
    {"verification_info": {"language": "python", "test_cases": [...]}}                  open-r1
    {"public_tests": {"input": [...], "output": [...]}, "private_tests": ...}           CodeContests
    {"assert_case": ["assert add(3, 5) == 8"]}                                          PRIME
    {"test_cases": ["assert add(3, 5) == 8"]}                                           AceCoder

Pure. What is packed with pickle is read by its opcodes, text only, and never unpickled.
"""

import base64
import binascii
import json
import pickletools
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from prime.errors import InvalidInput
from services.verifier.programs.checkers import read_integer

LARGEST = 64 * 1024 * 1024
_CASE_KEYS = {"input", "output", "testtype", "type", "fn_name", "func_name", "metadata"}
_CALLS = {"functional": True, "function_call": True, "stdin": False, "stdin_stdout": False, None: False, "": False}
_LIVE_CODE_BENCH = ("public_test_cases", "private_test_cases")
_CODE_CONTESTS = ("public_tests", "private_tests", "generated_tests")
_COLUMNS = """
name description source difficulty solutions incorrect_solutions cf_contest_id cf_index cf_points cf_rating cf_tags
is_description_translated untranslated_description question_title question_content platform question_id contest_id
contest_date starter_code
"""
_DESCRIPTIONS = frozenset(_COLUMNS.split())
"""Columns beside the tests that say nothing about how they are judged."""
_TEXT_CODES = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_IDLE_CODES = ("PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP")


def read_row(ground_truth: str) -> dict[str, Any]:
    """The ground truth as an object with `inputs` and `outputs`, or `assertions`, and what goes with them.

    Raises:
        InvalidInput: it is no JSON, or none of the known forms; names what is wrong.
    """
    if len(ground_truth) > LARGEST:
        raise InvalidInput(f"ground truth of {len(ground_truth)} characters; the limit is {LARGEST}")
    return _read(_tree(ground_truth, "ground truth of a programming problem"))


def _read(tree: Any) -> dict[str, Any]:
    if isinstance(tree, list):
        if not tree:
            raise InvalidInput(
                "ground truth of a programming problem is not a JSON object, nor a list with a test in it"
            )
        return _cases(tree, {})
    if not isinstance(tree, dict):
        raise InvalidInput("ground truth of a programming problem is not a JSON object with `inputs` and `outputs`")
    for wrapper in ("verification_info", "input_output"):
        if wrapper in tree:
            return _read(_tree(tree[wrapper], wrapper))
    if any(key in tree for key in _LIVE_CODE_BENCH):
        return _live_code_bench(tree)
    if any(key in tree for key in _CODE_CONTESTS):
        return _code_contests(tree)
    if "test_cases" in tree:
        others = {key: value for key, value in tree.items() if key != "test_cases"}
        cases = _list(_tree(tree["test_cases"], "test_cases"), "test_cases")
        if cases and all(isinstance(case, str) for case in cases):
            return {**others, "assertions": cases}
        return _cases(cases, others)
    return _assert_case(tree) if "assert_case" in tree else tree


def _tree(value: Any, where: str) -> Any:
    """JSON, JSON in a text, or JSON that was packed as LiveCodeBench packs its private tests."""
    for _ in range(2):
        if not isinstance(value, str):
            break
        try:
            value = json.loads(value, parse_int=read_integer)
        except (ValueError, RecursionError) as error:
            if not value.startswith("eJ"):
                raise InvalidInput(f"{where} is no usable JSON: {error}") from None
            value = _unpacked(value, where)
    return value


def _unpacked(packed: str, where: str) -> str:
    """The text in base64 of zlib of a pickled text."""
    try:
        stream = zlib.decompressobj()
        data = stream.decompress(base64.b64decode(packed, validate=True), LARGEST)
        if stream.unconsumed_tail:
            raise InvalidInput(f"{where} unpacks to more than {LARGEST} bytes")
        texts = []
        for code, argument, _ in pickletools.genops(data):
            if code.name in _TEXT_CODES:
                texts.append(argument)
            elif code.name not in _IDLE_CODES:
                raise InvalidInput(f"{where} is packed with more than a text in it ({code.name}), and is not unpickled")
    except (binascii.Error, zlib.error, ValueError) as error:
        raise InvalidInput(f"{where} is neither JSON nor a packed text: {error}") from None
    if len(texts) != 1 or not isinstance(texts[0], str):
        raise InvalidInput(f"{where} is packed with {len(texts)} texts in it, not one")
    return texts[0]


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidInput(f"ground truth: {where} must be a list, not {type(value).__name__}")
    return value


# ---------------------------------------------------------------- cases


def _cases(cases: Sequence[Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Tests one by one, each with its input, output, kind and function."""
    inputs, outputs, names = [], [], set()
    for index, case in enumerate(cases):
        if not isinstance(case, dict) or not {"input", "output"} <= case.keys():
            raise InvalidInput(
                f"ground truth: test {index} is not a JSON object with `input` and `output`; a list holds such tests"
            )
        unknown = sorted(case.keys() - _CASE_KEYS)
        if unknown:
            raise InvalidInput(f"ground truth: test {index} has the unknown key {unknown[0]!r}")
        names.add(_function_of(case, others, index))
        inputs.append(case["input"])
        outputs.append(case["output"])
    if len(names) > 1:
        raise InvalidInput("ground truth: tests of several functions, or of scripts and functions, in one problem")
    rest = {key: value for key, value in others.items() if key not in ("fn_name", "func_name")}
    return {**rest, "inputs": inputs, "outputs": outputs, "fn_name": names.pop() if names else ""}


def _function_of(case: Mapping[str, Any], others: Mapping[str, Any], index: int) -> Any:
    """The name of the function that a test calls; empty for a test of a script."""
    kind = case.get("testtype") or case.get("type")
    if not isinstance(kind, str | None) or kind not in _CALLS:
        raise InvalidInput(f"ground truth: test {index} is of the unknown type {str(kind)[:40]!r}")
    metadata = case.get("metadata")
    inner = metadata.get("func_name") if isinstance(metadata, dict) else None
    name = next((each for each in (case.get("fn_name"), case.get("func_name"), inner) if each), "")
    if not name and (_CALLS[kind] or not kind):
        name = others.get("fn_name") or others.get("func_name") or ""
    if _CALLS[kind] and not name:
        raise InvalidInput(f"ground truth: test {index} calls a function that nothing names (`fn_name`)")
    return name if _CALLS[kind] or not kind else ""


# ---------------------------------------------------------------- whole rows


def _live_code_bench(tree: Mapping[str, Any]) -> dict[str, Any]:
    cases = [
        case for key in _LIVE_CODE_BENCH if tree.get(key) for case in _list(_tree(tree[key], f"`{key}`"), f"`{key}`")
    ]
    metadata = _tree(tree.get("metadata") or {}, "metadata")
    name = metadata.get("func_name") if isinstance(metadata, dict) else None
    return _cases(cases, {**_judged(tree, (*_LIVE_CODE_BENCH, "metadata")), "fn_name": name})


def _code_contests(tree: Mapping[str, Any]) -> dict[str, Any]:
    for key in ("input_file", "output_file"):
        if tree.get(key):
            raise InvalidInput(f"ground truth: a program that uses the file {str(tree[key])[:40]!r} cannot be tested")
    inputs: list[Any] = []
    outputs: list[Any] = []
    for key in _CODE_CONTESTS:
        tests = _tree(tree.get(key) or {"input": [], "output": []}, f"`{key}`")
        if isinstance(tests, list):
            read = _cases(tests, {})
            tests = {"input": read["inputs"], "output": read["outputs"]}
        given, expected = ((tests.get(side) if isinstance(tests, dict) else None) for side in ("input", "output"))
        if not isinstance(given, list) or not isinstance(expected, list) or len(given) != len(expected):
            raise InvalidInput(f"ground truth: `{key}` must hold the lists `input` and `output`, equally long")
        inputs += given
        outputs += expected
    used = (*_CODE_CONTESTS, "input_file", "output_file", "time_limit", "memory_limit_bytes")
    return {**_limits(tree), **_judged(tree, used), "inputs": inputs, "outputs": outputs}


def _limits(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Limits that were set for C++, in our terms: twice the time, and a second at least."""
    found: dict[str, Any] = {}
    limit, memory = tree.get("time_limit"), tree.get("memory_limit_bytes")
    if isinstance(limit, dict):
        limit = (limit.get("seconds") or 0) + (limit.get("nanos") or 0) / 1e9
    if isinstance(limit, int | float) and limit > 0:
        found["cpu_seconds"] = float(min(max(2 * limit, 1), 20))
    if isinstance(memory, int) and memory > 0:
        found["memory_mib"] = min(max(memory >> 20, 32), 4096)
    return found


def _judged(tree: Mapping[str, Any], used: Sequence[str]) -> dict[str, Any]:
    """What is left of a row without its tests and descriptions: `code_tests.py` reads or refuses it."""
    return {key: value for key, value in tree.items() if key not in used and key not in _DESCRIPTIONS}


def _assert_case(tree: Mapping[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in tree.items() if key not in ("assert_case", "inputs", "outputs")}
    if any(output not in (None, "") for output in tree.get("outputs") or []):
        raise InvalidInput("ground truth: `assert_case` stands beside tests with outputs; which of them counts?")
    return {**rest, "assertions": tree["assert_case"]}
