"""Answers to grade, made from a seed: programs, a realistic mix of mathematics, and what is meant to stall a grader."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from prime.types import GradeItem

SAMPLES_PER_PROBLEM = 4
# Rows of the denial-of-service list; every one of them costs Math-Verify seconds, and some go on for ever.
POISON = (
    "10^{10^{10}}",
    "9^{9^{9^9}}",
    "1000000!",
    "(10^9)!",
    "2^{10^9}",
    "\\binom{10^9}{5\\cdot10^8}",
    "\\sum_{i=1}^{10^{12}} 1/i",
    "(x+1)^{5000}",
    "(x+y+z+w)^{60}",
    "\\sin(10^{10^6})",
    "10^{10^{10}}-10^{10^{10}}+1",
    "e^{e^{e^{e^e}}}",
    "(1/3)^{10^8}",
    "7777777^{7777777}",
    "\\lfloor\\pi^{10^6}\\rfloor",
    "(" * 2000 + "1" + ")" * 2000,
    "\\{" + ",".join(map(str, range(3000))) + "\\}",
    "\\(" * 15000,
    "\\sqrt{" * 300 + "2" + "}" * 300,
    "\\frac{1}{1+" * 200 + "1" + "}" * 200,
    "+".join(f"x^{{{n}}}" for n in range(5000)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A mathematics answer beside its gold."""

    answer: str
    gold: str


def math_item(pair: Pair) -> GradeItem:
    """The pair as a response, with some words before the box."""
    response = f"Let us see. We find that the result is as follows.\n\nThe answer is \\boxed{{{pair.answer}}}."
    return GradeItem(
        item_id="m", data_source="numina", ability="math", response=response, ground_truth=pair.gold, kind="math"
    )


def code_item(source: str, inputs: list[str], outputs: list[str]) -> GradeItem:
    """A program with its tests."""
    return GradeItem(
        item_id="p",
        data_source="taco",
        ability="code",
        response=f"```python\n{source}\n```",
        ground_truth=json.dumps({"inputs": inputs, "outputs": outputs}),
    )


def additions(count: int, tests: int, seed: int) -> list[GradeItem]:
    """Right programs that read two numbers and print their sum; no two are the same."""
    source = random.Random(seed)
    items = []
    for number in range(count):
        pairs = [(source.randint(0, 10**6), source.randint(0, 10**6)) for _ in range(tests)]
        program = f"a, b = map(int, input().split())\nprint(a + b)  # {seed}.{number}"
        items.append(code_item(program, [f"{a} {b}\n" for a, b in pairs], [f"{a + b}\n" for a, b in pairs]))
    return items


def mathematics(count: int, seed: int) -> list[Pair]:
    """Golds with several answers each; three golds of four need no algebra, as in competitions."""
    source = random.Random(seed)

    def problem() -> Problem:
        kind = source.random()
        return _plain(source) if kind < 0.6 else _of_some_form(source) if kind < 0.75 else _symbolic(source)

    return _answered(source, count, problem)


def plain_mathematics(count: int, seed: int) -> list[Pair]:
    """The kinds that a fast path is for: numbers in every spelling, choices, tuples and sets of these."""
    source = random.Random(seed)
    return _answered(source, count, lambda: _plain(source))


Problem = tuple[str, str, str]
"""A gold, a right answer and a wrong one."""


def _answered(source: random.Random, count: int, problem: Callable[[], Problem]) -> list[Pair]:
    pairs: list[Pair] = []
    while len(pairs) < count:
        gold, right, wrong = problem()
        answers = [right if source.random() < 0.6 else wrong for _ in range(SAMPLES_PER_PROBLEM)]
        pairs += [Pair(answer=answer, gold=gold) for answer in answers]
    return pairs[:count]


def _plain(source: random.Random) -> Problem:
    a, b, c = (source.randint(2, 999) for _ in range(3))
    # Whole numbers are as frequent as in the answers of MATH: about one in two.
    if source.random() < 0.5:
        return source.choice([(str(a), str(a), str(a + 1)), (f"-{a}", f"-{a}", str(a))])
    return source.choice(
        [
            (str(1000 * a + b), f"{1000 * a + b:,}", str(b)),
            (f"\\frac{{{a}}}{{{b}}}", f"\\dfrac{{{a}}}{{{b}}}", f"\\frac{{{b}}}{{{a + 1}}}"),
            (f"{a}.5", f"\\frac{{{2 * a + 1}}}{{2}}", f"{a}.25"),
            (f"{a}\\%", f"{a}", f"{a + 1}\\%"),
            ("C", "(C)", "B"),
            (f"({a},{b})", f"({a}, {b})", f"({b + 1}, {a})"),
            (f"{a}, {b}, {c}", f"{c}, {b}, {a}", f"{a}, {b}"),
        ]
    )


def _of_some_form(source: random.Random) -> Problem:
    a, b = (source.randint(2, 999) for _ in range(2))
    return source.choice(
        [
            (str(a), f"{a}\\text{{ cm}}^2", f"{b + 1000}\\text{{ cm}}^2"),
            ("C", "\\textbf{(C)}\\ 12", "\\textbf{(B)}\\ 13"),
            (f"[{a},\\infty)", f"x \\ge {a}", f"x > {a}"),
            (f"x={a}", str(a), f"x={a + 1}"),
        ]
    )


def _symbolic(source: random.Random) -> Problem:
    a, b = (source.randint(2, 999) for _ in range(2))
    small = a % 9 + 1
    return source.choice(
        [
            (f"x^2+{2 * a}x+{a * a}", f"(x+{a})^2", f"(x+{a})^2+1"),
            (f"{a}\\sqrt{{3}}", f"\\sqrt{{{3 * a * a}}}", f"\\sqrt{{{3 * a * a + 1}}}"),
            (f"\\frac{{{a}\\pi}}{{{b}}}", f"{a}\\pi/{b}", f"\\frac{{{a}\\pi}}{{{b + 1}}}"),
            (f"2^{{n+{small}}}", f"{2**small}\\cdot2^n", f"2^{{n-{small}}}"),
            (f"\\frac{{{a}}}{{\\sqrt{{2}}}}", f"\\frac{{{a}\\sqrt{{2}}}}{{2}}", f"\\frac{{{a}\\sqrt{{2}}}}{{3}}"),
            (f"y={a}x+{b}", f"{a}x-y+{b}=0", f"y={a}x-{b}"),
        ]
    )
