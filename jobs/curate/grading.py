"""The verifier, for stages that ask it about thousands of problems at once."""

import asyncio
from collections.abc import Sequence
from functools import partial

from prime.patience import patiently
from prime.ports import Verifier
from prime.types import GradeItem, Verdict, VerifierInfo

_AT_ONCE = 16
_PATIENCE_S = 60.0


class BoundedVerifier:
    """`ports.Verifier` that hands on a few calls at a time, so that none is turned away."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def grade(self, items: Sequence[GradeItem]) -> list[Verdict]:
        """One verdict per item, in order."""
        async with self._places:
            return await patiently(partial(self._verifier.grade, items), seconds=_PATIENCE_S)

    async def info(self) -> VerifierInfo:
        """What it can grade."""
        return await self._verifier.info()
