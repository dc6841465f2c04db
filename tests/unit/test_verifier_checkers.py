"""Comparison of answers, in both directions: what must count as right, and what must not."""

import pytest

from prime.errors import InvalidInput
from services.verifier.checkers import chain_answer, extract_program, same_output, same_value
from services.verifier.exact_math import Decided, Symbolic, compare_answer, extract_answer


def decide(answer: str, gold: str) -> bool | str | None:
    """True, False, None (undecided), or "symbolic" when the workers must say."""
    found = compare_answer(f"So the answer is \\boxed{{{answer}}}.", gold)
    return "symbolic" if isinstance(found, Symbolic) else found.equal


RIGHT = [
    ("1,234", "1234"),
    ("1{,}234", "1234"),
    ("12\\,345", "12345"),
    ("0.5", "1/2"),
    ("3\\frac12", "3.5"),
    ("3 1/2", "3.5"),
    ("1/-2", "-1/2"),
    ("\\dfrac{1}{2}", "\\frac12"),
    ("0.333333", "1/3"),
    ("5.0", "5"),
    ("007", "7"),
    ("+5", "5"),
    ("\u22125", "-5"),
    ("\uff15", "5"),
    ("2\\cdot2^{98}", "2^{99}"),
    ("1e3", "1000"),
    ("1\\times10^3", "1000"),
    ("0.5", "50\\%"),
    ("50", "50\\%"),
    ("50\\%", "50%"),
    ("12\\text{ cm}^2", "12"),
    ("5\\text{ km}", "5\\mathrm{km}"),
    ("\\$5.00", "5"),
    ("50^\\circ", "50"),
    ("3,2", "2,3"),
    ("x=1\\text{ or }x=2", "\\{1,2\\}"),
    ("(1,4.5)", "(1,\\frac92)"),
    ("(-\\infty, 3)", "(-\\infty,3)"),
    ("\\left( 1, 2 \\right]", "(1,2]"),
    ("x=5", "5"),
    ("5", "x=5"),
    ("\\frac{10}{2}=5", "5"),
    ("C", "\\text{(C)}"),
    ("(C)", "C"),
    ("\\textbf{(C)}\\ 12", "C"),
    ("\\text{east}", "East"),
    ("10^{10^{10}}", "10^{10^{10}}"),
    ("\\frac{\\sqrt{3}}{3}\\approx0.577", "\\frac{\\sqrt{3}}{3}"),
    ("5.", "5"),
    ("$5$", "5"),
    ("9" * 100_000, "9" * 100_000),
    ("1/2004!", "\\frac{1}{2004!}"),
]

WRONG = [
    ("12", "1 2"),
    ("1 2", "12"),
    ("(1,234)", "1234"),
    ("4/3", "3/4"),
    ("0.33", "1/3"),
    ("5.0001", "5"),
    ("10^6+1", "10^6"),
    ("2024.1", "2024"),
    ("10001", "10000"),
    ("1/2006!", "1/2004!"),
    ("1/2^{98}", "1/2^{99}"),
    ("0", "10^{-10}"),
    ("500", "5"),
    ("0.05", "5"),
    ("5", "-5"),
    ("50\\%", "50"),
    ("5\\text{ km}", "5\\text{ m}"),
    ("5 or 6", "5"),
    ("1,2,3,4,5", "5"),
    ("\\{1,2,3\\}", "\\{1,2\\}"),
    ("1,2,2", "1,2"),
    ("3,3", "3"),
    ("(2,1)", "(1,2)"),
    ("1,2", "(1,2)"),
    ("[1,2]", "(1,2)"),
    ("(0,1)", "[0,1]"),
    ("(1,2)", "(1,2]"),
    ("3=5", "5"),
    ("\\pm5", "5"),
    ("10_2", "10"),
    ("BA", "AB"),
    ("not no", "no"),
    ("A or C", "C"),
    ("\\textbf{(A)}\\ (C)", "C"),
    ("c", "C"),
    ("", "5"),
    ("9" * 99_999 + "8", "9" * 100_000),
]

TOWERS = [
    "10^{10^{10}}",
    "9^{9^{9^9}}",
    "1000000!",
    "(10^9)!",
    "3!!!",
    "2^{10^9}",
    "\\binom{10^9}{5\\cdot10^8}",
    "\\sum_{i=1}^{10^{12}} 1/i",
    "(x+1)^{5000}",
    "\\sin(10^{10^6})",
    "10^{10^{10}}-10^{10^{10}}+1",
    "e^{e^{e^{e^e}}}",
    "(1/3)^{10^8}",
    "7777777^{7777777}",
    "\\lfloor\\pi^{10^6}\\rfloor",
    "(" * 2000 + "1" + ")" * 2000,
    "\\sqrt{" * 300 + "2" + "}" * 300,
    "+".join(["x"] * 5000),
    "\\pi+" + "7" * 5000,
]


@pytest.mark.parametrize(("answer", "gold"), RIGHT)
def test_equal_answers_are_equal_without_algebra(answer: str, gold: str) -> None:
    assert decide(answer, gold) is True


@pytest.mark.parametrize(("answer", "gold"), WRONG)
def test_different_answers_are_different_without_algebra(answer: str, gold: str) -> None:
    assert decide(answer, gold) is False


@pytest.mark.parametrize("answer", TOWERS, ids=range(len(TOWERS)))
def test_what_would_cost_too_much_is_undecided_and_never_evaluated(answer: str) -> None:
    assert compare_answer(f"\\boxed{{{answer}}}", "42") == Decided(equal=None, reason="too_complex")
    assert decide(answer, answer) is True


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("(x+1)^2", "x^2+2x+1"),
        ("x<3", "(-\\infty,3)"),
        ("e^{x^2}", "e^{2x}"),
        ("-\\infty", "\\infty"),
        ("\\sqrt{12}", "2\\sqrt{3}"),
        ("n!", "n"),
        ("2^{n+1}", "2\\cdot2^n"),
        ("1/0", "2/0"),
    ],
)
def test_what_needs_algebra_is_left_to_it(answer: str, gold: str) -> None:
    assert decide(answer, gold) == "symbolic"


@pytest.mark.parametrize("gold", ["", "  ", "\\boxed{}", "$$", ".", "####"])
def test_a_ground_truth_with_nothing_in_it_is_refused(gold: str) -> None:
    with pytest.raises(InvalidInput):
        compare_answer("\\boxed{5}", gold)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("\\boxed{\\frac{1}{\\sqrt{2}}}", "\\frac{1}{\\sqrt{2}}"),
        ("first \\boxed{1}, in the end \\boxed{2}.", "2"),
        ("\\boxed{1}, \\boxed{2}", "1,2"),
        ("\\boxed{1} and \\boxed{2}", "1,2"),
        ("\\boxed{ \\boxed{3} }", " \\boxed{3} "),
        ("\\boxed{4} and then \\boxed{5", "4"),
        ("\\boxed{\\{1,2\\}}", "\\{1,2\\}"),
        ("{ \\boxed{7}", "7"),
        ("<think>\\boxed{1}</think> it is \\boxed{2}", "2"),
        ("<think>\\boxed{1}", None),
        ("so\n#### 12\n", "12"),
        ("#### 1\n\\boxed{2}", "2"),
        ("the answer is 5", None),
        ("{" * 20_000, None),
        ("\\boxed{" * 20_000, None),
        ("\\boxed{1}" + " " * 200_000 + "x\\boxed{2}", "2"),
    ],
    ids=range(16),
)
def test_the_answer_is_the_last_complete_box_or_what_follows_the_marker(response: str, answer: str | None) -> None:
    assert extract_answer(response) == answer


def test_many_boxes_side_by_side_do_not_match_a_single_value() -> None:
    spam = " ".join(f"\\boxed{{{value}}}" for value in range(6))
    assert compare_answer(spam, "5") == Decided(equal=False, reason="mismatch")


def test_no_box_and_no_marker_is_a_failure_with_its_own_reason() -> None:
    assert compare_answer("It is 5.", "5") == Decided(equal=False, reason="no_answer")


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
    assert extract_program(response) == program


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
        (b"3.0", "3", False),
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
    ],
    ids=range(19),
)
def test_returned_values_are_compared_as_plain_values(returned: bytes, expected: object, same: bool | None) -> None:
    assert same_value(returned, expected) is same
