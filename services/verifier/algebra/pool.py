"""Settles questions of algebra in warm, locked worker processes that are killed from outside at the deadline.

Owns the processes of `worker.py`; `grade.py` asks it what exact comparison cannot settle. No time-out inside the
worker is relied on: code that holds the interpreter does not notice one.

                            answer within `slow_after`
    question ─► fast place ─────────────────────────────► verdict
                    │  too slow, and a slow place is free: its worker goes along, the fast place is free again
                    └─► slow place ─► verdict, or killed at the deadline

So an honest question waits for others that are quick, and never behind one that takes its whole second. With all slow
places taken, a slow question stays where it is until its deadline.
"""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from prime.errors import NotReady, SandboxError
from services.verifier.algebra.process import Nursery, Starter, Worker, WorkerDied
from services.verifier.mathematics.question import All, Leaf, Symbolic, to_json
from services.verifier.sandbox.zygotes import Tier

_SLOW_AFTER = 0.1
_RECYCLE_AFTER = 2000
_RECYCLE_BYTES = 256 * 1024 * 1024
_LONGEST_QUESTION = 60 * 1024
# How often a slow question looks for a slow place while it has none.
_LOOK_SECONDS = 0.02


class Unsettled(Exception):
    """No verdict; the message is the reason: `deadline`, `memory`, `too_complex` or `not_comparable`."""


class MathPool:
    """Settles `workers` questions at a time, and a few slow ones besides.

    A worker is replaced after `recycle_after` answers, when it has grown to 256 MiB, and when it was killed. `start` is
    how a worker comes to be: by the zygote of `Nursery`, or whatever a test puts in its place.
    """

    def __init__(
        self,
        workers: int,
        tier: Tier,
        seconds: float = 1.5,
        *,
        recycle_after: int = _RECYCLE_AFTER,
        start: Starter | None = None,
    ) -> None:
        slow_places = 2 * workers
        self._workers = workers
        self._seconds, self._recycle_after = seconds, recycle_after
        self._nursery = Nursery(tier)
        self._start = start or self._nursery
        self._fast, self._slow = threading.Semaphore(workers), threading.Semaphore(slow_places)
        self._threads = ThreadPoolExecutor(workers + slow_places, thread_name_prefix="mathematics")
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._living: set[Worker] = set()
        self._closed = False
        self.replaced = 0
        """Workers that were ended so far, for whatever reason."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Isolation in force around the workers; empty before the first is started."""
        return self._nursery.layers

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that live."""
        with self._lock:
            return tuple(worker.pid for worker in self._living)

    async def settle(self, symbolic: Symbolic) -> bool:
        """Whether the answer is right. May be called from several event loops at once.

        Raises:
            Unsettled: the deadline passed, or the memory was used up.
                SandboxError: a worker could not be started or locked up, or died twice. Says nothing about the answer.
            NotReady: the pool is closed, or was while the question ran.
        """
        if self._closed:
            raise _stopping()
        line = json.dumps({"question": to_json(symbolic.question)}).encode() + b"\n"
        if len(line) > _LONGEST_QUESTION:
            raise Unsettled("too_complex")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, line)

    async def equal(self, gold: str, parts: Sequence[str]) -> bool:
        """Whether each of `parts` is the same expression as `gold`. `settle` knows more; raises what it raises."""
        question = All(of=tuple(Leaf(gold=gold, answer=part) for part in parts))
        return await self.settle(Symbolic(gold=gold, answer=", ".join(parts), question=question))

    def close(self) -> None:
        """End the workers."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            living = list(self._living)
        for worker in living:
            worker.kill()
        self._nursery.close()

    # ------------------------------------------------------------ one question

    def _ask(self, line: bytes) -> bool:
        try:
            return self._ask_once(line, self._take)
        except (WorkerDied, SandboxError):
            pass  # not the question's fault, perhaps: a worker that nobody has had yet gets it once more
        try:
            return self._ask_once(line, self._start_worker)
        except WorkerDied:
            if self._closed:
                raise _stopping() from None
            raise SandboxError("two mathematics workers were killed from outside over one question") from None

    def _ask_once(self, line: bytes, find_worker: Callable[[], Worker]) -> bool:
        place = self._fast
        place.acquire()
        worker: Worker | None = None
        answer: dict[str, object] | None = None
        try:
            worker = find_worker()
            started = time.monotonic()
            deadline = started + self._seconds
            worker.send(line)
            answer = worker.poll(min(started + _SLOW_AFTER, deadline))
            while answer is None and time.monotonic() < deadline:
                if place is self._fast and self._slow.acquire(blocking=False):
                    worker.step_back()
                    self._fast.release()
                    place = self._slow
                until = time.monotonic() + _LOOK_SECONDS if place is self._fast else deadline
                answer = worker.poll(min(until, deadline))
        finally:
            if worker is not None:
                self._give_back(worker, answer, was_slow=place is self._slow)
            place.release()
        return _verdict(answer)

    # ------------------------------------------------------------ the workers

    def _take(self) -> Worker:
        while True:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is None:
                return self._start_worker()
            if worker.is_alive():
                return worker
            self._bury(worker)

    def _give_back(self, worker: Worker, answer: dict[str, object] | None, *, was_slow: bool) -> None:
        if answer is None or "undecided" in answer or not self._is_fresh(worker):
            self._bury(worker)
            return
        if was_slow and not worker.step_forward():
            self._bury(worker)
            return
        with self._lock:
            is_wanted = not self._closed and len(self._idle) < self._workers
            if is_wanted:
                self._idle.append(worker)
        if not is_wanted:
            self._bury(worker)

    def _is_fresh(self, worker: Worker) -> bool:
        return worker.answered < self._recycle_after and worker.resident_bytes() < _RECYCLE_BYTES

    def _start_worker(self) -> Worker:
        if self._closed:
            raise _stopping()
        worker = Worker(self._start)
        with self._lock:
            self._living.add(worker)
            closed = self._closed
        if closed:
            self._bury(worker)
            raise _stopping()
        return worker

    def _bury(self, worker: Worker) -> None:
        worker.end()
        with self._lock:
            self._living.discard(worker)
            self.replaced += 1


def _stopping() -> NotReady:
    return NotReady("the verifier is stopping; ask again when it is back")


def _verdict(answer: dict[str, object] | None) -> bool:
    if answer is None:
        raise Unsettled("deadline")
    if "undecided" in answer:
        raise Unsettled(str(answer["undecided"]))
    return answer["equal"] is True
