"""What a policy under training might write instead of an answer: nothing runs, nothing hangs, nothing passes."""

import random
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pytest

from prime.errors import InvalidInput
from services.verifier.mathematics.compare import Decided, Symbolic, compare_answer, extract_answer
from services.verifier.mathematics.options import GOLD_RESTATES_QUESTION
from tests.verifier.math_judge import judge, judge_answer

TOO_COMPLEX = Decided(equal=None, reason="too_complex")
MISMATCH = Decided(equal=False, reason="mismatch")

TOWERS = {
    "a tower": "10^{10^{10}}",
    "a taller tower": "9^{9^{9^9}}",
    "a factorial": "1000000!",
    "the factorial of a power": "(10^9)!",
    "factorials of factorials": "3!!!",
    "a power of two": "2^{10^9}",
    "a binomial coefficient": "\\binom{10^9}{5\\cdot10^8}",
    "a long sum": "\\sum_{i=1}^{10^{12}} 1/i",
    "a long product": "\\prod_{i=1}^{10^{12}} i",
    "a power to multiply out": "(x+1)^{5000}",
    "a power of four terms": "(x+y+z+w)^{60}",
    "the sine of a power": "\\sin(10^{10^6})",
    "a difference of towers": "10^{10^{10}}-10^{10^{10}}+1",
    "exponentials": "e^{e^{e^{e^e}}}",
    "a small fraction": "(1/3)^{10^8}",
    "a power of itself": "7777777^{7777777}",
    "rounding a power": "\\lfloor\\pi^{10^6}\\rfloor",
    "an exponent with many digits": "1e99999+\\pi",
}
MASSES = {
    "parentheses": "(" * 2000 + "1" + ")" * 2000,
    "roots": "\\sqrt{" * 300 + "2" + "}" * 300,
    "many roots": "\\sqrt{" * 3000 + "2" + "}" * 3000,
    "a continued fraction": "\\frac{1}{1+" * 200 + "1" + "}" * 200,
    "a set": "\\{" + ",".join(f"{number}x" for number in range(3000)) + "\\}",
    "a sum": "+".join(["x"] * 5000),
    "a long number in a sum": "\\pi+" + "7" * 5000,
    "a matrix": "\\begin{pmatrix}"
    + "\\\\".join("&".join(f"x_{{{row}{column}}}" for column in range(9)) for row in range(9))
    + "\\end{pmatrix}",
    "a determinant": "\\begin{vmatrix}"
    + "\\\\".join("&".join(f"x^{row * column}" for column in range(9)) for row in range(9))
    + "\\end{vmatrix}",
    "opened formulas": "\\(" * 15_000,
    "signs": "-" * 1500 + "x",
    "bars": "|" * 200 + "x" + "|" * 200,
    "letters": "x" * 1000 + "^2",
    "unions": "\\cup".join(["(0,1)"] * 100),
    "arguments": "\\max(" + ",".join(f"x^{power}" for power in range(40)) + ")",
}

SETTLED_BY_ALGEBRA = [
    "\\frac{d^{50}}{dx^{50}}e^{x^2}",
    "e^{e^{e^{x}}}",
    "x^{x^{x^{x^x}}}",
    "\\tan(\\tan(\\tan(x)))",
    "\\sqrt[3]{" + "1234567891" * 40 + "}",
    "(\\sqrt2+\\sqrt3+\\sqrt5)^{60}",
    "(1+\\sqrt{2}i)^{999}",
    "10^{9999}+\\sqrt2",
    "1.5e-9999",
]
"""Passes the guards, and takes the algebra system little."""


@pytest.mark.parametrize(
    "answer",
    [
        "__import__('os').system('touch {planted}')",
        "open('{planted}','w').write('x')+\\pi",
        "(lambda: exec('open(\\'{planted}\\', \\'w\\')'))()+\\pi",
        "[x for x in ().__class__.__base__.__subclasses__()][0]",
        "\\begin{pmatrix}__import__('pathlib').Path('{planted}').touch()\\\\2\\end{pmatrix}",
        "[open('{planted}','w'),2]",
        "\\sqrt{__import__('os').system('touch {planted}')}",
        "\\input{planted}\\immediate\\write18{touch {planted}}",
    ],
)
@pytest.mark.parametrize("gold", ["5", "\\pi", "x^2+1", "\\begin{pmatrix}1\\\\2\\end{pmatrix}", "[1,2]"])
def test_code_in_an_answer_does_not_run_and_does_not_pass(answer: str, gold: str, tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    assert not judge_answer(answer.replace("{planted}", str(planted)), gold)
    assert not planted.exists()


@pytest.mark.parametrize("gold", ["42", "x^2+1"])
@pytest.mark.parametrize("answer", TOWERS.values(), ids=TOWERS)
def test_a_value_too_large_to_look_at_is_never_evaluated(answer: str, gold: str) -> None:
    # It is wrong where its size alone rules the gold out, else undecided.
    assert compare_answer(f"\\boxed{{{answer}}}", gold) in (TOO_COMPLEX, MISMATCH)


@pytest.mark.parametrize("answer", TOWERS.values(), ids=TOWERS)
def test_a_gold_too_large_to_look_at_is_compared_as_text(answer: str) -> None:
    assert judge_answer(answer, answer) is True
    assert compare_answer("\\boxed{42}", answer) == TOO_COMPLEX


@pytest.mark.parametrize("answer", MASSES.values(), ids=MASSES)
def test_a_mass_of_parts_is_undecided_or_wrong_without_algebra(answer: str) -> None:
    found = compare_answer(f"\\boxed{{{answer}}}", "x^2+1")
    assert isinstance(found, Decided)
    assert not found.equal


@pytest.mark.parametrize("answer", SETTLED_BY_ALGEBRA)
def test_what_the_guards_let_through_is_settled(answer: str) -> None:
    assert isinstance(compare_answer(f"\\boxed{{{answer}}}", "x^2+1"), Symbolic)
    assert judge_answer(answer, "x^2+1") is False


@pytest.mark.parametrize(
    "response",
    [
        "{" * 20_000,
        "\\boxed{" * 20_000,
        "\\boxed{" * 20_000 + "5}",
        "\\boxed{1} " * 1000,
        "$" * 50_000,
        "the answer is 5 " * 6000 + "\\boxed{6}",
        "x" * 10_000_000 + "\\boxed{6}",
        "\\boxed{5}" + "x" * 10_000_000,
        "<think>" * 10_000 + "\\boxed{5}",
        "#" * 100_000 + "6",
    ],
    ids=range(10),
)
def test_a_long_response_is_read_from_its_end_and_wrong(response: str) -> None:
    found = compare_answer(response, "5")
    assert isinstance(found, Decided)
    assert not found.equal or extract_answer(response) == "5"


def test_a_long_response_with_the_right_box_at_its_end_is_right() -> None:
    assert judge("x{" * 5_000_000 + "\\boxed{5}", "5") is True


def test_a_hundred_thousand_digits_are_compared_to_the_last() -> None:
    gold = "7" * 100_000
    assert judge_answer(gold, gold) is True
    assert judge_answer(gold[:-1] + "8", gold) is False
    assert judge_answer("-" + gold, gold) is False
    assert judge_answer(gold + "7", gold) is False


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("\uff11\uff12", "12"),
        ("\u0661\u0662", "12"),
        ("\u200f12\u200e", "12"),
        ("1\u200d2", "12"),
        ("1\u200b2", "12"),
        ("\ufeff12", "12"),
        ("\u221212", "-12"),
        ("12\u00a0", "12"),
        ("x\u00b2", "x^2"),
        ("\u00bd", "1/2"),
    ],
)
def test_digits_of_other_scripts_and_invisible_marks_are_read_as_what_they_show(answer: str, gold: str) -> None:
    assert judge_answer(answer, gold) is True


@pytest.mark.parametrize(
    "answer",
    [
        "\u2460",
        "\u216b",
        "\u00b2",
        "\ud835\udfcf",
        "\u0bf2",
        "\U0001d7d3\U0001d7d3",
        "\x00",
        "\x1b[31m6",
        "\u4e94",
        "\ud800",
    ],
    ids=range(10),
)
def test_odd_characters_are_never_an_exception(answer: str) -> None:
    assert judge_answer(answer, "5") is False


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        (" ".join(f"\\boxed{{{value}}}" for value in range(6)), "5"),
        (", ".join(f"\\boxed{{{value}}}" for value in range(6)), "5"),
        ("\\boxed{5}\\boxed{6}", "5"),
        ("\\boxed{5}\\boxed{6}", "6"),
        ("\\boxed{5} or \\boxed{6}", "6"),
        ("\\boxed{5}$ or $\\boxed{6}", "6"),
        ("\\boxed{A}, \\boxed{B}, \\boxed{C}", "C"),
        ("\\boxed{\\boxed{5}, \\boxed{6}}", "6"),
    ],
)
def test_many_boxes_do_not_pass_for_a_single_value(response: str, gold: str) -> None:
    assert judge(response, gold) is False


@pytest.mark.parametrize(
    "answer",
    [
        *("5 or 6", "6 or 5", "1,2,3,4,5", "x=5 \\lor x=6", "5 \\lor 6", "3=5", "5=3", "x=4=5", "\\pm5", "\\mp 5"),
        *("not 5", "\\text{not }5", "\\neg 5", "\\ne 5", "x\\ne5", "5?", "5!", "\\{5,6\\}", "5;6", "5/6", "5|6"),
        *(
            "\\text{5 or 6}",
            "5\\text{, maybe }6",
            "\\approx 5.2",
            "5\\pm1",
            "<6",
            "\\ge5",
            "[5,6]",
            "\\text{at least }5",
        ),
        *("5\\text{ or more}", "5 \\quad 6", "\\max(5,x)", "5x^0x", "\\begin{pmatrix}5\\\\5\\end{pmatrix}"),
    ],
)
def test_a_hedge_is_wrong(answer: str) -> None:
    assert judge_answer(answer, "5") is False


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("2x+1=5", "2"),
        ("2x+1=5", "x=2"),
        ("x^2=4", "\\{-2,2\\}"),
        ("x^2-5x+6=0", "2,3"),
        ("2x<6", "x<3"),
        ("2x<6", "(-\\infty,3)"),
        ("x^2<4", "(-2,2)"),
        ("|x-1|<3", "-2<x<4"),
        ("\\int_0^1 x^2\\,dx", "\\frac13"),
        ("\\lim_{x\\to0}\\frac{\\sin x}{x}", "1"),
        ("\\sum_{k=1}^{100}k", "5050"),
        ("\\prod_{k=1}^{5}k", "120"),
        ("\\frac{d}{dx}x^2", "2x"),
        ("f(x)", "f(x)=x^2"),
        ("x=x", "x=5"),
        ("y=y", "y=2x+1"),
        ("0=0", "x+y=1"),
    ],
)
def test_the_question_again_is_not_its_answer(answer: str, gold: str) -> None:
    assert judge_answer(answer, gold) is False


@pytest.mark.parametrize(
    "tail", ["& \\sqrt3", "] 5", "\\foo 7", "% \\sqrt3", "\\%", ": 3", "\\to 3", "\\Rightarrow 3", "\\sim 3"]
)
def test_what_follows_an_answer_is_not_overlooked(tail: str) -> None:
    assert judge_answer(f"\\sqrt2 {tail}", "\\sqrt2") is False


def test_with_the_flag_only_the_form_of_the_gold_counts() -> None:
    restated = frozenset({GOLD_RESTATES_QUESTION})
    assert judge_answer("x<3", "(-\\infty,3)", restated) is False
    assert judge_answer("2x+3y=6", "4x+6y=12", restated) is False
    assert judge_answer("x+y<2", "2x+2y<4", restated) is False
    assert judge_answer("(-\\infty,3)", "(-\\infty,3)", restated) is True


@pytest.mark.parametrize("answer", ["", " ", "\\ ", "{}", "$$", "\\text{ }", ".", ",", "\\,", "\\left.\\right."])
def test_an_empty_answer_is_wrong(answer: str) -> None:
    assert judge_answer(answer, "0") is False


@pytest.mark.parametrize("gold", ["", "  ", "\\boxed{}", "$$", ".", "####", "{}", "\\,", "???", "\\text{}"])
def test_a_gold_with_nothing_in_it_is_refused_whatever_the_answer(gold: str) -> None:
    for answer in ("5", gold):
        with pytest.raises(InvalidInput, match="drop the problem"):
            compare_answer(f"\\boxed{{{answer}}}", gold)


@pytest.mark.parametrize("gold", ["\\frac{1}{", "x^{2", "\\foo{\\bar"])
def test_a_gold_with_open_braces_is_refused_whatever_the_answer(gold: str) -> None:
    for answer in ("x^2+1", "5", ""):
        with pytest.raises(InvalidInput, match="do not close"):
            judge_answer(answer, gold)


@pytest.mark.parametrize("gold", ["\\foo x", "a\\bar b\\baz", "x \\mapsto 2", "\\Re z=1", "\\star\\star"])
def test_a_gold_that_the_parser_cannot_read_is_a_text_that_only_its_own_text_equals(gold: str) -> None:
    assert judge_answer(gold, gold) is True
    for answer in ("x^2+1", "5", "\\text{no idea}", "1,2"):
        assert judge_answer(answer, gold) is False


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        *[("1/2004!", "1/2006!"), ("10^{-10}", "0"), ("5.0001", "5"), ("10^6", "10^6+1"), ("e^{-60}", "e^{-50}")],
        *[("0.999999999", "1"), ("2^{1000}+1", "2^{1000}"), ("\\sqrt2+10^{-40}", "\\sqrt2"), ("10^{-400}", "0")],
        *[("e^{\\pi\\sqrt{163}}", "262537412640768744"), ("\\frac{355}{113}", "\\pi"), ("1e-400", "10^{-401}")],
        *[("500", "5"), ("0.05", "5"), ("5000", "50"), ("5", "5\\text{ thousand}"), ("-5", "5")],
        *[("(1,234)", "1234"), ("1 2", "12"), ("[1,2]", "(1,2)"), ("(1,2)", "[1,2]"), ("\\{1,2\\}", "(1,2)")],
        *[("12, 345", "12345"), ("(1)(2)", "(1,2)"), ("1,2", "(1,2)"), ("((1,2))", "(2,1)"), ("1|2", "(1,2)")],
    ],
)
def test_close_by_and_scaled_and_rebracketed_answers_are_wrong(answer: str, gold: str) -> None:
    assert judge_answer(answer, gold) is False


@pytest.mark.parametrize(
    ("answer", "gold", "equal"),
    [
        ("\\frac00", "5", False),
        ("\\frac{0}{0}", "\\frac{1}{0}", False),
        ("\\frac{5}{0}", "\\infty", False),
        ("\\infty-\\infty", "0", False),
        ("\\log 0", "-\\infty", False),
        ("\\frac{x}{0}", "x", False),
        ("\\tan\\frac{\\pi}{2}", "1", False),
        ("\\frac{x^2-1}{x-1}", "x+1", True),
        ("\\ln(-x^2)", "x", False),
        ("\\sqrt{-x^2}", "x", False),
        ("\\frac{1}{x-x}", "x", False),
    ],
)
def test_undefined_values_are_no_exception_and_equal_nothing(answer: str, gold: str, equal: bool) -> None:
    assert bool(judge_answer(answer, gold)) is equal


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("\\sin(\\pi n)", "0"),
        ("\\cos(2\\pi n)", "1"),
        ("|x|", "x"),
        ("\\sqrt{x^2}", "x"),
        ("x", "|x|"),
        ("\\lfloor x\\rfloor", "x"),
        ("x(x-1)(x-2)(x-3)+x", "x"),
        ("(-1)^{2n}", "1"),
        ("x^2", "x^2+10^{-30}"),
        ("10^{9999}+x", "10^{9999}+x+1"),
        ("10^{5000}+\\sqrt2", "10^{5000}+\\sqrt3"),
        ("2^{2022}-x+y\\le1", "2^{2022}-x+y\\le2"),
        ("\\max(x,-50)", "x"),
        ("|x+1000|-1000", "x"),
        ("\\max(x,0)", "x"),
        ("\\ln x^2", "2\\ln x"),
        ("x+\\lfloor\\frac{x}{10^6}\\rfloor", "x"),
    ],
)
def test_functions_that_agree_at_some_points_only_are_different(answer: str, gold: str) -> None:
    assert judge_answer(answer, gold) is False


@pytest.mark.parametrize(
    "name",
    [
        *("E", "I", "S", "N", "Q", "O", "C", "beta", "gamma", "zeta", "lambda", "pi", "oo", "zoo", "nan", "True"),
        *("\\beta", "\\gamma", "\\zeta", "\\lambda", "\\Gamma", "Symbol", "sympify", "None", "E1", "Pow"),
    ],
)
def test_names_that_mean_something_to_the_algebra_system_are_symbols(name: str) -> None:
    assert judge_answer(f"2{name}+1", f"1+2{name}") in (True, False)
    assert judge_answer(f"{name}+1", f"{name}+2") is False
    assert judge_answer(name, "5") is False


def test_letters_are_what_latex_makes_of_them_and_no_constants_of_the_algebra_system() -> None:
    assert judge_answer("E+2x", "2x+E") is True
    assert judge_answer("E", "e") is False
    assert judge_answer("I", "i") is False
    assert judge_answer("I^2", "-1") is False
    assert judge_answer("I^2R", "RI^2") is True
    assert judge_answer("\\Gamma(5)", "24") is True
    assert judge_answer("i^2", "-1") is True
    assert judge_answer("\\beta+\\gamma", "\\gamma+\\beta") is True


# ---------------------------------------------------------------- made against the grader


def _zero_at(points: Sequence[Fraction], symbol: str = "x") -> str:
    return "".join(f"({point.denominator}{symbol}-{point.numerator})" for point in points)


def test_a_term_that_is_zero_at_many_points_is_still_there() -> None:
    # Whatever points a grader looks at first, they are among small fractions.
    source = random.Random(7)
    for gold in ("x^2+1", "\\sin{x}", "\\frac{1}{x+5}", "e^x"):
        points = [Fraction(source.randint(3, 400), source.choice((97, 101, 103, 107, 109, 113))) for _ in range(8)]
        assert judge_answer(f"{gold}+{_zero_at(points)}", gold) is False


@pytest.mark.parametrize("wrong", ["5", "x+y", "\\text{Mr. Hilt}", "\\text{no idea}", "3:31", "1,2", "\\emptyset"])
@pytest.mark.parametrize(
    "gold",
    [
        *["3:30 p.m.", "25 (trees)", "0.1_2", "\\text{Mrs. Hilt}", "0.333\\ldots", "AB\\perp CD", "f\\circ g"],
        *["\\triangle ABC\\sim\\triangle DEF", "\\ell_1\\parallel\\ell_2"],
        "\\frac{dM}{dt}=\\frac{10^{5}L_{\\odot}}{7c^{2}}M^{6}",
    ],
)
def test_a_wrong_answer_to_a_readable_gold_fails_and_never_blames_the_gold(gold: str, wrong: str) -> None:
    assert judge_answer(gold, gold) is True
    assert judge_answer(wrong, gold) is False
