"""What the answers to a problem are worth: graded, and grouped by what they say."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from prime.evaluation.policies import Answer
from prime.ports import AnswerGrouper, Verifier
from prime.types import GradeItem, Problem, Verdict, VerdictStatus

_NOTHING_SAID = ("no_answer", "no_code")
_KNOWN = (VerdictStatus.PASSED, VerdictStatus.FAILED)


class Outcome(StrEnum):
    """What became of one sample. Only `right` counts as right; `undecided` is not counted at all."""

    RIGHT = "right"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    """It ended without an answer."""
    TRUNCATED = "truncated"
    """It was cut off at the token limit before it was right."""
    UNDECIDED = "undecided"
    """Nobody knows: grading took too long, failed, or cannot be done for this problem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedProblem:
    """One problem with its samples.

    Example, of 4 samples: `GradedProblem(problem_id="gsm8k-7", numbers=(0, 1, 2, 3), outcomes=("right", "wrong",
    "truncated", "right"), classes=(0, 1, -1, 0), reasons=("exact", ...), num_tokens=(61, 70, 512, 58))`.
    """

    problem_id: str
    numbers: tuple[int, ...]
    outcomes: tuple[Outcome, ...]
    classes: tuple[int, ...]
    """Of equal answers; -1: no answer. Empty where there is nothing to vote on, as with programs."""
    reasons: tuple[str, ...]
    """Of the verdicts."""
    num_tokens: tuple[int, ...]
    truncated: tuple[bool, ...]
    """Whether a sample reached the token limit, whatever its outcome."""
    scores: tuple[float, ...] = ()
    """Of a PRM, where one was asked."""
    scored_by: str = ""
    """Which PRM that was."""


async def grade_problem(
    problem: Problem, answers: Sequence[Answer], verifier: Verifier, grouper: AnswerGrouper | None
) -> GradedProblem:
    """Grade all samples of a problem, and with `grouper` find out which mathematical answers are equal.

    Raises:
        PeerUnavailable: the verifier is away.
    """
    verdicts = await verifier.grade([_item(problem, answer) for answer in answers])
    classes: tuple[int, ...] = ()
    if grouper is not None and problem.ability == "math" and len(answers) > 1:
        classes = (await grouper.group_answers([answer.text for answer in answers])).classes
    return GradedProblem(
        problem_id=problem.problem_id,
        numbers=tuple(answer.number for answer in answers),
        outcomes=tuple(_outcome(answer, verdict) for answer, verdict in zip(answers, verdicts, strict=True)),
        classes=classes,
        reasons=tuple(answer.refusal or verdict.reason for answer, verdict in zip(answers, verdicts, strict=True)),
        num_tokens=tuple(answer.num_tokens for answer in answers),
        truncated=tuple(answer.truncated for answer in answers),
    )


def _item(problem: Problem, answer: Answer) -> GradeItem:
    return GradeItem(
        item_id=f"{problem.problem_id}/{answer.number}",
        data_source=problem.data_source,
        ability=problem.ability,
        response=answer.text,
        ground_truth=problem.ground_truth,
        binary=True,
    )


def _outcome(answer: Answer, verdict: Verdict) -> Outcome:
    if verdict.status is VerdictStatus.PASSED:
        return Outcome.RIGHT
    if answer.refusal:
        return Outcome.NO_ANSWER
    if verdict.status not in _KNOWN:
        return Outcome.UNDECIDED
    if answer.truncated:
        return Outcome.TRUNCATED
    return Outcome.NO_ANSWER if verdict.reason in _NOTHING_SAID else Outcome.WRONG
