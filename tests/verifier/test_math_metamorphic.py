"""Other spellings of the same pair: the verdict must stay what it was, whichever it was."""

import random
import re
from collections.abc import Callable

import pytest

from services.verifier.mathematics.forms import read_list
from services.verifier.mathematics.text import normalise
from tests.verifier.math_judge import judge, judge_answer
from tests.verifier.math_pairs import PAIRS
from tests.verifier.pair import Pair

# Those seen from outside are unusual spellings already, which do not bear another one.
BOXED = [pair for pair in PAIRS if not pair.is_response and pair.row != "seen from outside"]
_SEED = 20240229


def spaced(text: str) -> str:
    # Behind a comma before three digits a space has a meaning of its own.
    return re.sub(r"(?<![\\_^{])([<>]?=|[<>+(\[]|,(?!\d{3}))", r" \1 ", text)


def thinly_spaced(text: str) -> str:
    return re.sub(r"(?<![\\_^])([<>]?=|[<>+])", r"\\,\1\\;", text)


def with_display_fractions(text: str) -> str:
    return text.replace("\\frac", "\\dfrac")


def with_text_fractions(text: str) -> str:
    return text.replace("\\frac", "\\tfrac")


def braced(text: str) -> str:
    return f"{{{text}}}"


def in_dollars(text: str) -> str:
    return f"${text}$"


def in_parentheses_of_latex(text: str) -> str:
    return f"\\({text}\\)"


def with_stretched_brackets(text: str) -> str:
    text = re.sub(r"\\left|\\right(?![a-z])", "", text)
    return re.sub(r"\\\}|[)\]]", r"\\right\g<0>", re.sub(r"\\\{|(?<!\\)(?<!sqrt)[(\[]", r"\\left\g<0>", text))


def with_unicode_minus(text: str) -> str:
    return text.replace("-", "\u2212")


def with_a_full_stop(text: str) -> str:
    return text + "."


def displayed(text: str) -> str:
    return "\\displaystyle " + text


def with_braced_exponents(text: str) -> str:
    return re.sub(r"\^(\w)", r"^{\1}", text)


SPELLINGS: list[Callable[[str], str]] = [
    spaced,
    thinly_spaced,
    with_display_fractions,
    with_text_fractions,
    braced,
    in_dollars,
    in_parentheses_of_latex,
    with_stretched_brackets,
    with_unicode_minus,
    with_a_full_stop,
    displayed,
    with_braced_exponents,
]


def is_touched(spelling: Callable[[str], str], pair: Pair) -> bool:
    """Whether the spelling says something new about this answer; words and LaTeX environments are not formulas."""
    if spelling(pair.answer) == pair.answer or not pair.answer.strip():
        return False
    if re.search(r"\\(?:text|begin|[()\[\]!,]|big)|\$|^-$", pair.answer):
        return spelling in (braced, with_a_full_stop, with_display_fractions, with_text_fractions)
    return True


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_another_spelling_of_the_answer_changes_no_verdict(spelling: Callable[[str], str]) -> None:
    changed = []
    for pair in BOXED:
        if not is_touched(spelling, pair):
            continue
        answer = spelling(pair.answer)
        # The same normal form gets the same verdict; only the others need a look.
        if normalise(answer) != normalise(pair.answer):
            verdict = judge_answer(answer, pair.gold, pair.options)
            if verdict is not pair.equal:
                changed.append((answer, pair.gold, verdict))
    assert not changed


@pytest.mark.parametrize("spelling", [braced, in_dollars, with_display_fractions, with_stretched_brackets])
def test_another_spelling_of_the_gold_changes_no_verdict(spelling: Callable[[str], str]) -> None:
    changed = []
    for pair in BOXED:
        gold = spelling(pair.gold)
        if gold == pair.gold or re.search(r"\\(?:text|begin|[()\[\]!,]|big|boxed)|\$", pair.gold):
            continue
        if normalise(gold) != normalise(pair.gold):
            verdict = judge_answer(pair.answer, gold, pair.options)
            if verdict is not pair.equal:
                changed.append((pair.answer, gold, verdict))
    assert not changed


def test_the_items_of_a_set_may_come_in_any_order() -> None:
    source, changed = random.Random(_SEED), []
    for pair in BOXED:
        listing = read_list(normalise(pair.answer))
        if listing is None or not listing.items or listing.brackets or "\\text" in pair.answer or "\\pm" in pair.answer:
            continue
        items = list(listing.items)
        source.shuffle(items)
        in_braces = normalise(pair.answer).startswith("\\{")
        answer = "\\{" + ", ".join(items) + "\\}" if in_braces else ", ".join(items)
        # `x=2,-3` and `x\\ne2,3` name the first of their items only.
        if any(sign in pair.answer and not all(sign in item for item in items) for sign in ("=", "\\ne")):
            continue
        verdict = judge_answer(answer, pair.gold, pair.options)
        if verdict is not pair.equal and not pair.gold.startswith("("):
            changed.append((answer, pair.gold, verdict))
    assert not changed


def test_answer_and_gold_may_change_places_where_the_policy_is_symmetric() -> None:
    swapped = [
        (pair.gold, pair.answer, verdict)
        for pair in BOXED
        if pair.symmetric and (verdict := judge_answer(pair.gold, pair.answer, pair.options)) is not pair.equal
    ]
    assert not swapped


def test_what_stands_before_the_box_changes_no_verdict() -> None:
    before = "<think>First \\boxed{0}, then $\\boxed{\\frac{1}{2}}$.</think> With {braces} and \\{sets\\} we get: "
    changed = [
        (pair.answer, pair.gold)
        for pair in BOXED[::3]
        if judge(f"{before}$$\\boxed{{{pair.answer}}}$$", pair.gold, pair.options) is not pair.equal
    ]
    assert not changed


def test_every_answer_equals_itself() -> None:
    unequal = [
        pair.gold
        for pair in PAIRS
        if "boxed" not in pair.gold and judge_answer(pair.gold, pair.gold, pair.options) is not True
    ]
    assert not unequal
