"""The use case of the PRM service: score, learn once per step, save, restore; one call at a time.

Implements `ports.RewardModel`, so a trainer may hold it in its own process too.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import structlog

from prime.errors import InvalidInput
from prime.types import PrmGroup, PrmInfo, PrmMetrics, TokenRewards

_log = structlog.get_logger()


class Prm(Protocol):
    """The weights (`reward_model.py`); every method blocks."""

    version: int
    beta: float
    reference_id: str
    fingerprint: str

    def score(self, groups: Sequence[PrmGroup]) -> list[list[float]]:
        """Token rewards of every sample, rows of all groups in order."""

    def learn(self, groups: Sequence[PrmGroup], outcomes: Sequence[float]) -> PrmMetrics:
        """Learn one outcome per sample; the version grows by one."""

    def save(self, folder: Path) -> Path:
        """Write a checkpoint; returns its Hugging Face folder."""

    def restore(self, folder: Path | None) -> None:
        """Go back to a checkpoint, or to the start."""


class RewardService:
    """Serialises access to the PRM; its checkpoints lie beside the policy's in the run folder."""

    def __init__(self, prm: Prm, *, checkpoints: Path) -> None:
        self._prm = prm
        self._checkpoints = checkpoints
        self._lock = asyncio.Lock()
        self._learnt: tuple[int, PrmMetrics] | None = None

    async def score(self, groups: Sequence[PrmGroup]) -> TokenRewards:
        """Token rewards of every sample, all from the version that answers."""
        async with self._lock:
            rows = await asyncio.to_thread(self._prm.score, groups)
            return TokenRewards(
                rows=tuple(map(tuple, rows)),
                prm_version=self._prm.version,
                beta=self._prm.beta,
                reference_id=self._prm.reference_id,
            )

    async def learn(self, step: int, groups: Sequence[PrmGroup], outcomes: Sequence[float]) -> PrmMetrics:
        """Learn one batch. A step number that was learnt last is answered again and not learnt twice.

        Raises:
            InvalidInput: the step lies before one that was learnt, so the caller's history is another one.
        """
        async with self._lock:
            if self._learnt is not None and step == self._learnt[0]:
                return self._learnt[1]
            if self._learnt is not None and step < self._learnt[0]:
                raise InvalidInput(f"step {step} comes after step {self._learnt[0]} was learnt; restore first")
            metrics = await asyncio.to_thread(self._prm.learn, groups, outcomes)
            self._learnt = (step, metrics)
            return metrics

    async def save(self, step: int) -> str:
        """Write the checkpoint of a step; returns the Hugging Face folder."""
        async with self._lock:
            folder = await asyncio.to_thread(self._prm.save, self._checkpoints / f"step_{step}")
            _log.info("saved", step=step, prm_version=self._prm.version)
            return str(folder)

    async def restore(self, step: int) -> int:
        """Go back to the checkpoint of a step, or to the start."""
        async with self._lock:
            await asyncio.to_thread(self._prm.restore, self._checkpoints / f"step_{step}" if step else None)
            self._learnt = None
            _log.info("restored", step=step, prm_version=self._prm.version)
            return self._prm.version

    async def info(self) -> PrmInfo:
        """Which PRM answers."""
        return PrmInfo(
            prm_version=self._prm.version,
            beta=self._prm.beta,
            reference_id=self._prm.reference_id,
            reference_mode="policy" if self._prm.reference_id == "policy" else "freeze",
            tokenizer_fingerprint=self._prm.fingerprint,
        )
