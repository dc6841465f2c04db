"""Validators solve every mathematics problem several times; kept is what they and the source agree on.

After PRIME's stage 4, whose thresholds are not published: here they are settings, and in every problem's record. There
an attempt that found no solution counted as one that could not be read, because its box has no digit; here that is an
answer of its own.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from jobs.curate.draft import Draft
from jobs.curate.pipeline import DraftByDraft
from jobs.curate.settings import KeepSettings, ValidationSettings
from jobs.curate.validator_prompts import UNSOLVABLE, validator_messages
from jobs.grading import answer_item
from prime.ports import ChatModel, Verifier
from prime.types import VerdictStatus
from services.verifier.answers import group_answers
from services.verifier.mathematics.extract import extract_answer

NAME = "validation"


class Match(StrEnum):
    """How one attempt stands to the ground truth."""

    MATCHED = "matched"
    NOT_MATCHED = "not matched"
    UNSOLVABLE = "unsolvable"
    """It says that there is no solution."""
    ATTEMPT_UNREADABLE = "attempt unreadable"
    TRUTH_UNREADABLE = "ground truth unreadable"


_WITH_AN_ANSWER = (Match.MATCHED, Match.NOT_MATCHED, Match.TRUTH_UNREADABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What one validator's attempts amount to, as shares of all of them.

    Example: answers 4, 4, 4, 5 and no solution, where 4 is right: `Opinion(model="qwq", matches=("matched", ...),
    answer="4", solvable=0.8, matching=0.6, agreeing=0.6)`.
    """

    model: str
    matches: tuple[str, ...]
    answer: str
    """The one that is given most often; empty when there is none."""
    solvable: float
    matching: float
    agreeing: float

    @property
    def says_unsolvable(self) -> bool:
        """Whether more than half of its attempts say so."""
        return self.matches.count(Match.UNSOLVABLE) * 2 > len(self.matches)


def why_not(opinions: Sequence[Opinion], same_answer: bool, keep: KeepSettings) -> str:
    """By which part of the rule a problem is dropped; empty when it is kept.

    `same_answer`: whether the most frequent answers of all validators are equal.
    """
    faults = [_fault(opinion, keep) for opinion in opinions]
    needed = len(faults) if keep.validators == "all" else 1
    if faults.count("") < needed:
        return next(fault for fault in faults if fault)
    return "validators disagree" if keep.same_answer and not same_answer else ""


def _fault(opinion: Opinion, keep: KeepSettings) -> str:
    """Which part of the rule one validator's attempts do not meet; empty when they meet all."""
    if opinion.solvable < keep.solvable:
        return "too few attempts find an answer"
    if opinion.agreeing < keep.agreeing:
        return "attempts disagree"
    return "answer differs from the source" if opinion.matching < keep.matching else ""


class Validation(DraftByDraft):
    """The stage; code passes. `models`: by the validators' names."""

    name = NAME

    def __init__(self, settings: ValidationSettings, models: Mapping[str, ChatModel], verifier: Verifier) -> None:
        self.depends_on: Any = [
            [each.model_dump(include={"model", "temperature", "top_p", "max_tokens"}) for each in settings.validators],
            settings.attempts,
            settings.keep.model_dump(),
            [validator_messages("", source) for source in ("amc_aime", "aops_forum", "olympiads")],
        ]
        self._settings = settings
        self._models = models
        self._verifier = verifier

    async def apply(self, drafts: Sequence[Draft]) -> list[Draft]:
        """Ask about all of them; how many requests are under way is the endpoints' matter."""
        return list(await asyncio.gather(*map(self._judge, drafts)))

    async def _judge(self, draft: Draft) -> Draft:
        if draft.ability != "math" or not self._models:
            return draft
        opinions, same = await self.opinions(draft)
        record = {"same_answer": same, "validators": [asdict(opinion) for opinion in opinions]}
        noted = draft.note(NAME, record)
        reason = why_not(opinions, same, self._settings.keep)
        return noted.drop(reason) if reason else noted

    async def opinions(self, draft: Draft) -> tuple[list[Opinion], bool]:
        """Of every validator, and whether their most frequent answers are equal."""
        messages, attempts = validator_messages(draft.question, draft.source), self._settings.attempts
        texts = await asyncio.gather(
            *(model.ask(messages, attempt=attempt) for model in self._models.values() for attempt in range(attempts))
        )
        answers = [(extract_answer(text) or "").strip() for text in texts]
        matches = await self._matches(draft, answers)
        boxes = [
            f"\\boxed{{{answer}}}" if match in _WITH_AN_ANSWER else ""
            for answer, match in zip(answers, matches, strict=True)
        ]
        classes = (await group_answers(self._verifier, boxes)).classes
        found, favourites = [], []
        for number, name in enumerate(self._models):
            mine = slice(number * attempts, (number + 1) * attempts)
            counts = Counter(each for each in classes[mine] if each >= 0).most_common(1)
            favourite, count = counts[0] if counts else (-1, 0)
            favourites.append(favourite)
            found.append(
                Opinion(
                    model=name,
                    matches=tuple(match.value for match in matches[mine]),
                    answer=answers[classes.index(favourite)] if count else "",
                    solvable=sum(match in _WITH_AN_ANSWER for match in matches[mine]) / attempts,
                    matching=matches[mine].count(Match.MATCHED) / attempts,
                    agreeing=count / attempts,
                )
            )
        return found, len(set(favourites)) == 1 and favourites[0] >= 0

    async def _matches(self, draft: Draft, answers: Sequence[str]) -> list[Match]:
        items = [answer_item(answer, draft.answer, item_id=draft.origin, source=draft.source) for answer in answers]
        verdicts = await self._verifier.grade(items)
        return [_match(answer, verdict.status) for answer, verdict in zip(answers, verdicts, strict=True)]


def is_unsolvable(answer: str) -> bool:
    """Whether what stands in the box says that there is no solution."""
    bare = answer.replace("\\text", "").translate(str.maketrans("", "", "{}$\\.~ ")).lower()
    return bare == UNSOLVABLE.replace(" ", "")


def _match(answer: str, status: VerdictStatus) -> Match:
    if is_unsolvable(answer):
        return Match.UNSOLVABLE
    if not answer:
        return Match.ATTEMPT_UNREADABLE
    match status:
        case VerdictStatus.PASSED:
            return Match.MATCHED
        case VerdictStatus.FAILED:
            return Match.NOT_MATCHED
        case VerdictStatus.INVALID_REQUEST:
            return Match.TRUTH_UNREADABLE
    return Match.ATTEMPT_UNREADABLE
