"""Finding the answer in a response, and which comparisons need no algebra."""

import pytest

from services.verifier.mathematics.compare import Decided, Symbolic, compare_answer, extract_answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("\\boxed{\\frac{1}{\\sqrt{2}}}", "\\frac{1}{\\sqrt{2}}"),
        ("first \\boxed{1}, in the end \\boxed{2}.", "2"),
        ("\\boxed{1}, \\boxed{2}", "1,2"),
        ("\\boxed{1} and \\boxed{2}", "1,2"),
        ("\\boxed{\\frac12}, \\boxed{2}", "\\frac12,2"),
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
    ids=range(17),
)
def test_the_answer_is_the_last_complete_box_or_what_follows_the_marker(response: str, answer: str | None) -> None:
    assert extract_answer(response) == answer


def test_no_box_and_no_marker_is_a_failure_with_its_own_reason() -> None:
    assert compare_answer("It is 5.", "5") == Decided(equal=False, reason="no_answer")


def test_a_mismatch_and_a_match_say_so() -> None:
    assert compare_answer("\\boxed{4}", "5") == Decided(equal=False, reason="mismatch")
    assert compare_answer("\\boxed{10/2}", "5") == Decided(equal=True, reason="exact")


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        *[("1,234", "1234"), ("\\frac{10}{4}", "2.5"), ("3 1/2", "3.5"), ("0.333333", "1/3"), ("1e3", "1000")],
        *[("50", "50\\%"), ("12\\text{ cm}^2", "12"), ("3,2", "2,3"), ("(1,4.5)", "(1,\\frac92)"), ("(C)", "C")],
        *[("x<3", "(-\\infty,3)"), ("f(z)=z", "f(x)=x"), ("1010_{2}", "1010_2"), ("10\\pmod7", "3\\pmod7")],
        *[("\\{\\}", "\\emptyset"), ("5", "x=5"), ("2^{99}", "2\\cdot2^{98}"), ("East", "\\text{east}")],
    ],
)
def test_plain_forms_are_settled_without_algebra(answer: str, gold: str) -> None:
    assert compare_answer(f"\\boxed{{{answer}}}", gold) == Decided(equal=True, reason="exact")


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        *[("(x+1)^2", "x^2+2x+1"), ("e^{x^2}", "e^{2x}"), ("\\sqrt{12}", "2\\sqrt{3}"), ("n!", "n")],
        *[("2^{n+1}", "2\\cdot2^n"), ("(1,\\sqrt4)", "(1,2)"), ("1/0", "2/0")],
    ],
)
def test_what_needs_algebra_is_left_to_it(answer: str, gold: str) -> None:
    assert isinstance(compare_answer(f"\\boxed{{{answer}}}", gold), Symbolic)
