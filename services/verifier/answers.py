"""Which responses give equal answers: what majority and weighted votes count. Called by `rpc.py` and by `primectl`.

Answers are compared as grading compares them, each with one representative per class. What cannot be decided counts
as different: a class too many costs a vote its unity, a wrong class would cost it its truth.
"""

from collections.abc import Sequence
from typing import Protocol

from prime.errors import InvalidInput
from prime.types import AnswerClasses, GradeItem, Verdict, VerdictStatus
from services.verifier.mathematics.extract import extract_answer

MOST_RESPONSES = 1024


class Grades(Protocol):
    """The part of the grader that is needed here."""

    async def grade(self, items: Sequence[GradeItem]) -> list[Verdict]:
        """One verdict per item, in order."""


class AnswerGroups:
    """`ports.AnswerGrouper` over a grader of this process."""

    def __init__(self, grader: Grades) -> None:
        self._grader = grader

    async def group_answers(self, responses: Sequence[str]) -> AnswerClasses:
        """Classes of equal answers."""
        return await group_answers(self._grader, responses)


async def group_answers(grader: Grades, responses: Sequence[str]) -> AnswerClasses:
    """The final answer of every response, and classes of mathematically equal ones.

    Raises:
        InvalidInput: there are more responses than one call may hold.
    """
    if len(responses) > MOST_RESPONSES:
        raise InvalidInput(f"{len(responses)} responses in one call; at most {MOST_RESPONSES} are grouped")
    answers = [(extract_answer(response) or "").strip() for response in responses]
    classes: dict[str, int] = {"": -1}
    representatives: list[str] = []
    for answer in answers:
        if answer not in classes:
            classes[answer] = await _class_of(grader, answer, representatives)
    return AnswerClasses(answers=tuple(answers), classes=tuple(classes[answer] for answer in answers))


async def _class_of(grader: Grades, answer: str, representatives: list[str]) -> int:
    """The first class that the answer is equal to; a new one, which it represents, when there is none."""
    items = [
        GradeItem(
            item_id="group",
            data_source="",
            ability="math",
            kind="math",
            response=f"\\boxed{{{answer}}}",
            ground_truth=each,
        )
        for each in representatives
    ]
    for number, verdict in enumerate(await grader.grade(items) if items else ()):
        if verdict.status is VerdictStatus.PASSED:
            return number
    representatives.append(answer)
    return len(representatives) - 1
