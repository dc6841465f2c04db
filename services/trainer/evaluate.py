"""Accuracy on held-out problem sets while the policy is trained, by the code that `primectl evaluate` has."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import structlog

from prime.errors import PeerUnavailable
from prime.evaluation.outcomes import GradedProblem, grade_problem
from prime.evaluation.policies import Answer, RolloutPolicy
from prime.evaluation.reading import AskedSet
from prime.evaluation.summary import SetSummary, summarise
from prime.ports import GroupingVerifier, Rollout
from prime.types import Problem, SamplingParams

_log = structlog.get_logger()
_SAMPLES_PER_CALL = 128
_CALLS_PER_REPLICA = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One measurement: `Evaluation(version=40, newest=41, sets={"gsm8k": SetSummary(...)})`."""

    version: int
    """Of the oldest policy that sampled any of it."""
    newest: int
    """Of the newest: more than `version` where training went on meanwhile."""
    sets: Mapping[str, SetSummary]

    @property
    def accuracy(self) -> float:
        """The plain mean of the sets' avg@k."""
        return fmean(each.average.mean for each in self.sets.values() if each.average is not None)

    def figures(self) -> dict[str, float]:
        """For the metrics of a step."""
        averages = {name: each.average for name, each in self.sets.items()}
        return {
            "eval/accuracy": self.accuracy,
            "eval/version": float(self.version),
            **{f"eval/{name}/accuracy": each.mean for name, each in averages.items() if each is not None},
            **{f"eval/{name}/truncated_share": each.truncated_share for name, each in self.sets.items()},
        }

    def line(self) -> dict[str, Any]:
        """For the run's curve."""
        return {
            "version": self.version,
            "newest": self.newest,
            "sets": {name: asdict(each) for name, each in self.sets.items()},
        }


class Evaluator:
    """Asks the rollout replicas directly: held-out problems never enter the queue."""

    def __init__(
        self,
        sets: Sequence[AskedSet],
        *,
        find_replicas: Callable[[], Awaitable[Sequence[tuple[str, Rollout]]]],
        verifier: GroupingVerifier,
        tokenizer: Any,
        sampling: SamplingParams,
        seed: int,
    ) -> None:
        self._sets = sets
        self._find_replicas = find_replicas
        self._verifier = verifier
        self._tokenizer = tokenizer
        self._sampling = sampling
        self._seed = seed

    async def measure(self, version: int, *, beside_training: bool) -> Evaluation:
        """Figures of every set, from this policy version; the seeds are always the same.

        With `beside_training` requests join those in flight, and newer versions may sample the last of them.

        Raises:
            PeerUnavailable: no replica holds this version, or nothing of a set could be graded.
        """
        policies = [
            RolloutPolicy(
                rollout=replica,
                tokenizer=self._tokenizer,
                sampling=self._sampling,
                seed=self._seed,
                # One that wants the newest weights alone would wait until nothing else is sampled.
                min_version=max(0, version - 1) if beside_training else version,
            )
            for replica in await self._replicas_at(version)
        ]
        turns = itertools.cycle([(policy, asyncio.Semaphore(_CALLS_PER_REPLICA)) for policy in policies])
        versions: set[int] = {version}
        sets = {}
        for asked in self._sets:
            graded = await asyncio.gather(
                *(
                    self._measure_part(part, asked.samples, *next(turns), versions)
                    for part in _parts(asked.problems.problems, asked.samples)
                )
            )
            sets[asked.problems.name] = _summary(asked, [each for part in graded for each in part])
        return Evaluation(version=min(versions), newest=max(versions), sets=sets)

    async def _measure_part(
        self,
        problems: Sequence[Problem],
        samples: int,
        policy: RolloutPolicy,
        free: asyncio.Semaphore,
        versions: set[int],
    ) -> list[GradedProblem]:
        async with free:
            answers = await policy.answer_all(problems, range(samples))
        versions |= {span.version for each in answers for answer in each for span in answer.spans}
        return list(await asyncio.gather(*map(self._grade, problems, answers)))

    async def _grade(self, problem: Problem, answers: Sequence[Answer]) -> GradedProblem:
        return await grade_problem(problem, answers, self._verifier, self._verifier)

    async def _replicas_at(self, version: int) -> list[Rollout]:
        current = []
        for address, replica in await self._find_replicas():
            try:
                status = await replica.status()
            except PeerUnavailable as error:
                _log.warning("replica left out of the evaluation", address=address, reason=str(error))
                continue
            if status.ready and status.version >= version:
                current.append(replica)
        if not current:
            raise PeerUnavailable(f"no rollout replica holds version {version}, so it cannot be evaluated")
        return current


def _parts(problems: Sequence[Problem], samples: int) -> list[Sequence[Problem]]:
    size = max(1, _SAMPLES_PER_CALL // samples)
    return [problems[start : start + size] for start in range(0, len(problems), size)]


def _summary(asked: AskedSet, graded: Sequence[GradedProblem]) -> SetSummary:
    try:
        found = summarise(graded)
    except ValueError:
        raise PeerUnavailable(
            f"the verifier decided none of the answers to {asked.problems.title}; its log says why"
        ) from None
    if found.counts["undecided"]:
        _log.warning("undecided answers in the evaluation", set=asked.problems.name, count=found.counts["undecided"])
    return found
