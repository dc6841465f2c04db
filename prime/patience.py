"""Waiting for something that is away for a moment: repeat a harmless operation until it answers or patience ends."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from prime.errors import PrimeError

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0

AnswerT = TypeVar("AnswerT")


class Patience:
    """Decides when a failed operation is tried again, for `seconds` from its first failure.

    Example: `pause_after(Overloaded("..."))` gives 0.2, then 0.4, 0.8, and so on up to 5; then it raises.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._pause_s, self._give_up_at = _FIRST_PAUSE_S, 0.0

    def pause_after(self, error: PrimeError, *, at_least_s: float = 0.0) -> float:
        """Seconds to wait before the next try; `at_least_s` is what the peer asked for.

        Raises:
            PrimeError: the error itself, if a repeat cannot cure it or patience ends before the next try.
        """
        # From the failure on: a call that ran for minutes before its peer died deserves as much patience.
        self._give_up_at = self._give_up_at or time.monotonic() + self._seconds
        pause = max(self._pause_s, at_least_s)
        if not error.retryable or time.monotonic() + pause > self._give_up_at:
            raise error
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        return pause


async def patiently(operation: Callable[[], Awaitable[AnswerT]], *, seconds: float) -> AnswerT:
    """Repeat `operation` while it raises a retryable error, for `seconds` from its first failure.

    Raises:
        PrimeError: a failure that a repeat cannot cure, or the last one when patience ended.
    """
    patience = Patience(seconds)
    while True:
        try:
            return await operation()
        except PrimeError as error:
            pause = patience.pause_after(error)
        await asyncio.sleep(pause)
