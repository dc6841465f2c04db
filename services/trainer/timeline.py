"""Who worked when within a step, and so who waited for whom, and for how long nobody worked at all."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator

from prime import tracing

Interval = tuple[float, float]


class Timeline:
    """Intervals of work per worker, seen from the trainer; what spans two steps counts in each with its part.

    Example: "policy" works from 0 to 3 s and "prm" from 2 to 4 s of a step of 5 s: their shares are 0.6 and 0.4, and
    somebody worked in 0.8 of the step.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._done: dict[str, list[Interval]] = {}
        self._open: dict[int, tuple[str, float]] = {}
        self._numbers = itertools.count()
        self._began = clock()

    def begin_step(self) -> None:
        """Start anew; work at hand goes on into this step."""
        self._done.clear()
        self._began = self._clock()

    @contextlib.contextmanager
    def working(self, who: str) -> Iterator[None]:
        """`who` works until the block ends; a span of the run's trace as well."""
        number = next(self._numbers)
        self._open[number] = (who, self._clock())
        try:
            with tracing.span(who):
                yield
        finally:
            _, started = self._open.pop(number)
            self._done.setdefault(who, []).append((max(started, self._began), self._clock()))

    def seconds(self) -> dict[str, float]:
        """Of work per worker since the step began."""
        return {who: _length(intervals) for who, intervals in sorted(self._until_now().items())}

    def anybody_seconds(self, since: float | None = None) -> float:
        """Seconds in which at least one worker worked, since the step began or since a time of the clock."""
        start = self._began if since is None else since
        everything = [interval for intervals in self._until_now().values() for interval in intervals]
        return _length([(max(begin, start), end) for begin, end in everything if end > start])

    def now(self) -> float:
        """The clock's time."""
        return self._clock()

    def _until_now(self) -> dict[str, list[Interval]]:
        found = {who: list(intervals) for who, intervals in self._done.items()}
        for who, started in self._open.values():
            found.setdefault(who, []).append((max(started, self._began), self._clock()))
        return found


def _length(intervals: list[Interval]) -> float:
    """Of the union."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total
