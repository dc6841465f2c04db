"""Makes solvable problems unsolvable, to see which validator notices: precision and recall of "no solution".

Two ways, both by rule, so that what is made is known to be unsolvable:

    missing        a number of the problem is replaced by words: "in 2 hours" becomes "in some number of hours"
    contradiction  a condition is added that the problem's own answer breaks
"""

import asyncio
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jobs.curate.draft import Draft
from jobs.curate.validation import Opinion, Validation

_PLAIN_NUMBER = re.compile(r"(?<![\w\\.^_{$-])\d+(?:\.\d+)?(?![\w.]*[\w^_}$\\])")
_INTEGER = re.compile(r"-?\d+")
MISSING, CONTRADICTION = "missing", "contradiction"


def without_a_number(question: str, draw: random.Random) -> str:
    """The problem with one of its plain numbers unknown; empty where it has none outside of formulas.

    Example: "A train goes 60 km in 2 hours." may become "A train goes 60 km in some number of hours."
    """
    found = list(_PLAIN_NUMBER.finditer(question))
    if not found:
        return ""
    match = draw.choice(found)
    following = question[match.end() :]
    words = "some number of" if re.match(r"\s+[a-z]", following) else "some number"
    return f"{question[: match.start()]}{words}{following}"


def with_a_contradiction(question: str, answer: str, draw: random.Random) -> str:
    """The problem with another answer given as a condition; empty where the answer is no integer."""
    if not _INTEGER.fullmatch(answer.strip()):
        return ""
    other = int(answer) + draw.choice((-1, 1)) * draw.randint(1, 9)
    return f"{question.rstrip()} It is also known that the requested value is equal to ${other}$."


def make_unsolvable(drafts: Sequence[Draft], *, seed: int) -> list[tuple[str, Draft]]:
    """(way, problem) of every way that a problem allows."""
    made = []
    for draft in drafts:
        draw = random.Random(f"{seed}/{draft.origin}")
        for way, question in (
            (MISSING, without_a_number(draft.question, draw)),
            (CONTRADICTION, with_a_contradiction(draft.question, draft.answer, draw)),
        ):
            if question:
                made.append((way, replace(draft, question=question, origin=f"{draft.origin}, {way}")))
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Alertness:
    """How one validator tells unsolvable problems from solvable ones, by the majority of its attempts.

    Example: of 10 unsolvable ones 8 are noticed, and of 20 solvable ones 2 are called unsolvable:
    `Alertness(model="qwq", precision=0.8, recall=0.8, recall_by_way={"missing": 0.6, "contradiction": 1.0})`.
    """

    model: str
    precision: float | None
    """None where it called nothing unsolvable."""
    recall: float
    recall_by_way: Mapping[str, float]


async def probe(validation: Validation, solvable: Sequence[Draft], *, seed: int) -> list[Alertness]:
    """Ask about the problems as they are and made unsolvable; nothing where none could be made."""
    made = make_unsolvable(solvable, seed=seed)
    if not made:
        return []
    asked = [draft for _, draft in made] + list(solvable)
    answers = await asyncio.gather(*(validation.opinions(draft) for draft in asked))
    by_model = zip(*(opinions for opinions, _ in answers), strict=True)
    return [_alertness([way for way, _ in made], opinions) for opinions in by_model]


def _alertness(ways: Sequence[str], opinions: Sequence[Opinion]) -> Alertness:
    said = [opinion.says_unsolvable for opinion in opinions]
    noticed, false_alarms = said[: len(ways)], sum(said[len(ways) :])
    hits = sum(noticed)
    by_way = {way: [hit for each, hit in zip(ways, noticed, strict=True) if each == way] for way in sorted(set(ways))}
    return Alertness(
        model=opinions[0].model,
        precision=hits / (hits + false_alarms) if hits + false_alarms else None,
        recall=hits / len(ways),
        recall_by_way={way: sum(hits) / len(hits) for way, hits in by_way.items()},
    )
