"""Runs one program on one input in a locked child process, and says how that ended.

The parent's side of `runner.py` and `jail.py`: it starts the child, feeds and reads its pipes within bounds, kills it
at the deadline, and reaps it. Used by `grade.py` and `canaries.py`. Blocking work happens in threads of its own, one
per slot; the child is exec'd, never forked from this process's state.
"""

import asyncio
import contextlib
import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, TypeVar

from prime.errors import NotReady, SandboxError
from services.verifier.jail import UNPRIVILEGED_ID

_RUNNER = Path(__file__).with_name("runner.py")
_CHUNK = 64 * 1024
_STDERR_KEPT = 8 * 1024
# One process with this many threads; a program that needs more is not an answer to a contest problem.
_THREADS = 33
ResultT = TypeVar("ResultT")


class Outcome(StrEnum):
    """How a test ended, before anybody looked at what it printed."""

    OK = "ok"
    RUNTIME_ERROR = "runtime_error"
    CPU_LIMIT = "cpu_limit"
    WALL_LIMIT = "wall_limit"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    UNSUPPORTED_RESULT = "unsupported_result"
    POLICY = "policy"
    """Killed for a system call of a foreign architecture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one test may use."""

    cpu_seconds: int
    wall_seconds: float
    memory_mib: int
    output_kib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A function call instead of a script: `Call(fn_name="add", arguments=[1, 2])`."""

    fn_name: str
    arguments: Sequence[object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What came out: `Execution(outcome=OK, stdout=b"6\\n", value=None, exit_code=0, cpu_ms=21.0, ...)`."""

    outcome: Outcome
    stdout: bytes
    value: bytes | None
    """JSON of what a call returned."""
    exit_code: int
    """Negative: the signal that ended it."""
    cpu_ms: float
    wall_ms: float
    layers: tuple[str, ...]
    """Isolation that was in force."""
    stderr_tail: bytes


class Slots:
    """A fixed number of places for children, each with a thread here and a user id there."""

    def __init__(self, count: int, first_identity: int) -> None:
        self._identities: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(count):
            self._identities.put(first_identity - index)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="sandbox")
        self._closed = False

    async def use(self, work: Callable[[int], ResultT]) -> ResultT:
        """Call `work(identity)` in a free place; waits for one, first come first served.

        Raises:
            NotReady: the places are closed.
        """
        if self._closed:
            raise NotReady("the verifier is stopping; ask again when it is back")

        def occupy() -> ResultT:
            identity = self._identities.get_nowait()
            try:
                return work(identity)
            finally:
                self._identities.put(identity)

        return await asyncio.get_running_loop().run_in_executor(self._threads, occupy)

    def close(self) -> None:
        """Take no more work; what runs is bounded by its limits."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)


class Sandbox:
    """`run` programs, at most `slots` at a time."""

    def __init__(self, slots: int) -> None:
        self._slots = Slots(slots, UNPRIVILEGED_ID)

    async def run(self, program: bytes, stdin: bytes, limits: Limits, call: Call | None = None) -> Execution:
        """One program on one input, or one call of a function of it, in a fresh process.

        Raises:
            SandboxError: the child never got as far as the program, or was killed by somebody else. Says nothing
                about the program.
        """
        return await self._slots.use(lambda identity: _Child(program, stdin, limits, call, identity).run())

    def close(self) -> None:
        """Take no more work."""
        self._slots.close()


class _Child:
    """One child from start to burial."""

    def __init__(self, program: bytes, stdin: bytes, limits: Limits, call: Call | None, identity: int) -> None:
        self._limits = limits
        self._is_call = call is not None
        request = b""
        if call is not None:
            request = json.dumps({"fn_name": call.fn_name, "arguments": call.arguments}).encode()
        self._program_bytes = len(program)
        self._inward = program + request
        self._stdin = stdin
        self._identity = identity
        self._outward = {"stdout": bytearray(), "stderr": bytearray(), "report": bytearray()}
        self._room = limits.output_kib * 1024
        self._stopped: Outcome | None = None

    def run(self) -> Execution:
        inward_read, inward = _pipe()
        report, report_write = _pipe()
        started = time.monotonic()
        try:
            process = self._start(inward_read.fileno(), report_write.fileno())
        except OSError as error:
            inward.close()
            report.close()
            raise SandboxError(f"the interpreter cannot be started ({error}); nothing was run") from None
        finally:
            inward_read.close()
            report_write.close()
        try:
            self._talk(process, inward, report, started + self._limits.wall_seconds)
        finally:
            # Its own session, and no way to leave it or to start another process: this reaches everything.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        wall_ms = (time.monotonic() - started) * 1000
        return self._judge(process.returncode, (usage.ru_utime + usage.ru_stime) * 1000, wall_ms)

    def _start(self, inward: int, report: int) -> subprocess.Popen[bytes]:
        numbers = (
            inward,
            report,
            self._identity,
            self._limits.cpu_seconds,
            self._limits.memory_mib,
            _THREADS,
            self._program_bytes,
        )
        # -I would ignore the hash seed too; the rest of what it does is here. The environment holds nothing else.
        return subprocess.Popen(
            [
                os.path.realpath(sys.executable),
                *("-s", "-S", "-P", "-B", "-X", "utf8"),
                str(_RUNNER),
                *map(str, numbers),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(inward, report),
            env={"PYTHONHASHSEED": "0"},
            cwd="/",
            start_new_session=True,
            bufsize=0,
        )

    def _talk(self, process: subprocess.Popen[bytes], inward: IO[bytes], report: IO[bytes], deadline: float) -> None:
        """Feed and read all pipes until the child ends, the deadline passes or the output is too much."""
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        readers = {"stdout": process.stdout, "stderr": process.stderr, "report": report}
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as closing:
            for stream in (inward, process.stdin, *readers.values()):
                closing.enter_context(stream)
                os.set_blocking(stream.fileno(), False)
            ended = os.pidfd_open(process.pid)
            closing.callback(os.close, ended)
            selector.register(ended, selectors.EVENT_READ)
            selector.register(inward, selectors.EVENT_WRITE, _Source(inward, memoryview(self._inward)))
            selector.register(process.stdin, selectors.EVENT_WRITE, _Source(process.stdin, memoryview(self._stdin)))
            for name, stream in readers.items():
                selector.register(stream, selectors.EVENT_READ, name)
            while self._stopped is None and self._pump(selector, deadline):
                pass
            for name, stream in readers.items():
                self._drain(stream.fileno(), name)

    def _pump(self, selector: selectors.BaseSelector, deadline: float) -> bool:
        """Wait for the pipes once and move what can be moved; false when the child has ended."""
        left = deadline - time.monotonic()
        if left <= 0:
            self._stopped = Outcome.WALL_LIMIT
            return False
        running = True
        for key, _ in selector.select(left):
            if key.data is None:
                running = False
            elif isinstance(key.data, _Source):
                if key.data.feed():
                    selector.unregister(key.fd)
                    key.data.stream.close()  # end of file is part of the input
            elif not self._take(key.fd, key.data):
                selector.unregister(key.fd)
        return running

    def _take(self, descriptor: int, name: str) -> bool:
        """Read one piece; false at the end of the stream."""
        try:
            piece = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return True
        self._room -= len(piece)
        if self._room < 0:
            self._stopped = Outcome.OUTPUT_LIMIT
            return False
        self._outward[name] += piece
        if name == "stderr":
            del self._outward[name][:-_STDERR_KEPT]
        return bool(piece)

    def _drain(self, descriptor: int, name: str) -> None:
        # What was written before the end still lies in the pipe, at most a pipe's worth.
        before = -1
        while self._stopped is None and self._room != before:
            before = self._room
            self._take(descriptor, name)

    def _judge(self, exit_code: int, cpu_ms: float, wall_ms: float) -> Execution:
        first_line, _, rest = bytes(self._outward["report"]).partition(b"\n")
        word, _, detail = first_line.decode("utf-8", "replace").partition(" ")
        stderr = bytes(self._outward["stderr"])
        if word == "refused":
            raise SandboxError(f"a child could not be locked up, so nothing was run: {detail}")
        if word != "ready":
            # The service's own words, and the program's neither: it was not loaded yet.
            text = stderr.decode("utf-8", "replace").strip()[-300:]
            raise SandboxError(f"a child ended before it was locked up (exit {exit_code}): {text or 'no message'}")
        outcome, value = self._outcome(exit_code, cpu_ms, rest, stderr)
        return Execution(
            outcome=outcome,
            stdout=bytes(self._outward["stdout"]),
            value=value,
            exit_code=exit_code,
            cpu_ms=cpu_ms,
            wall_ms=wall_ms,
            layers=tuple(detail.split()),
            stderr_tail=stderr,
        )

    def _outcome(self, exit_code: int, cpu_ms: float, report: bytes, stderr: bytes) -> tuple[Outcome, bytes | None]:
        if self._stopped is not None:
            return self._stopped, None
        used_up = cpu_ms >= self._limits.cpu_seconds * 1000
        if exit_code == -signal.SIGXCPU or used_up:
            return Outcome.CPU_LIMIT, None
        if exit_code == -signal.SIGKILL:
            # The child cannot send itself SIGKILL, we did not, and its time was not up.
            raise SandboxError("a child was killed from outside, most likely for want of memory on this machine")
        if exit_code == -signal.SIGSYS:
            return Outcome.POLICY, None
        if exit_code != 0:
            last_line = stderr.rstrip().rpartition(b"\n")[2]
            out_of_memory = last_line.startswith(b"MemoryError")
            return (Outcome.MEMORY_LIMIT if out_of_memory else Outcome.RUNTIME_ERROR), None
        if not self._is_call:
            return Outcome.OK, None
        kind, _, value = report.partition(b" ")
        if kind == b"unsupported":
            return Outcome.UNSUPPORTED_RESULT, None
        # Ended with success and without a value: it left before the function returned.
        return (Outcome.OK, value) if kind == b"value" else (Outcome.RUNTIME_ERROR, None)


class _Source:
    """Bytes on their way into the child."""

    def __init__(self, stream: IO[bytes], data: memoryview) -> None:
        # A file object, because closing one twice is harmless; a bare number may by then be somebody else's.
        self.stream = stream
        self._data = data

    def feed(self) -> bool:
        """Write what fits; true when there is no more to write, or nobody who reads."""
        try:
            written = os.write(self.stream.fileno(), self._data[:_CHUNK]) if self._data else 0
        except BlockingIOError:
            return False
        except BrokenPipeError:
            return True
        self._data = self._data[written:]
        return not self._data


def _pipe() -> tuple[IO[bytes], IO[bytes]]:
    read_end, write_end = os.pipe()
    return open(read_end, "rb", buffering=0), open(write_end, "wb", buffering=0)
