"""Compares mathematical answers without any algebra system, as far as that goes. Pure; called by `grade.py`.

response ──extract──► answer ──normal form──┬─ plain numbers and equal texts: decided at once
ground truth ──────── gold (kept by text) ──┤
                                            ├─ too costly to look at (`guards`, `magnitude`): undecided
                                            └─ form by form (`policy.py`): decided, or a question for `MathPool`
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from prime.errors import InvalidInput
from services.verifier.mathematics.extract import extract_answer, extract_boxes
from services.verifier.mathematics.forms import is_several, read_choice
from services.verifier.mathematics.guards import LONGEST, is_too_large
from services.verifier.mathematics.magnitude import is_too_big
from services.verifier.mathematics.options import check_options
from services.verifier.mathematics.policy import Policy
from services.verifier.mathematics.question import All, Decided, Symbolic
from services.verifier.mathematics.rationals import Number, Numbers, read_number, read_numbers
from services.verifier.mathematics.reach import is_out_of_reach
from services.verifier.mathematics.rules import TooManyToMatch
from services.verifier.mathematics.text import is_prose, is_words, normalise, same_text
from services.verifier.mathematics.units import split_unit

__all__ = ["Decided", "Symbolic", "compare_answer", "extract_answer"]

_EXACT = Decided(equal=True, reason="exact")
_MISMATCH = Decided(equal=False, reason="mismatch")
_NO_ANSWER = Decided(equal=False, reason="no_answer")
_TOO_COMPLEX = Decided(equal=None, reason="too_complex")
_NO_OPTIONS: frozenset[str] = frozenset()

_CROSSED_OUT = re.compile(r"\\(?:[bx]?cancel(?:to)?|sout|st|not)(?![a-zA-Z])")
_PARTS = re.compile(r"[,;=<>:]|\\(?:le|ge|ne|in)(?![a-zA-Z])|\\text\{[^{}]*\}|\\%|%|\b(?:or|and)\b")
_SHORT_WORDS = re.compile(r"\\(?:begin|end)\{[a-z]+\}|\\text\{.{0,3}\}")
_WORD = re.compile(r"\\text|(?<![\\a-zA-Z])[a-zA-Z][a-z]{3,}")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_KEPT_GOLDS = 8192
_LONGEST_KEPT = 4096


def compare_answer(response: str, ground_truth: str, options: frozenset[str] = _NO_OPTIONS) -> Decided | Symbolic:
    """Compare the final answer of a response with the ground truth.

    `options` are names of `options.MATH_OPTIONS`.

    Raises:
        InvalidInput: the ground truth holds nothing to compare with, or an option is unknown.
    """
    policy = _policy(options)
    gold = _gold(ground_truth) if len(ground_truth) <= _LONGEST_KEPT else _read_gold(ground_truth)
    boxes = extract_boxes(response)
    if not boxes:
        return _NO_ANSWER
    if any("~~" in box for box in boxes):
        return _MISMATCH  # crossed out, in Markdown
    if len(boxes) > 1:
        return _compare_boxes(boxes, gold, policy)
    answer = boxes[0].strip()
    if answer == gold.text:
        return _EXACT
    if gold.integer and answer.isdigit() and answer.isascii():
        # Text for text, as long as the numbers are; Python refuses to convert very long ones.
        return _EXACT if (answer.lstrip("0") or "0") == gold.integer else _MISMATCH
    answer = normalise(answer)
    if not answer:
        return _NO_ANSWER
    if answer == gold.text:
        return _EXACT
    if gold.integer and _INTEGER.fullmatch(answer):
        return _EXACT if _stripped_integer(answer) == gold.integer else _MISMATCH
    return _compare(answer, gold, policy)


def _compare_boxes(boxes: Sequence[str], gold: "_Gold", policy: Policy) -> Decided | Symbolic:
    """Several boxes that belong together: the same answer again and again, or the parts of a list."""
    answers = [answer for answer in dict.fromkeys(normalise(box.strip()) for box in boxes) if answer]
    if not answers:
        return _NO_ANSWER
    each = [_compare(answer, gold, policy) for answer in answers]
    if all(found == _EXACT for found in each):
        return _EXACT
    if len(each) > 1 and is_several(gold.text):
        return _compare(_joined(answers, gold), gold, policy)
    for found in each:
        if isinstance(found, Decided) and not found.equal:
            return found
    open_questions = [found.question for found in each if isinstance(found, Symbolic)]
    return Symbolic(gold=gold.text, answer=",".join(answers), question=All(of=tuple(open_questions)))


def _joined(answers: Sequence[str], gold: "_Gold") -> str:
    """The parts as one answer, put together as the parts of the gold are."""
    if "\\cup" in gold.text:
        return "\\cup".join(answers)
    are_conditions = all(re.search(r"[<>]|\\(?:le|ge)(?![a-zA-Z])", answer) for answer in answers)
    return (" and " if are_conditions else ",").join(answers)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gold:
    text: str
    integer: str
    """The digits without leading zeros when it is a whole number, else empty."""
    number: Number | None
    numbers: Numbers | None
    choice: str | None
    is_words: bool
    has_words: bool
    too_complex: bool


def _read_gold(ground_truth: str) -> _Gold:
    text = normalise(_unwrapped(ground_truth))
    if not re.search(r"\w|\\emptyset|\\infty|\\\{ ?\\\}", text.replace("\\dots", "")):
        raise InvalidInput(
            f"ground truth {ground_truth[:40]!r} of a mathematics problem holds no number, letter or word; "
            "drop the problem"
        )
    if ground_truth.count("{") - ground_truth.count("\\{") != ground_truth.count("}") - ground_truth.count("\\}"):
        raise InvalidInput(
            f"ground truth {ground_truth[:40]!r} of a mathematics problem has braces that do not close; "
            "drop the problem"
        )
    return _Gold(
        text=text,
        integer=_stripped_integer(text) if _INTEGER.fullmatch(text) else "",
        number=read_number(text) if len(text) <= LONGEST else None,
        numbers=read_numbers(text) if len(text) <= LONGEST else None,
        choice=read_choice(text, is_gold=True) if len(text) <= LONGEST else None,
        is_words=is_words(text),
        has_words=_WORD.search(_SHORT_WORDS.sub("", split_unit(text)[0])) is not None,
        too_complex=is_too_large(text) or is_too_big(text),
    )


def _make_policy(options: frozenset[str]) -> Policy:
    check_options(options)
    return Policy(options)


_gold = lru_cache(maxsize=_KEPT_GOLDS)(_read_gold)
_policy = lru_cache(maxsize=256)(_make_policy)


def _unwrapped(ground_truth: str) -> str:
    # Data sets store the bare answer, a box, or a worked solution that ends in a box or a marker.
    if "\\boxed" in ground_truth or "####" in ground_truth:
        return extract_answer(ground_truth) or ""
    return ground_truth


def _stripped_integer(text: str) -> str:
    digits = text.lstrip("+-").lstrip("0") or "0"
    return "-" + digits if text.startswith("-") and digits != "0" else digits


def _compare(answer: str, gold: _Gold, policy: Policy) -> Decided | Symbolic:
    if same_text(answer, gold.text):
        return _EXACT
    if len(answer) <= LONGEST:
        settled = _compare_plainly(answer, gold, policy)
        if settled is not None:
            return _EXACT if settled else _MISMATCH
    if _is_another_kind(answer, gold):
        return _MISMATCH
    if gold.too_complex or is_too_large(answer) or is_too_big(answer):
        return _TOO_COMPLEX
    try:
        result = policy.compare(answer, gold.text)
    except (TooManyToMatch, RecursionError):
        return _TOO_COMPLEX
    if isinstance(result, bool):
        return _EXACT if result else _MISMATCH
    return Symbolic(gold=gold.text, answer=answer, question=result)


def _is_another_kind(answer: str, gold: _Gold) -> bool:
    """Whether no close look is needed: it is crossed out, a sentence, a number out of all proportion, no name."""
    if _CROSSED_OUT.search(answer) and not _CROSSED_OUT.search(gold.text):
        return True
    if not gold.has_words and is_prose(answer):
        return True
    parts = [answer, *(part.strip("()[]{} \\") for part in _PARTS.split(answer))]
    if any(is_out_of_reach(part, gold.text, gold_is_small=not gold.too_complex) for part in dict.fromkeys(parts)):
        return True
    # A name is its own text and nothing else.
    return gold.is_words and not re.search(r"\d", answer) and (is_too_large(answer) or is_too_big(answer))


def _compare_numbers(answer: Numbers | None, gold: Numbers) -> bool | None:
    if answer is None:
        return None
    if answer.brackets == gold.brackets and answer.values == gold.values:
        return True
    # Only a decimal could still be another number, rounded.
    return None if answer.has_decimals or gold.has_decimals else False


def _compare_plainly(answer: str, gold: _Gold, policy: Policy) -> bool | None:
    """What needs no look at sizes: choices, words, exact numbers and lists of them. None: none of these."""
    if gold.choice is not None:
        return read_choice(answer) == gold.choice
    if gold.number is not None:
        number = read_number(answer)
        return policy.same_value(number, gold.number) if number is not None else None
    if gold.numbers is not None:
        return _compare_numbers(read_numbers(answer), gold.numbers)
    return False if gold.is_words and is_words(answer) else None
