"""School problems from templates, with worked solutions: what a model of a hundred million parameters can learn on.

    Tom has 3 boxes with 7 marbles each and finds 4 more. How many marbles does Tom have now? Put the final answer in
    \\boxed{}.
    3 * 7 = 21.
    21 + 4 = 25.
    The answer is \\boxed{25}.

The trained families give training and held-out problems, which share no numbers. The hard families, with more steps or
other templates, are for evaluation only.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prime.types import Message, Problem

DATA_SOURCE = "school"
_REQUEST = "Put the final answer in \\boxed{}."
_MOST_TRIES = 10_000
_NAMES = ("Tom", "Mia", "Ben", "Lena", "Sam", "Nora", "Max", "Ella")
_THINGS = ("marbles", "apples", "books", "pens", "stickers", "coins", "cards", "shells")
_UNITS = (
    ("minutes", "hours", 60),
    ("seconds", "minutes", 60),
    ("days", "weeks", 7),
    ("hours", "days", 24),
    ("centimetres", "metres", 100),
    ("months", "years", 12),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchoolProblem:
    """One problem with its worked solution.

    Example: `SchoolProblem(family="sum", numbers=(47, 38), question="What is 47 + 38?", steps=("47 + 38 = 85.",),
    answer=85)`.
    """

    family: str
    numbers: tuple[int, ...]
    """What the template was filled with. Two problems of one family with the same numbers count as the same."""
    question: str
    steps: tuple[str, ...]
    answer: int

    @property
    def key(self) -> str:
        """Equal for two problems that count as the same."""
        return "-".join([self.family, *map(str, self.numbers)])

    @property
    def prompt(self) -> str:
        """The question, and where the answer goes."""
        return f"{self.question} {_REQUEST}"

    @property
    def solution(self) -> str:
        """The steps and the answer, a line each."""
        return "\n".join([*self.steps, f"The answer is \\boxed{{{self.answer}}}."])

    @property
    def problem(self) -> Problem:
        """As the trainer and the verifier read it."""
        return Problem(
            problem_id=f"{DATA_SOURCE}-{self.key}",
            data_source=DATA_SOURCE,
            ability="math",
            messages=(Message(role="user", content=self.prompt),),
            ground_truth=str(self.answer),
        )


def draw_school(
    count: int, *, seed: int, hard: bool = False, exclude: frozenset[str] = frozenset()
) -> list[SchoolProblem]:
    """`count` different problems, the families in turn, none of whose keys is in `exclude`.

    Raises:
        ValueError: a family has no more problems.
    """
    random_source = random.Random(seed)
    families = _HARD if hard else _TRAINED
    seen = set(exclude)
    drawn: list[SchoolProblem] = []
    while len(drawn) < count:
        family = families[len(drawn) % len(families)]
        tries = (family(random_source) for _ in range(_MOST_TRIES))
        problem = next((each for each in tries if each.key not in seen), None)
        if problem is None:
            raise ValueError(f"{count} problems were asked for, and {family.__name__} has none left after {len(drawn)}")
        seen.add(problem.key)
        drawn.append(problem)
    return drawn


def keys_of(problems: Sequence[SchoolProblem]) -> frozenset[str]:
    """The keys, to exclude them from another draw."""
    return frozenset(problem.key for problem in problems)


# ---------------------------------------------------------------- families that are trained on


def _sum(draw: random.Random) -> SchoolProblem:
    first, second = draw.randint(11, 30), draw.randint(2, 9)
    sign = draw.choice("+-")
    step, answer = _step(first, sign, second)
    return _make("sum", (first, _signed(sign, second)), f"What is {first} {sign} {second}?", [step], answer)


def _three_numbers(draw: random.Random) -> SchoolProblem:
    first, second, third = (draw.randint(*bounds) for bounds in ((19, 40), (2, 9), (2, 9)))
    signs = draw.choice(("+-", "-+", "++", "--"))
    one, between = _step(first, signs[0], second)
    two, answer = _step(between, signs[1], third)
    question = f"What is {first} {signs[0]} {second} {signs[1]} {third}?"
    return _make("three", (first, _signed(signs[0], second), _signed(signs[1], third)), question, [one, two], answer)


def _product(draw: random.Random) -> SchoolProblem:
    factor, number = draw.randint(2, 9), draw.randint(3, 16)
    steps, answer = _multiply(factor, number)
    return _make("product", (factor, number), f"What is {factor} * {number}?", steps, answer)


def _more_or_fewer(draw: random.Random) -> SchoolProblem:
    name, thing = draw.choice(_NAMES), draw.choice(_THINGS)
    first, second = draw.randint(11, 30), draw.randint(2, 9)
    sign = draw.choice("+-")
    act = f"gets {second} more" if sign == "+" else f"gives {second} away"
    question = f"{name} has {first} {thing} and {act}. How many {thing} does {name} have now?"
    step, answer = _step(first, sign, second)
    return _make("word", (first, _signed(sign, second)), question, [step], answer)


def _boxes(draw: random.Random) -> SchoolProblem:
    name, thing = draw.choice(_NAMES), draw.choice(_THINGS)
    boxes, each, other = draw.randint(2, 5), draw.randint(2, 9), draw.randint(2, 6)
    sign = draw.choice("+-") if boxes * each > other else "+"
    act = f"finds {other} more" if sign == "+" else f"loses {other} of them"
    question = f"{name} has {boxes} boxes with {each} {thing} each and {act}. How many {thing} does {name} have now?"
    one, between = _step(boxes, "*", each)
    two, answer = _step(between, sign, other)
    return _make("boxes", (boxes, each, _signed(sign, other)), question, [one, two], answer)


def _compare(draw: random.Random) -> SchoolProblem:
    factor, number, first = draw.randint(2, 5), draw.randint(2, 9), draw.randint(11, 30)
    second = draw.randint(2, 9)
    if first + second == factor * number:
        second += 1
    one, product = _step(factor, "*", number)
    two, total = _step(first, "+", second)
    word = draw.choice(("larger", "smaller"))
    answer = max(product, total) if word == "larger" else min(product, total)
    question = f"Which is {word}, {factor} * {number} or {first} + {second}?"
    numbers = (factor, number, first, second, 1 if word == "larger" else 0)
    return _make("compare", numbers, question, [one, two], answer)


def _rounding(draw: random.Random) -> SchoolProblem:
    number, unit = draw.randint(101, 299), draw.choice((10, 100))
    below = number // unit * unit
    answer = below if number - below < unit - (number - below) else below + unit
    question = f"Round {number} to the nearest {'ten' if unit == 10 else 'hundred'}."
    steps = [f"{number} is between {below} and {below + unit}.", f"{number} is nearer to {answer}."]
    if 2 * (number - below) == unit:
        steps[1] = f"{number} is half way, so it is rounded up."
    return _make("round", (number, unit), question, steps, answer)


def _units(draw: random.Random) -> SchoolProblem:
    small, large, factor = draw.choice(_UNITS)
    count, more = draw.randint(2, 5), draw.randint(1, min(factor - 1, 12))
    question = f"How many {small} are {count} {large} and {more} {small}?"
    one, between = _step(count, "*", factor)
    two, answer = _step(between, "+", more)
    # Minutes in hours and seconds in minutes are the same sum.
    return _make("units", (factor, count, more), question, [one, two], answer)


# ---------------------------------------------------------------- families that are not trained on


def _four_numbers(draw: random.Random) -> SchoolProblem:
    numbers = [draw.randint(28, 40), *(draw.randint(2, 9) for _ in range(3))]
    signs = [draw.choice("+-") for _ in range(3)]
    steps, total, question = [], numbers[0], f"What is {numbers[0]}"
    for sign, number in zip(signs, numbers[1:], strict=True):
        question += f" {sign} {number}"
        step, total = _step(total, sign, number)
        steps.append(step)
    signed = (numbers[0], *(_signed(sign, number) for sign, number in zip(signs, numbers[1:], strict=True)))
    return _make("four", signed, f"{question}?", steps, total)


def _shopping(draw: random.Random) -> SchoolProblem:
    name, thing = draw.choice(_NAMES), draw.choice(_THINGS)
    count, price = draw.randint(2, 5), draw.randint(3, 9)
    one, total = _step(count, "*", price)
    paid = total // 10 * 10 + 10 * draw.randint(1, 4)
    two, answer = _step(paid, "-", total)
    question = (
        f"{name} buys {count} {thing} for {price} dollars each and pays with {paid} dollars. How many dollars does "
        f"{name} get back?"
    )
    return _make("shopping", (count, price, paid), question, [one, two], answer)


def _journey(draw: random.Random) -> SchoolProblem:
    hours, speed, more = draw.randint(2, 5), draw.randint(11, 16), draw.randint(2, 9)
    steps, first = _multiply(hours, speed)
    last, answer = _step(first, "+", more)
    question = (
        f"A cyclist rides {hours} hours at {speed} kilometres per hour and then walks {more} kilometres. How many "
        f"kilometres is that in all?"
    )
    return _make("journey", (hours, speed, more), question, [*steps, last], answer)


def _two_products(draw: random.Random) -> SchoolProblem:
    one_factor, one, two_factor, two = (draw.randint(*bounds) for bounds in ((3, 5), (4, 9), (2, 4), (2, 5)))
    first_step, first = _step(one_factor, "*", one)
    second_step, second = _step(two_factor, "*", two)
    sign = draw.choice("+-") if first > second else "+"
    last_step, answer = _step(first, sign, second)
    question = f"What is {one_factor} * {one} {sign} {two_factor} * {two}?"
    numbers = (one_factor, one, two_factor, _signed(sign, two))
    return _make("products", numbers, question, [first_step, second_step, last_step], answer)


_Family = Callable[[random.Random], SchoolProblem]
_TRAINED: tuple[_Family, ...] = (
    _sum,
    _three_numbers,
    _product,
    _more_or_fewer,
    _boxes,
    _compare,
    _rounding,
    _units,
)
_HARD: tuple[_Family, ...] = (_four_numbers, _shopping, _journey, _two_products)


# ---------------------------------------------------------------- steps


def _make(family: str, numbers: tuple[int, ...], question: str, steps: Sequence[str], answer: int) -> SchoolProblem:
    return SchoolProblem(family=family, numbers=numbers, question=question, steps=tuple(steps), answer=answer)


def _step(left: int, sign: str, right: int) -> tuple[str, int]:
    """The line and its result. Example: `_step(47, "+", 38)` is `("47 + 38 = 85.", 85)`."""
    match sign:
        case "+":
            result = left + right
        case "-":
            result = left - right
        case _:
            result = left * right
    return f"{left} {sign} {right} = {result}.", result


def _multiply(factor: int, number: int) -> tuple[list[str], int]:
    """Tens and ones apart: `4 * 23` is `4 * 20 = 80.`, `4 * 3 = 12.`, `80 + 12 = 92.`"""
    if number < 10 or number % 10 == 0:
        step, result = _step(factor, "*", number)
        return [step], result
    one, tens = _step(factor, "*", number // 10 * 10)
    two, ones = _step(factor, "*", number % 10)
    three, result = _step(tens, "+", ones)
    return [one, two, three], result


def _signed(sign: str, number: int) -> int:
    return -number if sign == "-" else number
