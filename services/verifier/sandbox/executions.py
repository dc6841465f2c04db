"""One program in its supervisor's hands: hands it over, has it run, and reads how each run ended.

The service's end of what `isolation/supervisor.py` speaks. Opened by `sandbox.py`.
"""

import asyncio
import json
import math
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from prime.errors import SandboxError
from services.verifier.sandbox.cgroups import ControlGroup
from services.verifier.sandbox.isolation.wire import COMPILE_ERROR_CODE, FRAME, REPORT, Ending

_GRACE_SECONDS = 10.0
# In units of its wall time; somewhat more than its supervisor has.
_PATIENCE = 32
# Processor time as a share of the wall time from which a process is taken to have been busy, and idle time to be idle.
_STARVED = 0.2
# What a report may hold besides output: a compiled program, and a refusal.
_REPORT_ROOM, _NOTE_ROOM = 64 * 1024 * 1024, 4096
# Profiles with more address space than memory.
_MEASURED = ("python", "binary")
INTERPRETER_MIB = 64
"""Address space that the interpreter itself takes; on top of a problem's own memory limit."""


class Outcome(StrEnum):
    """How a test ended, before anybody looked at what it printed."""

    OK = "ok"
    RUNTIME_ERROR = "runtime_error"
    CPU_LIMIT = "cpu_limit"
    WALL_LIMIT = "wall_limit"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    UNSUPPORTED_RESULT = "unsupported_result"
    COMPILE_ERROR = "compile_error"
    POLICY = "policy"
    """Killed for a system call of a foreign architecture."""
    KILLED = "killed"
    """By somebody else; never the outcome of an `Execution` that is handed out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one test may use: `Limits(cpu_seconds=5.0, wall_seconds=12.0, memory_mib=512, output_kib=8192)`."""

    cpu_seconds: float
    wall_seconds: float
    """Without the time in which the machine kept it waiting."""
    memory_mib: int
    output_kib: int
    idle_seconds: float = math.inf
    """Time in which it neither computes nor wants to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What came out: `Execution(outcome=OK, stdout=b"6\\n", exit_code=0, cpu_ms=2.1, ...)`."""

    outcome: Outcome
    stdout: bytes
    stderr_tail: bytes
    value: bytes
    """JSON of what a call returned; `passed` when all assertions held; a compiled program."""
    exit_code: int
    """Negative: the signal that ended it."""
    cpu_ms: float
    wall_ms: float
    peak_mib: float
    taken_ms: float = 0.0
    """Wall time in which it was ready to run, and the machine did not run it."""

    @property
    def idle_ms(self) -> float:
        """Wall time in which it neither ran nor wanted to."""
        return max(0.0, self.wall_ms - self.cpu_ms - self.taken_ms)

    @property
    def was_starved(self) -> bool:
        """Stopped by the wall while it was waiting for the processor, not for something else."""
        has_computed = self.cpu_ms > _STARVED * self.wall_ms
        return self.outcome is Outcome.WALL_LIMIT and has_computed and self.idle_ms < _STARVED * self.wall_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One run of a program: `Task(stdin=b"3 5")`, or `Task(mode="call", detail=b'{"fn_name": ...}')`."""

    mode: str = "script"
    """`script`, `check` (a script that is a checker), `call`, `exec`; of a pair `answer` and `examine`."""
    stdin: bytes = b""
    detail: bytes = b""
    arguments: Sequence[str] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Put into the box, the program's working folder; only for a program opened `with_box`."""


class Program:
    """A program in its supervisor's hands."""

    def __init__(self, connection: socket.socket, group: ControlGroup | None) -> None:
        self._connection = connection
        self._group = group
        self._profile = ""
        self._loop = asyncio.get_running_loop()

    async def load(self, profile: str, source: bytes, with_box: bool) -> None:
        """Hand the source over; it is not run yet. Raises SandboxError."""
        self._profile = profile
        try:
            await self._send({"profile": profile, "with_box": with_box}, [source])
        except OSError as error:
            raise SandboxError(f"a supervisor went away ({error.strerror})") from None

    async def run(self, task: Task, limits: Limits, wants_binary: bool = False) -> Execution:
        """Run it once, in a fresh process.

        Raises:
            SandboxError: the process was never locked up, or somebody else killed it or its supervisor. Says nothing
                about the program.
        """
        header = {
            "mode": task.mode,
            "arguments": list(task.arguments),
            "files": list(task.files),
            # Whole seconds are what the kernel counts, and what ends barely above the limit is worth knowing.
            "cpu_seconds": int(1.2 * limits.cpu_seconds) + 1,
            "cpu_limit": limits.cpu_seconds,
            "wall_seconds": limits.wall_seconds,
            "idle_seconds": limits.idle_seconds,
            "memory_mib": limits.memory_mib,
            "output_bytes": limits.output_kib * 1024,
            "wants_binary": wants_binary,
        }
        try:
            async with asyncio.timeout(_PATIENCE * limits.wall_seconds + _GRACE_SECONDS):
                await self._send(header, [task.stdin, task.detail, *task.files.values()])
                execution = await self._receive(task, limits, _REPORT_ROOM if wants_binary else 0)
        except TimeoutError:
            raise SandboxError("a supervisor did not answer in time; the program was stopped") from None
        except OSError as error:
            raise SandboxError(f"a supervisor went away ({error.strerror})") from None
        if execution.outcome is Outcome.KILLED:
            if self._group is None or not self._group.ran_out_of_memory():
                # It cannot send itself SIGKILL, we did not, and its time was not up.
                raise SandboxError("a program was killed from outside, most likely for want of memory on this machine")
            return replace(execution, outcome=Outcome.MEMORY_LIMIT)
        return execution

    async def _send(self, header: Mapping[str, object], blobs: Sequence[bytes]) -> None:
        text = json.dumps({**header, "blobs": [len(blob) for blob in blobs]}).encode()
        await self._loop.sock_sendall(self._connection, b"".join((FRAME.pack(len(text)), text, *blobs)))

    async def _receive(self, task: Task, limits: Limits, room: int) -> Execution:
        ending, status, cpu_s, wall_s, peak_kib, *rest = REPORT.unpack(await self._read(REPORT.size))
        lengths, taken_s = rest[:-1], rest[-1]
        if sum(lengths) > limits.output_kib * 1024 + room + _NOTE_ROOM:
            raise SandboxError(f"a supervisor announced {sum(lengths)} bytes, more than it may have; it was stopped")
        stdout, stderr, value, binary = [await self._read(length) for length in lengths]
        exit_code = os.waitstatus_to_exitcode(status)
        if ending == Ending.REFUSED:
            raise SandboxError(
                f"a process could not be locked up, so nothing was run: {stderr.decode(errors='replace')}"
            )
        if ending == Ending.STARVED:
            raise SandboxError("the machine gave a program next to no processor time; it is too busy to grade")
        outcome = _outcome(Ending(ending), exit_code, cpu_s >= limits.cpu_seconds, stderr)
        if outcome is Outcome.OK and task.mode in ("call", "examine"):
            outcome, value = _returned(value)
        if self._profile in _MEASURED and peak_kib > limits.memory_mib * 1024:
            # Its address space is larger than what it may use of it.
            outcome = Outcome.MEMORY_LIMIT
        return Execution(
            outcome=outcome,
            stdout=stdout,
            stderr_tail=stderr,
            value=value or binary,
            exit_code=exit_code,
            cpu_ms=cpu_s * 1000,
            wall_ms=wall_s * 1000,
            peak_mib=peak_kib / 1024,
            taken_ms=taken_s * 1000,
        )

    async def _read(self, length: int) -> bytes:
        data = bytearray(length)
        view = memoryview(data)
        while view:
            count = await self._loop.sock_recv_into(self._connection, view)
            if count == 0:
                raise SandboxError("a supervisor was killed from outside; the program may be innocent")
            view = view[count:]
        return bytes(data)


_OUT_OF_MEMORY = (b"MemoryError", b"  what():  std::bad_alloc")
"""How the last line of stderr begins in Python, and in C++."""


def _outcome(ending: Ending, exit_code: int, time_used_up: bool, stderr: bytes) -> Outcome:
    if ending is Ending.OUTPUT_LIMIT:
        return Outcome.OUTPUT_LIMIT
    if time_used_up or exit_code == -signal.SIGXCPU:
        return Outcome.CPU_LIMIT
    if ending is Ending.WALL_LIMIT:
        return Outcome.WALL_LIMIT
    if exit_code == -signal.SIGKILL:
        return Outcome.KILLED
    if exit_code == -signal.SIGSYS:
        return Outcome.POLICY
    if exit_code == COMPILE_ERROR_CODE:
        return Outcome.COMPILE_ERROR
    if exit_code != 0:
        out_of_memory = stderr.rstrip().rpartition(b"\n")[2].startswith(_OUT_OF_MEMORY)
        return Outcome.MEMORY_LIMIT if out_of_memory else Outcome.RUNTIME_ERROR
    return Outcome.OK


def _returned(report: bytes) -> tuple[Outcome, bytes]:
    kind, _, value = report.partition(b" ")
    if kind == b"unsupported":
        return Outcome.UNSUPPORTED_RESULT, b""
    # Ended with success and without a value: it left before the function returned, or the assertions passed.
    return (Outcome.OK, value or kind) if kind in (b"value", b"passed") else (Outcome.RUNTIME_ERROR, b"")
