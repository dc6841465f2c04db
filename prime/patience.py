"""Waiting for something that is away for a moment: repeat a harmless operation until it answers or patience ends."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from prime.errors import PrimeError

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0

AnswerT = TypeVar("AnswerT")


async def patiently(operation: Callable[[], Awaitable[AnswerT]], *, seconds: float) -> AnswerT:
    """Repeat `operation` while it raises a retryable error, for `seconds` from its first failure.

    Raises:
        PrimeError: a failure that a repeat cannot cure, or the last one when patience ended.
    """
    pause, give_up_at = _FIRST_PAUSE_S, 0.0
    while True:
        try:
            return await operation()
        except PrimeError as error:
            # From the failure on: a call that ran for minutes before its peer died deserves as much patience.
            give_up_at = give_up_at or time.monotonic() + seconds
            if not error.retryable or time.monotonic() + pause > give_up_at:
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)
