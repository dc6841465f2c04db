"""Accuracy on held-out problems: one sample each, sampled like training, graded like training."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog

from prime.errors import PeerUnavailable
from prime.ports import Rollout, Verifier
from prime.types import Problem, RolloutRequest, SamplingParams, Verdict, VerdictStatus
from services.trainer.collector import grade_item, stable_hash

_log = structlog.get_logger()
_REQUESTS_PER_CALL = 128
_NOT_ABOUT_THE_ANSWER = (VerdictStatus.INVALID_REQUEST, VerdictStatus.INFRA_ERROR)


class Evaluator:
    """Asks the rollout replicas directly: held-out problems never enter the queue."""

    def __init__(
        self,
        problems: Sequence[tuple[Problem, tuple[int, ...]]],
        *,
        find_replicas: Callable[[], Awaitable[Sequence[tuple[str, Rollout]]]],
        verifier: Verifier,
        tokenizer: Any,
        sampling: SamplingParams,
        seed: int,
    ) -> None:
        self._problems = problems
        self._find_replicas = find_replicas
        self._verifier = verifier
        self._tokenizer = tokenizer
        self._sampling = sampling
        self._seed = seed

    async def accuracy(self, version: int) -> float:
        """Mean score of this policy version. The seeds are always the same.

        An undecided answer counts as not right; one that the verifier could not grade for reasons of its own, or of the
        problem's, does not count at all.

        Raises:
            PeerUnavailable: no replica holds this version, or nothing could be graded.
        """
        replicas = await self._replicas_at(version)
        scores = []
        for start in range(0, len(self._problems), _REQUESTS_PER_CALL):
            part = self._problems[start : start + _REQUESTS_PER_CALL]
            replica = replicas[(start // _REQUESTS_PER_CALL) % len(replicas)]
            groups = await replica.generate([self._request(problem, ids, version) for problem, ids in part])
            verdicts = await self._verifier.grade(
                [
                    grade_item(problem.problem_id, problem, group.samples[0], self._tokenizer)
                    for (problem, _), group in zip(part, groups, strict=True)
                ]
            )
            scores += [verdict.score or 0.0 for verdict in verdicts if not _says_nothing(verdict)]
        if len(scores) < len(self._problems):
            _log.warning("problems left out of the evaluation", count=len(self._problems) - len(scores))
        if not scores:
            raise PeerUnavailable("the verifier graded none of the held-out problems; its log says why")
        return sum(scores) / len(scores)

    async def _replicas_at(self, version: int) -> list[Rollout]:
        current = []
        for address, replica in await self._find_replicas():
            try:
                status = await replica.status()
            except PeerUnavailable as error:
                _log.warning("replica left out of the evaluation", address=address, reason=str(error))
                continue
            if status.ready and status.version == version:
                current.append(replica)
        if not current:
            raise PeerUnavailable(f"no rollout replica holds version {version}, so it cannot be evaluated")
        return current

    def _request(self, problem: Problem, prompt_ids: tuple[int, ...], version: int) -> RolloutRequest:
        return RolloutRequest(
            group_id=f"eval-{problem.problem_id}",
            problem_id=problem.problem_id,
            attempt=0,
            prompt_ids=prompt_ids,
            num_samples=1,
            sampling=self._sampling,
            seed=stable_hash(self._seed, "evaluate", problem.problem_id),
            min_version=version,
        )


def _says_nothing(verdict: Verdict) -> bool:
    # `budget`: the verifier was too busy to look at it.
    return verdict.status in _NOT_ABOUT_THE_ANSWER or verdict.reason == "budget"
