"""Symbolic comparison in warm, locked worker processes that are killed from outside at the deadline.

Owns the processes of `math_worker.py`; `grade.py` asks it what exact comparison cannot settle. No time-out inside the
worker is relied on: code that holds the interpreter does not notice one.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from prime.errors import SandboxError
from services.verifier.jail import UNPRIVILEGED_ID
from services.verifier.sandbox import Slots

_WORKER = Path(__file__).with_name("math_worker.py")
# Clear of the ids that programs run under.
_FIRST_IDENTITY = UNPRIVILEGED_ID - 100
_MEMORY_MIB = 1024
_START_SECONDS = 60.0
_LONGEST_LINE = 64 * 1024


class Unsettled(Exception):
    """No verdict; the message is the reason, such as `deadline`."""


class _WorkerDied(Exception):
    """The worker ended in the middle of a question."""


class _Deadline(Exception):
    """No answer in time."""


class MathPool:
    """`equal` questions, `workers` at a time. A worker is replaced after `recycle_after` answers, and when killed."""

    def __init__(self, workers: int, seconds: float, recycle_after: int = 500) -> None:
        self._slots = Slots(workers, _FIRST_IDENTITY)
        self._seconds = seconds
        self._recycle_after = recycle_after
        self._workers: dict[int, _Worker] = {}
        self._closed = False
        self.layers: tuple[str, ...] = ()
        """Isolation in force in the worker that started last."""

    async def equal(self, gold: str, parts: Sequence[str]) -> bool:
        """Whether each of `parts` is the same expression as `gold`.

        Raises:
            Unsettled: the deadline passed, the memory was used up, or a worker died twice.
            SandboxError: a worker could not be started or locked up.
        """
        question = json.dumps({"gold": gold, "parts": list(parts)}).encode() + b"\n"
        return await self._slots.use(lambda identity: self._ask(identity, question))

    def close(self) -> None:
        """End the workers."""
        self._closed = True
        self._slots.close()
        for worker in list(self._workers.values()):
            worker.kill()

    def _ask(self, identity: int, question: bytes) -> bool:
        try:
            return self._ask_once(identity, question)
        except _WorkerDied:
            pass  # not the question's fault, perhaps: a fresh worker gets it once more
        try:
            return self._ask_once(identity, question)
        except _WorkerDied:
            raise Unsettled("worker_died") from None

    def _ask_once(self, identity: int, question: bytes) -> bool:
        if self._closed:
            raise Unsettled("stopping")
        worker = self._workers.get(identity)
        if worker is None:
            cpu_seconds = int(self._recycle_after * self._seconds) + 60
            worker = self._workers[identity] = _Worker(identity, cpu_seconds)
            self.layers = worker.layers
        try:
            answer = worker.ask(question, self._seconds)
        except (_Deadline, _WorkerDied) as error:
            self._bury(identity)
            if isinstance(error, _Deadline):
                raise Unsettled("deadline") from None
            raise
        reason = answer.get("undecided")
        if reason is not None or worker.answered >= self._recycle_after:
            self._bury(identity)
        if reason is not None:
            raise Unsettled(str(reason))
        return answer["equal"] is True

    def _bury(self, identity: int) -> None:
        worker = self._workers.pop(identity)
        worker.kill()
        worker.close_pipes()


class _Worker:
    """One process of `math_worker.py`."""

    def __init__(self, identity: int, cpu_seconds: int) -> None:
        self.answered = 0
        self._rest = b""
        self._process = subprocess.Popen(
            # Not -S: the libraries lie among the site packages. -P keeps this folder's names from shadowing them.
            [
                sys.executable,
                *("-s", "-P", "-B", "-X", "utf8"),
                str(_WORKER),
                *map(str, (identity, cpu_seconds, _MEMORY_MIB)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONHASHSEED": "0"},
            cwd="/",
            start_new_session=True,
            bufsize=0,
        )
        try:
            greeting = self._read_line(time.monotonic() + _START_SECONDS)
        except (_Deadline, _WorkerDied):
            self.kill()
            raise SandboxError(
                "a mathematics worker did not start; try `python services/verifier/math_worker.py 65434 60 1024`"
            ) from None
        if "refused" in greeting:
            self.kill()
            raise SandboxError(f"a mathematics worker could not be locked up: {greeting['refused']}")
        layers = greeting["layers"]
        assert isinstance(layers, list)
        self.layers = tuple(str(layer) for layer in layers)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ask(self, question: bytes, seconds: float) -> dict[str, object]:
        """The answer to one question.

        Raises:
            _Deadline: none came in time.
            _WorkerDied: none will come.
        """
        assert self._process.stdin is not None
        deadline = time.monotonic() + seconds
        try:
            self._process.stdin.write(question)  # far less than a pipe holds
        except BrokenPipeError:
            raise _WorkerDied from None
        answer = self._read_line(deadline)
        self.answered += 1
        return answer

    def kill(self) -> None:
        """End it and everything of it, at once."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close_pipes(self) -> None:
        """Close our ends. By the thread that reads them, not by one that merely kills."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _read_line(self, deadline: float) -> dict[str, object]:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._rest:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise _Deadline
            piece = os.read(pipe, _LONGEST_LINE)
            if not piece or len(self._rest) > _LONGEST_LINE:
                raise _WorkerDied
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError:
            raise _WorkerDied from None
        if not isinstance(answer, dict):
            raise _WorkerDied
        return answer
