"""The use case of the PRM service: score, learn once per step, save, restore; one call at a time.

Implements `ports.RewardModel`, so a trainer may hold it in its own process too.
"""

import asyncio
import contextlib
import contextvars
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import structlog

from prime.errors import CheckpointError, InvalidInput, VersionConflict
from prime.ports import PendingCheckpoint
from prime.types import PrmGroup, PrmInfo, PrmMetrics, TokenRewards
from services.prm.shared_lock import SharedLock

_log = structlog.get_logger()

AnswerT = TypeVar("AnswerT")
_NICE = 10
IsWanted = Callable[[], bool]
"""Whether anybody still waits; asked from the thread that computes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRows:
    """Per row: its token rewards, and whether its reference log-probs had been kept from an earlier call."""

    rewards: Sequence[Sequence[float]]
    reference_cached: Sequence[bool]


class Prm(Protocol):
    """The weights (`reward_model.py`); every method blocks."""

    version: int
    beta: float
    reference_id: str
    fingerprint: str

    @property
    def scores_side_by_side(self) -> bool:
        """Whether `score` with `reuse` may be called while another such call is under way."""

    def score(
        self, groups: Sequence[PrmGroup], *, reuse: bool = False, is_wanted: IsWanted | None = None
    ) -> ScoredRows:
        """Token rewards of every sample, rows of all groups in order; with `reuse`, from kept reference log-probs.

        Raises:
            TookTooLong: `is_wanted` said between two passes that nobody waits any more.
        """

    def learn(self, groups: Sequence[PrmGroup], outcomes: Sequence[float]) -> PrmMetrics:
        """Learn one outcome per sample; the version grows by one."""

    def begin_save(self, folder: Path) -> PendingCheckpoint:
        """Copy a checkpoint, to be written while other calls go on."""

    def restore(self, folder: Path | None) -> None:
        """Go back to a checkpoint, or to the start."""


def _give_way() -> None:
    """Lower the priority of this thread, and of the threads that torch starts from it, to that of a background job.

    On a machine without other work this costs nothing. With a core less than threads, a short score goes first.
    """
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + _NICE)


class RewardService:
    """Serialises access to the PRM; its checkpoints lie beside the policy's in the run folder."""

    def __init__(self, prm: Prm, *, checkpoints: Path, short_tokens: int = 0) -> None:
        """`short_tokens`: scores of the API with more tokens give way to those with fewer; 0: all are alike."""
        self._prm = prm
        self._checkpoints = checkpoints
        self._short_tokens = short_tokens
        self._long_scores = ThreadPoolExecutor(1, "long-scores", initializer=_give_way) if short_tokens else None
        self._lock = SharedLock()
        self._learnt: tuple[int, PrmMetrics] | None = None
        self._saving: PendingCheckpoint | None = None

    async def score(self, groups: Sequence[PrmGroup], *, reuse: bool = False) -> TokenRewards:
        """Token rewards of every sample, all from the version that answers.

        With `reuse`, reference log-probs of earlier calls are used again: for serving, not for training.
        """

        has_gone = threading.Event()

        def work() -> TokenRewards:
            # Ranks do not ask each other whether anybody waits: they go to the end together.
            is_wanted = (lambda: not has_gone.is_set()) if self._prm.scores_side_by_side else None
            scored = self._prm.score(groups, reuse=reuse, is_wanted=is_wanted)
            return TokenRewards(
                rows=tuple(map(tuple, scored.rewards)),
                prm_version=self._prm.version,
                beta=self._prm.beta,
                reference_id=self._prm.reference_id,
                reference_cached=tuple(scored.reference_cached),
            )

        try:
            is_shared = reuse and self._prm.scores_side_by_side
            is_long = sum(group.num_tokens for group in groups) > self._short_tokens
            return await self._to_its_end(
                work, shared=is_shared, executor=self._long_scores if is_shared and is_long else None
            )
        except asyncio.CancelledError:
            has_gone.set()
            raise

    async def learn(self, step: int, groups: Sequence[PrmGroup], outcomes: Sequence[float]) -> PrmMetrics:
        """Learn one batch. A step number that was learnt last is answered again and not learnt twice.

        Raises:
            InvalidInput: the step lies before one that was learnt, so the caller's history is another one.
        """

        def work() -> PrmMetrics:
            if self._learnt is not None and step == self._learnt[0]:
                return self._learnt[1]
            if self._learnt is not None and step < self._learnt[0]:
                raise InvalidInput(f"step {step} comes after step {self._learnt[0]} was learnt; restore first")
            metrics = self._prm.learn(groups, outcomes)
            self._learnt = (step, metrics)
            return metrics

        return await self._to_its_end(work)

    async def save(self, step: int) -> str:
        """Write the checkpoint of a step; returns its Hugging Face folder. Other calls only wait for the copy.

        Raises:
            VersionConflict: a later step was learnt already.
            CheckpointError: it could not be written.
        """

        def copy() -> PendingCheckpoint:
            if self._learnt is not None and self._learnt[0] > step:
                raise VersionConflict(f"step {step} cannot be saved: step {self._learnt[0]} was learnt already")
            if self._saving is not None:
                with contextlib.suppress(CheckpointError):  # whoever asked for it has heard of it
                    self._saving.wait()
            self._saving = self._prm.begin_save(self._checkpoints / f"step_{step}")
            return self._saving

        saving = await self._to_its_end(copy)
        await asyncio.to_thread(saving.wait)
        _log.info("saved", step=step, prm_version=self._prm.version)
        return str(saving.folder)

    async def restore(self, step: int) -> int:
        """Go back to the checkpoint of a step, or to the start."""

        def work() -> int:
            self._prm.restore(self._checkpoints / f"step_{step}" if step else None)
            self._learnt = None
            _log.info("restored", step=step, prm_version=self._prm.version)
            return self._prm.version

        return await self._to_its_end(work)

    async def _to_its_end(
        self, work: Callable[[], AnswerT], *, shared: bool = False, executor: Executor | None = None
    ) -> AnswerT:
        """Run blocking work whole, even when its caller goes away once it has begun; alone, or `shared` with its like.

        A call that is cancelled (a deadline, a dead trainer) does not stop its thread; were the lock free by then, a
        repeated Learn would run beside it. A caller who goes before its turn leaves nothing to be done.
        """
        await self._lock.acquire(shared=shared)

        async def run() -> AnswerT:
            try:
                in_context = partial(contextvars.copy_context().run, work)
                return await asyncio.get_running_loop().run_in_executor(executor, in_context)
            finally:
                await self._lock.release(shared=shared)

        return await asyncio.shield(asyncio.ensure_future(run()))

    async def info(self) -> PrmInfo:
        """Which PRM answers."""
        return PrmInfo(
            prm_version=self._prm.version,
            beta=self._prm.beta,
            reference_id=self._prm.reference_id,
            reference_mode=self._prm.reference_id if self._prm.reference_id in ("policy", "none") else "freeze",
            tokenizer_fingerprint=self._prm.fingerprint,
        )
