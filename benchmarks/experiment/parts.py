"""The services' parts without their processes: a replica, a verifier and reward models within reach of a call."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

from prime.data.judged_steps import judged_steps
from prime.data.prompts import TokenTexts
from prime.lm.packing import pad_rows
from prime.maths.prm_diagnostics import shuffled_within_rows
from prime.ports import PendingCheckpoint, RewardModel
from prime.seeds import stable_hash
from prime.types import (
    AnswerClasses,
    GradeItem,
    PrmGroup,
    PrmInfo,
    PrmMetrics,
    TokenRewards,
    Verdict,
    VerifierInfo,
)
from services.prm.reward import RewardService
from services.trainer.policy import Policy
from services.verifier.answers import group_answers
from services.verifier.grade import Grader
from services.verifier.settings import VerifierSettings


@dataclass
class _Unwritten:
    """`ports.PendingCheckpoint` of nothing."""

    folder: Path

    def wait(self) -> None:
        """There is nothing to wait for."""


class PassingPolicy(Policy):
    """The trainer's policy, without checkpoints: of a run only the figures are kept, and many end at once."""

    def begin_save(self, folder: Path) -> PendingCheckpoint:  # type: ignore[override]
        """Write nothing."""
        return _Unwritten(folder)


class PassingRewards(RewardService):
    """The PRM's use case, without checkpoints."""

    async def save(self, step: int) -> str:
        """Write nothing."""
        return ""


class _NothingRuns:
    """In place of the sandbox: the tasks of the trial are graded by comparison alone."""

    healthy = True
    age_seconds = 0.0

    def parse(self, item: Any) -> NoReturn:
        raise NotImplementedError("no task of the trial is code")

    async def settle(self, question: Any) -> NoReturn:
        raise NotImplementedError("no task of the trial needs algebra")

    def waiting(self, count: int) -> None:
        """Nobody watches."""

    def graded(self, grader: str, verdict: Verdict) -> None:
        """Nobody watches."""


class NearVerifier:
    """`ports.GroupingVerifier` by the verifier's own grader, for tasks that plain comparison settles.

    Anything else is an infra error.
    """

    def __init__(self) -> None:
        nothing: Any = _NothingRuns()
        self._grader = Grader(
            VerifierSettings(),
            programs=nothing,
            pool=nothing,
            proof=nothing,
            watcher=nothing,
            tier="none",
            isolation=(),
        )

    async def grade(self, items: Sequence[GradeItem]) -> list[Verdict]:
        """One verdict per item."""
        return await self._grader.grade(items)

    async def info(self) -> VerifierInfo:
        """What it grades."""
        return await self._grader.info()

    async def group_answers(self, responses: Sequence[str]) -> AnswerClasses:
        """Classes of equal answers."""
        return await group_answers(self._grader, responses)


class Shuffled:
    """A reward model whose token rewards are dealt out anew within each response: same sums, no places."""

    def __init__(self, inner: RewardModel, *, seed: int) -> None:
        self._inner = inner
        self._seed = seed

    async def score(self, groups: Sequence[PrmGroup]) -> TokenRewards:
        """As the inner one, shuffled; the same groups give the same."""
        scored = await self._inner.score(groups)
        rewards_BT, mask_BT = pad_rows(scored.rows)
        seed = stable_hash(self._seed, "shuffle", groups[0].group_id)
        shuffled_BT = shuffled_within_rows(rewards_BT, mask_BT, torch.Generator().manual_seed(seed))
        rows = tuple(tuple(row[: len(own)]) for row, own in zip(shuffled_BT.tolist(), scored.rows, strict=True))
        return TokenRewards(rows=rows, prm_version=scored.prm_version, beta=scored.beta, reference_id="shuffled")

    async def learn(self, step: int, groups: Sequence[PrmGroup], outcomes: Sequence[float]) -> PrmMetrics:
        """As the inner one."""
        return await self._inner.learn(step, groups, outcomes)

    async def save(self, step: int) -> str:
        """As the inner one."""
        return await self._inner.save(step)

    async def restore(self, step: int) -> int:
        """As the inner one."""
        return await self._inner.restore(step)

    async def info(self) -> PrmInfo:
        """As the inner one."""
        return await self._inner.info()


class Judge:
    """A reward model that knows the task: what each step changes in the chance that the answer will be right.

    That chance is `q^n` before n steps that are still to come, where q is the share of right steps among those that the
    batch shows. A right step is worth `q^(n-1) - q^n`, on each of its tokens, and a wrong one `-q^n`, where it goes
    wrong; nothing counts after it. That is the true advantage of a step of a policy that is equally careless in all.
    """

    def __init__(self, tokenizer: Any, fingerprint: str) -> None:
        self._text_of = TokenTexts(tokenizer)
        self._fingerprint = fingerprint

    async def score(self, groups: Sequence[PrmGroup]) -> TokenRewards:
        """By `judged_steps`."""
        return await asyncio.to_thread(self._score, groups)

    def _score(self, groups: Sequence[PrmGroup]) -> TokenRewards:
        judged = [
            # A prompt is a digit and a sign for each step, and one more of both.
            (len(group.prompt_ids) // 2 - 1, len(response), judged_steps(group.prompt_ids, self._text_of, response))
            for group in groups
            for response in group.responses
        ]
        is_right = [step.is_right for _, _, steps in judged for step in steps]
        share = sum(is_right) / max(len(is_right), 1)
        rows = []
        for count, length, steps in judged:
            row = [0.0] * length
            for number, step in enumerate(steps):
                before = share ** (count - number)
                if step.is_right:
                    row[step.start : step.end] = [before / share - before] * (step.end - step.start)
                else:
                    row[step.end - 1] = -before
            rows.append(tuple(row))
        return TokenRewards(rows=tuple(rows), prm_version=0, beta=1.0, reference_id="judge")

    async def learn(self, step: int, groups: Sequence[PrmGroup], outcomes: Sequence[float]) -> PrmMetrics:
        """It has nothing to learn."""
        raise NotImplementedError("a judge does not learn: trainer.prm_update = 'none'")

    async def save(self, step: int) -> str:
        """There is nothing to keep."""
        return ""

    async def restore(self, step: int) -> int:
        """It is always at the start."""
        return 0

    async def info(self) -> PrmInfo:
        """Speaks for the tokenizer of the policy."""
        return PrmInfo(
            prm_version=0,
            beta=1.0,
            reference_id="judge",
            reference_mode="freeze",
            tokenizer_fingerprint=self._fingerprint,
        )
