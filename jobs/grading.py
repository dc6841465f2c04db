"""The verifier, for batch jobs that ask it about thousands of problems at once."""

import asyncio
from collections.abc import Sequence
from functools import partial

from prime.errors import PeerUnavailable
from prime.patience import patiently
from prime.ports import Verifier
from prime.types import GradeItem, Verdict, VerdictStatus, VerifierInfo

_AT_ONCE = 16
_PATIENCE_S = 60.0


def answer_item(answer: str, truth: str, *, item_id: str, source: str = "") -> GradeItem:
    """Whether a final answer is the ground truth of a mathematics problem."""
    return GradeItem(
        item_id=item_id,
        data_source=source,
        ability="math",
        kind="math",
        response=f"\\boxed{{{answer}}}",
        ground_truth=truth,
    )


class BoundedVerifier:
    """`ports.Verifier` that hands on a few calls at a time, so that none is turned away.

    A verifier that failed is an error here: nobody knows then, and it must not pass for an answer that is wrong.
    """

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def grade(self, items: Sequence[GradeItem]) -> list[Verdict]:
        """One verdict per item, in order.

        Raises:
            PeerUnavailable: the verifier is away, or failed on an item.
        """
        async with self._places:
            verdicts = await patiently(partial(self._verifier.grade, items), seconds=_PATIENCE_S)
        for item, verdict in zip(items, verdicts, strict=True):
            if verdict.status is VerdictStatus.INFRA_ERROR:
                raise PeerUnavailable(
                    f"the verifier failed on {item.item_id}: {verdict.reason}; start again, to go on from here"
                )
        return verdicts

    async def info(self) -> VerifierInfo:
        """What it can grade."""
        return await self._verifier.info()
