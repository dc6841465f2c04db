"""The school problems: by hand, against an independent calculation, and that the parts share nothing."""

import random
import re
from collections import Counter

import pytest

from prime.data import school
from prime.data.school import SchoolProblem, draw_school, keys_of
from prime.types import Message

ALL = [*draw_school(800, seed=5), *draw_school(400, seed=6, hard=True)]


def _by_family(family: str) -> list[SchoolProblem]:
    return [problem for problem in ALL if problem.family == family]


# ---------------------------------------------------------------- by hand


def test_a_problem_by_hand() -> None:
    problem = draw_school(3, seed=7)[2]
    assert problem.prompt == "What is 7 * 12? Put the final answer in \\boxed{}."
    assert problem.solution == "7 * 10 = 70.\n7 * 2 = 14.\n70 + 14 = 84.\nThe answer is \\boxed{84}."
    assert problem.key == "product-7-12"
    row = problem.problem
    assert (row.data_source, row.ability, row.ground_truth) == ("school", "math", "84")
    assert row.messages == (Message(role="user", content=problem.prompt),)


@pytest.mark.parametrize(
    ("number", "unit", "answer"), [(625, 10, 630), (624, 10, 620), (626, 10, 630), (1250, 100, 1300), (949, 100, 900)]
)
def test_rounding_by_hand(number: int, unit: int, answer: int) -> None:
    class Fixed(random.Random):
        def randint(self, a: int, b: int) -> int:
            return number

        def choice(self, seq: object) -> int:  # type: ignore[override]
            return unit

    assert school._rounding(Fixed()).answer == answer


# ---------------------------------------------------------------- answers, calculated another way


@pytest.mark.parametrize("problem", ALL, ids=lambda problem: problem.key)
def test_every_step_is_right_and_the_last_one_gives_the_answer(problem: SchoolProblem) -> None:
    lines = problem.solution.split("\n")
    assert lines[-1] == f"The answer is \\boxed{{{problem.answer}}}."
    assert problem.answer >= 0
    equations = [line.removesuffix(".").split(" = ") for line in lines[:-1] if " = " in line]
    for left, right in equations:
        assert _value(left) == int(right)
    if problem.family not in ("compare", "round"):
        assert int(equations[-1][1]) == problem.answer


def test_sums_and_products_have_the_value_of_the_question() -> None:
    for family in ("sum", "three", "product", "four", "products"):
        for problem in _by_family(family):
            expression = problem.question.removeprefix("What is ").removesuffix("?")
            assert _value(expression) == problem.answer, problem.question


def test_comparisons_name_the_larger_or_the_smaller_side() -> None:
    for problem in _by_family("compare"):
        found = re.fullmatch(r"Which is (larger|smaller), (.+) or (.+)\?", problem.question)
        assert found is not None
        sides = sorted(map(_value, found.groups()[1:]))
        assert problem.answer == (sides[1] if found[1] == "larger" else sides[0])
        assert sides[0] != sides[1]


def test_rounding_goes_to_the_nearest_and_half_goes_up() -> None:
    for problem in _by_family("round"):
        number, unit = problem.numbers
        assert problem.answer == int(number / unit + 0.5) * unit


def test_word_problems_use_the_numbers_of_their_text() -> None:
    for family, expression in (
        ("word", "{0} + {1}"),
        ("boxes", "{0} * {1} + {2}"),
        ("units", "{0} * {1} + {2}"),
        ("shopping", "{2} - {0} * {1}"),
        ("journey", "{0} * {1} + {2}"),
    ):
        for problem in _by_family(family):
            assert _value(expression.format(*problem.numbers).replace("+ -", "- ")) == problem.answer
            in_text = Counter(map(int, re.findall(r"\d+", problem.question)))
            numbers = problem.numbers[1:] if family == "units" else problem.numbers
            assert in_text == Counter(map(abs, numbers))


def _value(expression: str) -> int:
    """Left to right with products first, by a small reader of its own."""
    total = 0
    for sign, term in re.findall(r"([+-]?) ?((?:\d+)(?: \* \d+)*)", expression):
        product = 1
        for factor in term.split(" * "):
            product *= int(factor)
        total += -product if sign == "-" else product
    return total


# ---------------------------------------------------------------- draws


def test_a_draw_repeats_from_its_seed() -> None:
    assert draw_school(64, seed=7) == draw_school(64, seed=7)
    assert draw_school(64, seed=7) != draw_school(64, seed=8)


def test_families_take_turns() -> None:
    assert set(Counter(problem.family for problem in draw_school(80, seed=1)).values()) == {10}
    assert set(Counter(problem.family for problem in draw_school(80, seed=1, hard=True)).values()) == {20}


def test_parts_share_no_problem() -> None:
    held_out = draw_school(160, seed=1)
    train = draw_school(512, seed=2, exclude=keys_of(held_out))
    assert len(keys_of(held_out)) == 160
    assert len(keys_of(train)) == 512
    assert not keys_of(held_out) & keys_of(train)


def test_a_family_without_problems_left_is_named() -> None:
    with pytest.raises(ValueError, match=r"_product has none left after 89\d"):
        draw_school(1000, seed=1)


def test_hard_families_are_none_that_are_trained_on() -> None:
    trained = {problem.family for problem in draw_school(80, seed=1)}
    assert not trained & {problem.family for problem in draw_school(80, seed=1, hard=True)}
