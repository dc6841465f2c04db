"""Samples what is missing, grades every problem once its samples are there, and scores them where a PRM is given.

Sampling never waits for grading: problems are graded beside it, a few at a time.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from jobs.evaluate.folder import EvaluationFolder
from jobs.evaluate.settings import EvaluateSettings
from prime.errors import EngineError, InvalidInput, PrimeError
from prime.evaluation.outcomes import GradedProblem, Outcome, grade_problem
from prime.evaluation.policies import GREEDY, Answer, Policy
from prime.evaluation.reading import AskedSet
from prime.patience import patiently
from prime.ports import AnswerGrouper, Scorer, Verifier
from prime.scoring import Candidate, Prompt, ScoringRequest, Truncation
from prime.types import Problem

_LARGEST_REQUEST = 16
"""Samples of one problem that are asked for together: they share their prompt."""
_GRADED_AT_ONCE = 8
_REFUSED_AT_FIRST = 10
"""So many refusals, and no answer, are not the problems' fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judges:
    """Whoever says what answers are worth."""

    verifier: Verifier
    grouper: AnswerGrouper
    scorer: Scorer | None = None
    scorer_name: str = ""
    """Identifies the PRM: scores of another one are not taken for its own."""


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far it is: `Progress(samples=1024, of=4000, tokens=380000, right=301, graded=900, seconds=122.0)`."""

    of: int
    samples: int = 0
    kept: int = 0
    """Of them, those that were there when it started."""
    tokens: int = 0
    """Sampled since."""
    graded: int = 0
    right: int = 0
    refused: int = 0
    started: float = 0.0

    @property
    def rate(self) -> float:
        """Samples per second, since it started."""
        return (self.samples - self.kept) / max(1e-9, time.monotonic() - self.started)

    @property
    def tokens_per_second(self) -> float:
        """Since it started."""
        return self.tokens / max(1e-9, time.monotonic() - self.started)

    @property
    def seconds_left(self) -> float:
        """As far as that goes; infinite before the first sample."""
        return (self.of - self.samples) / self.rate if self.samples > self.kept else math.inf


async def evaluate(
    parts: Sequence[AskedSet],
    policy: Policy,
    judges: Judges,
    folder: EvaluationFolder,
    *,
    settings: EvaluateSettings,
    on_progress: Callable[[Progress], None],
    regrade: bool = False,
) -> None:
    """Make whatever is missing in the folder; with `regrade` grade all samples again, and sample nothing.

    Raises:
        EngineError: the first requests were refused, all of them.
        PrimeError: the policy, the verifier or the PRM is away for longer than patience lasts. What was sampled until
            then is kept: start again to go on.
    """
    try:
        await _Evaluation(parts, policy, judges, folder, settings, on_progress).run(regrade=regrade)
    except* PrimeError as errors:
        # The first to fail ended the others.
        raise errors.exceptions[0] from None


class _Evaluation:
    def __init__(
        self,
        parts: Sequence[AskedSet],
        policy: Policy,
        judges: Judges,
        folder: EvaluationFolder,
        settings: EvaluateSettings,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._policy = policy
        self._judges = judges
        self._folder = folder
        self._patience_s = settings.patience_seconds
        self._on_progress = on_progress
        self._wanted = [
            (problem, [*([GREEDY] if settings.greedy else []), *range(part.samples)])
            for part in parts
            for problem in part.problems.problems
        ]
        largest = max((min(part.samples, _LARGEST_REQUEST) for part in parts), default=1)
        self._requests_at_once = max(1, settings.at_once // max(1, largest))
        self._grading = asyncio.Semaphore(_GRADED_AT_ONCE)
        self._progress = Progress(of=sum(len(numbers) for _, numbers in self._wanted), started=time.monotonic())

    async def run(self, *, regrade: bool) -> None:
        """Sampling, with grading beside it."""
        self._regrades = regrade
        self._progress.samples = self._progress.kept = sum(
            number in self._folder.answers(problem.problem_id)
            for problem, numbers in self._wanted
            for number in numbers
        )
        self._on_progress(self._progress)
        requests = iter(()) if regrade else self._missing()
        async with asyncio.TaskGroup() as self._tasks:
            for problem, numbers in self._wanted:
                self._grade_if_whole(problem, numbers)
            for _ in range(self._requests_at_once):
                self._tasks.create_task(self._sample(requests))

    def _missing(self) -> Iterator[tuple[Problem, Sequence[int], Sequence[int]]]:
        """Requests in order: problem, the numbers to sample now, and all numbers that it needs."""
        for problem, numbers in self._wanted:
            there = self._folder.answers(problem.problem_id)
            for run in _runs([number for number in numbers if number not in there]):
                yield problem, run, numbers

    async def _sample(self, requests: Iterator[tuple[Problem, Sequence[int], Sequence[int]]]) -> None:
        for problem, numbers, wanted in requests:
            answers = await self._ask(problem, numbers)
            await asyncio.to_thread(self._folder.add_answers, problem.problem_id, answers)
            self._progress.samples += len(answers)
            self._progress.tokens += sum(answer.num_tokens for answer in answers)
            self._on_progress(self._progress)
            self._grade_if_whole(problem, wanted)

    async def _ask(self, problem: Problem, numbers: Sequence[int]) -> list[Answer]:
        try:
            return await patiently(partial(self._policy.answer, problem, numbers), seconds=self._patience_s)
        except InvalidInput as refusal:
            self._progress.refused += 1
            if self._progress.refused >= _REFUSED_AT_FIRST and self._progress.samples == self._progress.kept:
                raise EngineError(f"the first {self._progress.refused} requests were refused: {refusal}") from None
            return [
                Answer(number=number, text="", truncated=False, num_tokens=0, refusal=str(refusal))
                for number in numbers
            ]

    def _grade_if_whole(self, problem: Problem, numbers: Sequence[int]) -> None:
        """Begin to grade a problem whose samples are all there and not graded yet."""
        answers, graded = self._folder.answers(problem.problem_id), self._folder.graded(problem.problem_id)
        if not answers or not all(number in answers for number in numbers):
            return
        is_done = graded is not None and set(numbers) <= set(graded.numbers) and self._is_scored(graded)
        if graded is not None and is_done and not self._regrades:
            self._count(graded)
            return
        self._tasks.create_task(self._grade(problem, [answers[number] for number in sorted(answers)]))

    def _is_scored(self, graded: GradedProblem) -> bool:
        return self._judges.scorer is None or graded.scored_by == self._judges.scorer_name

    async def _grade(self, problem: Problem, answers: Sequence[Answer]) -> None:
        async with self._grading:
            grading = partial(grade_problem, problem, answers, self._judges.verifier, self._judges.grouper)
            graded = await patiently(grading, seconds=self._patience_s)
            scores, scored_by = await self._scores(problem, answers, graded)
            graded = replace(graded, scores=scores, scored_by=scored_by)
        await asyncio.to_thread(self._folder.add_graded, graded)
        self._count(graded)

    async def _scores(
        self, problem: Problem, answers: Sequence[Answer], graded: GradedProblem
    ) -> tuple[tuple[float, ...], str]:
        """Of the PRM that is asked; without one, those that were there before."""
        if self._judges.scorer is not None:
            scoring = partial(score_answers, problem, answers, self._judges.scorer)
            return await patiently(scoring, seconds=self._patience_s), self._judges.scorer_name
        before = self._folder.graded(problem.problem_id)
        if before is not None and before.numbers == graded.numbers:
            return before.scores, before.scored_by
        return (), ""

    def _count(self, graded: GradedProblem) -> None:
        self._progress.graded += len(graded.outcomes)
        self._progress.right += graded.outcomes.count(Outcome.RIGHT)
        self._on_progress(self._progress)


def _runs(numbers: Sequence[int]) -> Iterator[list[int]]:
    """Numbers that follow each other, in parts of one request's size; the greedy one alone."""
    run: list[int] = []
    for number in numbers:
        if run and (number != run[-1] + 1 or run[0] == GREEDY or len(run) == _LARGEST_REQUEST):
            yield run
            run = []
        run.append(number)
    if run:
        yield run


async def score_answers(problem: Problem, answers: Sequence[Answer], scorer: Scorer) -> tuple[float, ...]:
    """A PRM's score of every answer; the least of all for one that is empty, since there is nothing to score."""
    prompt = Prompt(messages=tuple({"role": each.role, "content": each.content} for each in problem.messages))
    texts = [answer.text for answer in answers if answer.text.strip()]
    most = (await scorer.info()).max_candidates
    found: list[float] = []
    for start in range(0, len(texts), most):
        request = ScoringRequest(
            prompt=prompt,
            candidates=tuple(Candidate(text=text) for text in texts[start : start + most]),
            truncation=Truncation.RIGHT,
        )
        found += [candidate.score for candidate in (await scorer.score(request)).candidates]
    scores = iter(found)
    lowest = min(found, default=0.0) - 1.0
    return tuple(next(scores) if answer.text.strip() else lowest for answer in answers)
