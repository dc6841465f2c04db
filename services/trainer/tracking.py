"""Where the figures of a step go: into the run's own record at once, and to experiment trackers off the training path.

Each tracker has a bounded queue and a thread of its own. One that is slow, away or broken loses figures, which is said
once in the log and counted; the run never waits for it before its end, and never ends because of it. A resumed run
tells its trackers everything again, and so what they lost.
"""

import contextvars
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol

import structlog

from prime.errors import PrimeError
from prime.ports import Tracker
from prime.tracking import Entry, Outcome, TrackedRun

_log = structlog.get_logger()
# Rows that may wait per tracker: hours of steps, and a few MiB.
_CAPACITY = 1024
_ADVICE = "metrics.jsonl is complete; `primectl export` writes it to the tracker afterwards"


class Record(Tracker, Protocol):
    """The run's own tracker, which can be read back."""

    def entries(self) -> Sequence[Entry]:
        """Steps and evaluations by number."""


class Tracking:
    """All trackers of a run. `record` is the run's own: it is written by the caller, and its errors end the run."""

    def __init__(
        self,
        run: TrackedRun,
        record: Record,
        others: Sequence[Tracker] = (),
        *,
        on_lost: Callable[[str], None] = lambda tracker: None,
        capacity: int = _CAPACITY,
    ) -> None:
        """`on_lost` is told the tracker's name for every row that it did not take, from any thread."""
        self._run = run
        self._record = record
        self._feeds = [_Feed(each, on_lost, capacity) for each in others]

    def start(self, *, first_step: int) -> None:
        """Begin, or go on before the step that will be logged first."""
        run = replace(self._run, first_step=first_step)
        self._record.start(run)
        for feed in self._feeds:
            feed.start(run, self._past)

    def _past(self, run: TrackedRun) -> list[Entry]:
        """What the run's earlier lives left. Steps of this one may be in the record already; they come by the queue."""
        return [each for each in self._record.entries() if each.number < run.first_step] if run.first_step else []

    def log_step(self, row: Mapping[str, float]) -> None:
        """The figures of a step, its `step` included."""
        self._record.log_step(row)
        for feed in self._feeds:
            feed.put(Entry(number=int(row["step"]), is_evaluation=False, row=row))

    def log_evaluation(self, row: Mapping[str, Any]) -> None:
        """An evaluation, its `version` included."""
        self._record.log_evaluation(row)
        for feed in self._feeds:
            feed.put(Entry(number=int(row["version"]), is_evaluation=True, row=row))

    def close(self, outcome: Outcome, *, patience_s: float) -> None:
        """Have every tracker take what waits; after `patience_s` seconds in all, the rest is lost to it. Blocks."""
        self._record.finish(outcome)
        deadline = time.monotonic() + patience_s
        for feed in self._feeds:
            feed.end(outcome)
        for feed in self._feeds:
            feed.wait(max(0.0, deadline - time.monotonic()))


class _Feed:
    """One tracker behind its queue. A daemon thread: a tracker that hangs does not keep the process alive."""

    def __init__(self, tracker: Tracker, on_lost: Callable[[str], None], capacity: int) -> None:
        self._tracker = tracker
        self._on_lost = on_lost
        self._capacity = capacity
        self._queue: SimpleQueue[Entry | Outcome] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._warned = False

    def start(self, run: TrackedRun, past: Callable[[TrackedRun], list[Entry]]) -> None:
        # With the context of the caller, so that the lines of the log name the service.
        work = partial(contextvars.copy_context().run, self._work, run, past)
        self._thread = threading.Thread(target=work, name=f"tracker-{self._tracker.name}", daemon=True)
        self._thread.start()

    def put(self, entry: Entry) -> None:
        if self._queue.qsize() < self._capacity:
            self._queue.put(entry)
        else:
            self._lose(f"it takes figures too slowly, {self._capacity} rows wait already")

    def end(self, outcome: Outcome) -> None:
        """The last item, for which there is always room."""
        self._queue.put(outcome)

    def wait(self, seconds: float) -> None:
        if self._thread is None:
            return
        self._thread.join(seconds)
        if self._thread.is_alive():
            # What waits, the end included, and what is at hand: nobody knows how much of it arrives.
            for _ in range(self._queue.qsize() + 1):
                self._lose("it did not take all figures before the end of the run (trainer.trackers.flush_seconds)")

    def _work(self, run: TrackedRun, past: Callable[[TrackedRun], list[Entry]]) -> None:
        try:
            place = self._tracker.start(run)
            _log.info("tracking", tracker=self._tracker.name, place=place)
            entries = past(run)
        except PrimeError as error:
            self._warn(str(error))
            while isinstance(self._queue.get(), Entry):
                self._on_lost(self._tracker.name)
            return
        for entry in entries:
            self._tell(entry)
        while isinstance(item := self._queue.get(), Entry):
            self._tell(item)
        try:
            self._tracker.finish(item)
        except PrimeError as error:
            self._lose(str(error))

    def _tell(self, entry: Entry) -> None:
        try:
            (self._tracker.log_evaluation if entry.is_evaluation else self._tracker.log_step)(entry.row)
        except PrimeError as error:
            self._lose(str(error))

    def _lose(self, reason: str) -> None:
        self._warn(reason)
        self._on_lost(self._tracker.name)

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            _log.warning("tracker loses figures", tracker=self._tracker.name, reason=reason, advice=_ADVICE)
