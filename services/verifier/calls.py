"""Remembers calls by their idempotency key, so that one that is repeated joins the first. Used by `grade.py`.

first call ──► work ──► answer, kept for a minute
repeated, while it runs ──► waits for the same work
repeated, within the minute ──► the same answer
caller gone ──► the work goes on for half a minute, should the caller come back, and is then stopped
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from prime.errors import InvalidInput

_KEPT_SECONDS = 60.0
_MOST_KEPT = 256
_REJOIN_SECONDS = 30.0

AnswerT = TypeVar("AnswerT")


@dataclass(slots=True, kw_only=True)
class _Call(Generic[AnswerT]):
    fingerprint: Hashable
    task: asyncio.Task[AnswerT]
    waiters: int = 0
    ended_at: float | None = None


class Calls(Generic[AnswerT]):
    """One event loop's calls."""

    def __init__(self, *, rejoin_seconds: float = _REJOIN_SECONDS) -> None:
        self._rejoin_seconds = rejoin_seconds
        self._calls: dict[str, _Call[AnswerT]] = {}

    async def once(self, key: str, fingerprint: Hashable, work: Callable[[], Awaitable[AnswerT]]) -> AnswerT:
        """The answer of `work`, called at most once per key as long as the key is remembered; not when it failed.

        Raises:
            InvalidInput: the key came before with another `fingerprint`, so with another question.
        """
        self._forget_old()
        call = self._calls.get(key)
        if call is None:
            call = _Call(fingerprint=fingerprint, task=asyncio.ensure_future(_run(work)))
            self._calls[key] = call
            call.task.add_done_callback(lambda task: self._ended(key, task))
        elif call.fingerprint != fingerprint:
            raise InvalidInput(f"idempotency key {key[:40]!r} came before with other items; use a fresh one per call")
        call.waiters += 1
        try:
            return await asyncio.shield(call.task)
        finally:
            call.waiters -= 1
            if not call.waiters and not call.task.done():
                asyncio.get_running_loop().call_later(self._rejoin_seconds, self._stop_if_deserted, call)

    async def close(self) -> None:
        """Stop what nobody waits for any more."""
        for call in list(self._calls.values()):
            call.task.cancel()
        await asyncio.gather(*(call.task for call in self._calls.values()), return_exceptions=True)

    def _ended(self, key: str, task: asyncio.Task[AnswerT]) -> None:
        if task.cancelled() or task.exception() is not None:
            self._calls.pop(key, None)
        else:
            self._calls[key].ended_at = time.monotonic()

    def _stop_if_deserted(self, call: _Call[AnswerT]) -> None:
        if not call.waiters:
            call.task.cancel()

    def _forget_old(self) -> None:
        now = time.monotonic()
        ended = [key for key, call in self._calls.items() if call.ended_at is not None]
        too_many = len(ended) - _MOST_KEPT
        for index, key in enumerate(ended):
            ended_at = self._calls[key].ended_at
            assert ended_at is not None
            if index < too_many or now - ended_at > _KEPT_SECONDS:
                del self._calls[key]


async def _run(work: Callable[[], Awaitable[AnswerT]]) -> AnswerT:
    return await work()
