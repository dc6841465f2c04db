"""A lock that many may share, or one has alone: scores are computed side by side, and nothing is learnt meanwhile."""

import asyncio


class SharedLock:
    """Whoever wants it alone is next: sharers that come later wait. Of one event loop."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._sharers = 0
        self._is_alone = False
        self._want_it_alone = 0

    async def acquire(self, *, shared: bool) -> None:
        """Wait for it; whoever is cancelled meanwhile has not got it."""
        async with self._changed:
            if shared:
                await self._changed.wait_for(lambda: not self._is_alone and not self._want_it_alone)
                self._sharers += 1
                return
            self._want_it_alone += 1
            try:
                await self._changed.wait_for(lambda: not self._is_alone and not self._sharers)
                self._is_alone = True
            finally:
                self._want_it_alone -= 1
                self._changed.notify_all()

    async def release(self, *, shared: bool) -> None:
        """Give it back, as it was acquired."""
        async with self._changed:
            if shared:
                self._sharers -= 1
            else:
                self._is_alone = False
            self._changed.notify_all()
