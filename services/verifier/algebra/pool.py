"""Settles questions of algebra in warm, locked worker processes that are killed from outside at the deadline.

Owns the processes of `worker.py`; `grade.py` asks it what exact comparison cannot settle. No time-out inside the
worker is relied on: code that holds the interpreter does not notice one.

                            answer within `slow_after`
    question ─► fast place ─────────────────────────────► verdict
                    │  too slow, and a slow place is free: its worker goes along, the fast place is free again
                    └─► slow place ─► verdict, or killed at the deadline

So an honest question waits for others that are quick, and never behind one that takes its whole second. With all slow
places taken, a slow question stays where it is until its deadline.

All of this is in processor time of the worker: on a busy machine a question takes longer, and its verdict is the same.
Workers that are killed are replaced by spares, which are started before there is need of them.
"""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from prime.errors import NotReady, SandboxError
from services.verifier.algebra.process import Nursery, Starter, Worker, WorkerDied
from services.verifier.mathematics.question import All, Leaf, Symbolic, to_json
from services.verifier.sandbox.isolation.clock import Times
from services.verifier.sandbox.zygotes import Tier

# Processor time; nineteen of twenty honest questions take less than a fifth of it.
_SLOW_AFTER = 0.05
# For each worker. What is slow steps back, and takes long on a busy machine; it must not take the fast places as well.
_SLOW_PLACES = 4
_RECYCLE_AFTER = 2000
_RECYCLE_BYTES = 256 * 1024 * 1024
_LONGEST_QUESTION = 60 * 1024
# How often a slow question looks for a slow place while it has none.
_LOOK_SECONDS = 0.02
_SHORTEST_LOOK = 0.005
# A worker that does nothing for so long never will. An honest one only computes.
_IDLE_SECONDS = 10.0
# In units of the processor time: a machine that lets it wait for longer gives no answer in useful time.
_PATIENCE = 100


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
        slow_places = _SLOW_PLACES * workers
        self._workers = workers
        self._seconds, self._recycle_after = seconds, recycle_after
        self._nursery = Nursery(tier)
        self._start = start or self._nursery
        self._fast, self._slow = threading.Semaphore(workers), threading.Semaphore(slow_places)
        self._threads = ThreadPoolExecutor(workers + slow_places, thread_name_prefix="mathematics")
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._spare: list[Worker] = []
        """Workers that have never been asked."""
        self._living: set[Worker] = set()
        self._closed = False
        self._spare_wanted = threading.Event()
        self._spare_keeper: threading.Thread | None = None
        self.replaced = 0
        """Workers that were ended so far, for whatever reason."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Isolation in force around the workers; empty before the first is started."""
        return self._nursery.layers

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that live, without spares."""
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
        self._spare_wanted.set()
        with self._lock:
            living = [*self._living, *self._spare]
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
            return self._ask_once(line, self._take_new)
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
            worker.send(line)
            answer = worker.poll(time.monotonic() + min(_SLOW_AFTER, self._seconds))
            while answer is None and not self._has_had_its_time(times := worker.times()):
                is_slow = times.cpu >= _SLOW_AFTER
                if place is self._fast and is_slow and self._slow.acquire(blocking=False):
                    worker.step_back()
                    self._fast.release()
                    place = self._slow
                # It cannot use more processor time than passes meanwhile.
                left = (self._seconds if is_slow else _SLOW_AFTER) - times.cpu
                pause = min(left, _LOOK_SECONDS) if is_slow and place is self._fast else left
                answer = worker.poll(time.monotonic() + max(pause, _SHORTEST_LOOK))
        finally:
            if worker is not None:
                self._give_back(worker, answer, was_slow=place is self._slow)
            place.release()
        return _verdict(answer)

    def _has_had_its_time(self, times: Times) -> bool:
        has_waited = times.idle >= _IDLE_SECONDS or times.wall >= _PATIENCE * self._seconds
        return times.cpu >= self._seconds or has_waited

    # ------------------------------------------------------------ the workers

    def _take(self) -> Worker:
        while True:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is None:
                return self._take_new()
            if worker.is_alive():
                return worker
            self._bury(worker)

    def _take_new(self) -> Worker:
        """One that nobody has asked yet."""
        while True:
            with self._lock:
                worker = self._spare.pop() if self._spare else None
                if worker is not None and not self._closed:
                    self._living.add(worker)
            if worker is None:
                worker = self._start_worker()
                self._keep_spares()
                return worker
            self._keep_spares()
            if not self._closed and worker.is_alive():
                return worker
            self._bury(worker)

    def _keep_spares(self) -> None:
        with self._lock:
            if self._spare_keeper is None and not self._closed:
                self._spare_keeper = threading.Thread(target=self._start_spares, name="mathematics-spares", daemon=True)
                self._spare_keeper.start()
        self._spare_wanted.set()

    def _start_spares(self) -> None:
        while not self._closed:
            self._spare_wanted.wait()
            self._spare_wanted.clear()
            with contextlib.suppress(SandboxError):  # who needs one and finds none says so
                while not self._closed and len(self._spare) < self._workers:
                    worker = Worker(self._start)
                    with self._lock:
                        self._spare.append(worker)
                    if self._closed:
                        worker.kill()

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
