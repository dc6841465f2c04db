"""Extraction of programs, and comparison of what they print and return, in both directions."""

import pytest

from services.verifier.grade import chain_answer
from services.verifier.programs.blocks import find_program
from services.verifier.programs.checkers import Comparison, same_output, same_value


@pytest.mark.parametrize(
    ("response", "answer"),
    [("3+5=8;8+8=6#6", "6"), ("#1#2 ", "2"), ("#", None), ("6", None), ("6# ", None), ("#6 6", "6 6")],
)
def test_a_chain_ends_with_its_answer_after_the_last_sign(response: str, answer: str | None) -> None:
    assert chain_answer(response) == answer


@pytest.mark.parametrize(
    ("response", "program"),
    [
        ("```python\na\n```", "a\n"),
        ("```\na\n```", "a\n"),
        ("```py\na\n```\nor\n```python3\nb\n```", "b\n"),
        ("```python\na\n```\noutput:\n```text\n8\n```", "a\n"),
        ("```python\na\n```\n```python\nb", None),
        ("```cpp\na\n```", None),
        ("a", None),
        ("```python\n\n```", None),
        ("<think>```python\na\n```</think>\n```python\nb\n```", "b\n"),
    ],
)
def test_the_program_is_the_last_complete_block(response: str, program: str | None) -> None:
    found = find_program(response)
    assert (found.language, found.source) == ("python", program) if found else program is None


@pytest.mark.parametrize(
    ("response", "languages", "found"),
    [
        ("```cpp\na\n```\n```python\nb\n```", ("cpp",), ("cpp", "a\n")),
        ("```cpp\na\n```\n```python\nb\n```", ("python", "cpp"), ("python", "b\n")),
        ("```c++17\na\n```", ("python", "cpp"), ("cpp", "a\n")),
        ("```\na\n```", ("cpp",), ("cpp", "a\n")),
        ("```\na\n```", ("python", "cpp"), ("python", "a\n")),
        ("```java\na\n```", ("python", "cpp"), None),
    ],
)
def test_a_block_is_in_the_language_of_its_label(
    response: str, languages: tuple[str, ...], found: tuple[str, str] | None
) -> None:
    program = find_program(response, languages)
    assert (program and (program.language, program.source)) == found


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        (b"8\n", "8", True),
        (b"8", "8\n", True),
        (b"8 \r\n9\n\n", "8\n9", True),
        (b"1\n\n2", "1\n2", True),
        (b"1  2", "1 2", True),
        (b"0.3333334", "0.3333333", True),
        (b"1000000.5", "1000000.0", True),
        (b"3", "3.0", True),
        (b"1e3", "1000.0", True),
        (b"", "", True),
        (b"3.0", "3", True),
        (b"-3.", "-3", True),
        (b"1e2", "100", True),
        (b"3.0000001", "3", False),
        (b"03", "3", False),
        (b"1e17", "100000000000000001", False),
        (b"1e99999999999999999999", "3", False),
        (b"1000001", "1000000", False),
        (b"0.34", "0.33", False),
        (b"nan", "1.0", False),
        (b"nan", "nan", True),
        (b"inf", "1e400", False),
        (b"1 2", "1\n2", False),
        (b"2 1", "1 2", False),
        (b"1\n2\n3", "1\n2", False),
        (b"1", "1\n2", False),
        (b"yes", "YES", False),
        (b"", "8", False),
        (b"\xff", "8", False),
    ],
)
def test_output_is_compared_by_lines_and_tokens(printed: bytes, expected: str, same: bool) -> None:
    assert same_output(printed, expected) is same


@pytest.mark.parametrize(
    ("returned", "expected", "same"),
    [
        (b"8", 8, True),
        (b"[1, 2]", [1, 2], True),
        (b"true", 1, True),
        (b"0.3333333", 1 / 3, True),
        (b"8", [8], True),
        (b'{"a": [1]}', {"a": [1]}, True),
        (b'"12"', "12", True),
        (b"null", "null", True),
        (b"5", [5, 6, 7], False),
        (b"[2, 1]", [1, 2], False),
        (b"1000001", 1000000, False),
        (b"8.0000001", 8, False),
        (b'"8"', 8, False),
        (b"NaN", 1.0, False),
        (b"8 8", 8, None),
        (b"", 8, None),
        (b"[" * 100_000, 8, None),
        (b"[" * 300 + b"]" * 300, 8, None),
        (b"9" * 50_000, 8, False),
        (b"true", "True", True),
        (b"[true]", "[True]", True),
        (b'["a"]', "['a']", True),
        (b'"a"', "'a'", True),
        (b"Infinity", "inf", True),
        (b"[1, [2]]", "(1, (2,))", True),
        (b'{"1": null}', "{1: None}", True),
        (b'"True"', "True", True),
        (b"false", "True", False),
        (b"1e308", "inf", False),
        (b"[1, 2]", "{1, 2}", False),
        (b"3", "[1 + 2]", False),
        (b"1", "(" * 90_000 + "1", False),
        (b"1", "-" * 90_000 + "1", False),
        (b"1", "[" + "-" * 5_000 + "1]", False),
    ],
    ids=range(34),
)
def test_returned_values_are_compared_as_plain_values(returned: bytes, expected: object, same: bool | None) -> None:
    assert same_value(returned, expected) is same


@pytest.mark.parametrize(
    ("printed", "expected", "comparison", "same"),
    [
        (b"2\n1", "1\n2", Comparison.UNORDERED_LINES, True),
        (b"2  1\n\n3", "3\n2 1\n", Comparison.UNORDERED_LINES, True),
        (b"1 2", "1\n2", Comparison.UNORDERED_LINES, False),
        (b"1\n1\n2", "1\n2\n2", Comparison.UNORDERED_LINES, False),
        (b"1 2", "2\n1", Comparison.UNORDERED_TOKENS, True),
        (b"1 2 2", "2 1", Comparison.UNORDERED_TOKENS, False),
        (b"1 2.0", "2 1", Comparison.UNORDERED_TOKENS, True),
        (b"0.5000001 a", "a 0.5", Comparison.UNORDERED_TOKENS, True),
        (b"0.51 a", "a 0.5", Comparison.UNORDERED_TOKENS, False),
        (b"x 0.5\ny 2", "y 2\nx 0.5000001", Comparison.UNORDERED_LINES, True),
    ],
)
def test_output_in_any_order_still_has_each_thing_as_often(
    printed: bytes, expected: str, comparison: Comparison, same: bool
) -> None:
    assert same_output(printed, expected, comparison) is same


@pytest.mark.parametrize(("tolerance", "same"), [(1e-6, False), (1e-2, True)])
def test_a_tolerance_is_for_numbers_with_a_point_only(tolerance: float, same: bool) -> None:
    assert same_output(b"0.334", "0.333", tolerance=tolerance) is same
    assert not same_output(b"101", "100", tolerance=tolerance)
