"""Runs programs that nobody trusts, and says how each run ended.

The service's side of `isolation/`: one zygote per slot, started by exec; per program a supervisor that the zygote forks
into namespaces of the program's own; per test a fresh, confined process. Used by `programs.py` and `canaries.py`.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from prime.errors import NotReady, SandboxError
from services.verifier.cgroups import ControlGroup, remove_leftovers
from services.verifier.isolation.wire import COMPILE_ERROR_CODE, FRAME, REPORT, Ending
from services.verifier.zygotes import UNPRIVILEGED_ID, Tier, Zygote, end_supervisor

_GRACE_SECONDS = 10.0
_RECYCLE_AFTER = 5000
# Of a slot as a whole, zygote, supervisor and compiler included: outside what a single process may ever have.
_GROUP_MEMORY_MIB = 5120
_GROUP_PROCESSES = 128
# What a report may hold besides output: a compiled program, and a refusal.
_REPORT_ROOM, _NOTE_ROOM = 64 * 1024 * 1024, 4096
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
    memory_mib: int
    output_kib: int


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One run of a program: `Task(stdin=b"3 5")`, or `Task(mode="call", detail=b'{"fn_name": ...}')`."""

    mode: str = "script"
    """`script`, `check` (a script that is a checker), `call`, `assert` or `exec`."""
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
            "wall_seconds": limits.wall_seconds,
            "memory_mib": limits.memory_mib,
            "output_bytes": limits.output_kib * 1024,
            "wants_binary": wants_binary,
        }
        try:
            async with asyncio.timeout(limits.wall_seconds + _GRACE_SECONDS):
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
        ending, status, cpu_s, wall_s, peak_kib, *lengths = REPORT.unpack(await self._read(REPORT.size))
        if sum(lengths) > limits.output_kib * 1024 + room + _NOTE_ROOM:
            raise SandboxError(f"a supervisor announced {sum(lengths)} bytes, more than it may have; it was stopped")
        stdout, stderr, value, binary = [await self._read(length) for length in lengths]
        exit_code = os.waitstatus_to_exitcode(status)
        if ending == Ending.REFUSED:
            raise SandboxError(
                f"a process could not be locked up, so nothing was run: {stderr.decode(errors='replace')}"
            )
        outcome = _outcome(Ending(ending), exit_code, cpu_s >= limits.cpu_seconds, stderr)
        if outcome is Outcome.OK and task.mode in ("call", "assert"):
            outcome, value = _returned(value)
        if self._profile == "binary" and peak_kib > limits.memory_mib * 1024:
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


class Sandbox:
    """`slots` programs at a time; call `start` before, and `close` after."""

    def __init__(
        self,
        slots: int,
        tier: Tier,
        *,
        first_identity: int = UNPRIVILEGED_ID,
        recycle_after: int = _RECYCLE_AFTER,
        group_memory_mib: int = _GROUP_MEMORY_MIB,
    ) -> None:
        self.tier = tier
        self.layers: tuple[str, ...] = ()
        """Isolation in force."""
        remove_leftovers()
        self._slots = [_Slot(tier, first_identity - index, recycle_after, group_memory_mib) for index in range(slots)]
        self._free: asyncio.Queue[_Slot] = asyncio.Queue()
        self._closed = False

    async def start(self) -> None:
        """Start the zygotes.

        Raises:
            SandboxError: a layer of the tier cannot be had here; names it and what to change.
        """
        try:
            await asyncio.gather(*(slot.start() for slot in self._slots))
        except BaseException:
            self.close()
            raise
        self.layers = self._slots[0].layers
        for slot in self._slots:
            self._free.put_nowait(slot)

    @contextlib.asynccontextmanager
    async def program(
        self, source: bytes, *, profile: str = "python", with_box: bool = False
    ) -> AsyncIterator[Program]:
        """A program, held for as many runs as wanted. Waits for a free slot, first come first served.

        Leaving, also by cancellation, kills whatever of it still runs.

        Raises:
            NotReady: the sandbox is closed.
            SandboxError: no supervisor could be had.
        """
        slot = await self._free.get()
        try:
            if self._closed:
                raise NotReady("the verifier is stopping; ask again when it is back")
            async with slot.open(with_box) as connection:
                if slot.group is not None:
                    slot.group.ran_out_of_memory()  # what happened before is not this program's doing
                program = Program(connection, slot.group)
                await program.load(profile, source, with_box)
                yield program
        finally:
            self._free.put_nowait(slot)

    @property
    def restarts(self) -> int:
        """How often a zygote was started anew since `start`."""
        return sum(slot.starts for slot in self._slots) - len(self._slots)

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the zygotes that live."""
        return tuple(slot.pid for slot in self._slots if slot.pid)

    def close(self) -> None:
        """End the zygotes and everything of theirs. Who waits for a place, or comes later, is told `NotReady`."""
        self._closed = True
        for slot in self._slots:
            slot.close()


_EVERY_TEST_HAS = ("session", "rlimits", "no_new_privs", "landlock", "seccomp")


class _Slot:
    """A place for one program at a time, with a zygote of its own."""

    def __init__(self, tier: Tier, identity: int, recycle_after: int, group_memory_mib: int) -> None:
        self._recycle_after = recycle_after
        self._group_memory_mib = group_memory_mib
        self._tier = tier
        self._identity = identity
        self._zygote: Zygote | None = None
        self._served = 0
        self.starts = 0
        self._closed = False
        self.group: ControlGroup | None = None
        self.layers: tuple[str, ...] = ()

    @property
    def pid(self) -> int:
        """Of the zygote; 0 when there is none."""
        return self._zygote.process.pid if self._zygote else 0

    async def start(self) -> "Zygote":
        """A fresh zygote."""
        self.stop()
        zygote = await asyncio.to_thread(Zygote, self._tier, self._identity)
        if self._closed:
            zygote.end()
            raise NotReady("the verifier is stopping; ask again when it is back")
        self._zygote = zygote
        self._served = 0
        self.starts += 1
        self.group = self.group or ControlGroup.create(
            str(self._identity), memory_mib=self._group_memory_mib, processes=_GROUP_PROCESSES
        )
        if self.group is not None:
            self.group.add(self._zygote.process.pid)
        self.layers = (*self._zygote.layers, *_EVERY_TEST_HAS, *(["cgroup"] if self.group else []))
        return self._zygote

    def stop(self) -> None:
        """End the zygote."""
        if self._zygote is not None:
            self._zygote.end()
        self._zygote = None

    def close(self) -> None:
        """End the zygote, and have no other."""
        self._closed = True
        self.stop()
        if self.group is not None:
            self.group.remove()

    @contextlib.asynccontextmanager
    async def open(self, with_box: bool) -> AsyncIterator[socket.socket]:
        """A connection to a new supervisor, which is dead when the context is left."""
        zygote = self._zygote
        if zygote is None or self._served >= self._recycle_after:
            zygote = await self.start()
        self._served += 1
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        pidfd = -1
        try:
            with theirs:
                pidfd = await self._fork(zygote, theirs, with_box)
            yield ours
        except SandboxError:
            # Whose fault it was is not known; a fresh zygote costs little.
            self.stop()
            raise
        finally:
            ours.close()
            if pidfd >= 0:
                await end_supervisor(pidfd)

    async def _fork(self, zygote: Zygote, connection: socket.socket, with_box: bool) -> int:
        try:
            return await zygote.fork(connection, with_box)
        except BaseException:
            # Cancelled half-way, too: its answer would be taken for the next one.
            self.stop()
            raise
