"""Lets many callers share forward passes: requests that wait together are scored together, in bounded numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from prime.types import PrmGroup, TokenRewards


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchedRewards:
    """One caller's share of a batch: `BatchedRewards(rewards=..., queue_seconds=0.004, inference_seconds=0.11)`."""

    rewards: TokenRewards
    queue_seconds: float
    inference_seconds: float


class TokenScorer(Protocol):
    """Token rewards for groups, in turn with everybody else's."""

    async def score(self, groups: Sequence[PrmGroup]) -> BatchedRewards:
        """Rows of all groups in order, from one PRM version.

        Raises:
            Overloaded: too many requests wait already.
        """
