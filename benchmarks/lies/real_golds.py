"""Pairs made from the golds of public mathematics sets, where a folder with them stands beside the repository."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from random import Random

from benchmarks.lies.problem import LiePair

_CHOICE = re.compile(r"\(?[A-Z]\)?")
_LINES = ("aime24.jsonl", "aime_2022_2024.jsonl", "amc.jsonl", "amc23.jsonl")


def find_folder() -> Path | None:
    """`shared/data/eval` beside the repository or further up; None where there is none."""
    places = (above / "shared/data/eval" for above in Path(__file__).resolve().parents[3:])
    return next((place for place in places if place.is_dir()), None)


def read_golds(folder: Path) -> list[str]:
    """Every different gold of the mathematics sets, in the order of the files."""
    return list(dict.fromkeys(gold for gold in _all_golds(folder) if gold))


def _all_golds(folder: Path) -> Iterator[str]:
    for name in _LINES:
        for line in (folder / name).read_text().splitlines():
            answer = json.loads(line)["answer"]
            # Stored as a float there, though all are whole.
            yield str(int(answer)) if isinstance(answer, float) else str(answer).strip()
    yield from json.loads((folder / "math500.json").read_text())["expected_answer"].values()
    for line in (folder / "gsm8k_test.jsonl").read_text().splitlines():
        yield json.loads(line)["answer"].rpartition("####")[2].strip()


def spaced(text: str) -> str:
    """With spaces around signs; not behind a comma before three digits, where a space has a meaning of its own."""
    return re.sub(r"(?<![\\_^{])([<>]?=|[<>+]|,(?!\d{3}))", r" \1 ", text)


def respelled(text: str) -> str:
    """With other fractions and brackets."""
    text = re.sub(r"\\[dt]?frac", r"\\tfrac" if "dfrac" in text else r"\\dfrac", text)
    if "\\left" in text or "{(" in text:
        return text
    return re.sub(r"\\\}|[)\]]", r"\\right\g<0>", re.sub(r"\\\{|[(\[]", r"\\left\g<0>", text))


REWRITINGS: dict[str, Callable[[str], str]] = {
    "as it is": lambda gold: f"\\boxed{{{gold}}}",
    "displayed": lambda gold: f"Therefore the final answer is\n\\[\\boxed{{ {gold} }}\\]",
    "spaced": lambda gold: f"We get $\\boxed{{{spaced(gold)}}}$.",
    "respelled": lambda gold: f"$$\n\\boxed{{{respelled(gold)}}}\n$$",
    "full stop": lambda gold: f"The answer is $\\boxed{{{gold}.}}$",
    "twice": lambda gold: f"The answer is $\\boxed{{{gold}}}$.\n\n**Answer:** $\\boxed{{{gold}}}$",
}


LIES: dict[str, Callable[[str], str]] = {
    "hedge": lambda gold: f"$\\boxed{{1234 \\text{{ or }} {gold}}}$",
    "hedge in two boxes": lambda gold: f"$\\boxed{{1234}}$ or $\\boxed{{{gold}}}$",
    "itself and more": lambda gold: f"\\boxed{{{gold}, 1234}}",
    "not the gold": lambda gold: f"\\boxed{{\\text{{not }}{gold}}}",
    "empty": lambda gold: "\\boxed{}",
    "in the text alone": lambda gold: f"The answer is {gold}, of course. \\boxed{{?}}",
    "prose": lambda gold: "\\boxed{\\text{see the solution above}}",
    "falsehood": lambda gold: "\\boxed{1=2}",
    "identity": lambda gold: "\\boxed{\\sin(x+y)=\\sin x\\cos y+\\cos x\\sin y}",
    "a chain that does not hold": lambda gold: f"\\boxed{{123456=1234={gold}}}",
}


def right_pairs(golds: Sequence[str]) -> Iterator[LiePair]:
    """Every gold as an answer to itself, in several spellings."""
    for gold in golds:
        for kind, write in REWRITINGS.items():
            yield LiePair(form="real gold", kind=kind, gold=gold, response=write(gold), expected=True)


def lies(golds: Sequence[str]) -> Iterator[LiePair]:
    """What is wrong about every one of these golds."""
    for gold in golds:
        for kind, write in LIES.items():
            if kind == "itself and more" and _CHOICE.fullmatch(gold):
                continue  # `(B), 12` may be the choice with its value
            yield LiePair(form="real gold", kind=kind, gold=gold, response=write(gold), expected=False)


def wrong_pairs(golds: Sequence[str], others: int, seed: int) -> Iterator[LiePair]:
    """Every gold against so many other ones that differ from it."""
    source = Random(seed)
    values = {gold: _value(gold) for gold in golds}
    for gold in golds:
        taken = 0
        for other in source.sample(golds, min(len(golds), others + 10)):
            if taken < others and values[other] != values[gold]:
                taken += 1
                yield LiePair(
                    form="real gold", kind="another gold", gold=gold, response=f"\\boxed{{{other}}}", expected=False
                )


def _value(gold: str) -> Fraction | str:
    """The number that a gold is, or else its bare text; no two golds of these sets are equal in a less plain way."""
    text = re.sub(r"\\[dt]frac", r"\\frac", gold).replace(" ", "").replace("\\!", "")
    grouped = re.fullmatch(r"-?\d{1,3}(?:,\d{3})+", text)
    if grouped:
        text = text.replace(",", "")
    if re.fullmatch(r"-?(?:\d+\.?\d*|\.\d+)", text):
        return Fraction(text)
    found = re.fullmatch(r"(-?)(\d*)\\frac\{?(\d+?)\}?\{?(\d+)\}?", text)
    if found:
        sign, whole, top, bottom = found.groups()
        return (-1 if sign else 1) * (int(whole or 0) + Fraction(int(top), int(bottom)))
    return text
