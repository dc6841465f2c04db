"""PID 1 of a program: forks one untrusted process per test, feeds it, bounds it, and reports how it ended.

It lives as long as its connection to the service; when that closes, or the zygote dies, it ends, and with it everything
in its process namespace. What the right answers are it never learns.
"""

import contextlib
import gc
import json
import mmap
import os
import select
import signal
import socket
import time
from dataclasses import dataclass
from typing import Any

from services.verifier.sandbox.isolation import kernel
from services.verifier.sandbox.isolation.confinement import (
    BOX,
    BOX_READ,
    BOX_WRITE,
    VALUE,
    confine,
    keep_descriptors,
    restrict_files,
)
from services.verifier.sandbox.isolation.dialogue import CHANNEL
from services.verifier.sandbox.isolation.kernel import JailError
from services.verifier.sandbox.isolation.seccomp import PROGRAM_DESCRIPTOR
from services.verifier.sandbox.isolation.wire import FRAME, REPORT, Ending

_CHUNK = 64 * 1024
_STDERR_KEPT = 64 * 1024
_PIPE_HOLDS = 60 * 1024
_NOTE_BYTES = 1024
_LOCKED = b"\1"
_MIB = 1024 * 1024
COMPILED = os.path.join(BOX, "program")
_LARGEST_BINARY = 64 * _MIB
_CHILD_NUMBERS = {"stdout": 1, "stderr": 2, "value": VALUE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What an untrusted process does once it is confined."""

    mode: str
    """`script`, `check` (a script that is a checker), `call`, `answer`, `examine`, `exec` or `serve`."""
    source: bytes
    detail: bytes
    """JSON of a call, or of assertions."""
    arguments: tuple[str, ...]
    """Command line; of `serve` the module whose `serve()` is run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Program:
    """What all runs have in common."""

    profile: str
    source: bytes
    binary: int
    """Descriptor of a compiled program, or -1."""
    readable: list[str]
    with_box: bool
    channels: list[int]
    """Descriptors that lead to the process beside it, one for each run that talks with it."""
    shares_user: bool
    """Whether its user has other processes on this machine, which no namespace tells apart."""
    refusal: str
    """Why it cannot be locked up, if so."""


def supervise(connection: socket.socket, readable: list[str], *, channels: list[int], shares_user: bool) -> Task:
    """Answer requests for one program until the connection closes, then end this process.

    Returns only in an untrusted child, with what it has to do.
    """
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    header, (source,) = _receive(connection)
    program = _load(header, source, readable, channels=channels, shares_user=shares_user)
    gc.freeze()
    while True:
        task = _serve(connection, program)
        if task is not None:
            return task


def _load(
    header: dict[str, Any], source: bytes, readable: list[str], *, channels: list[int], shares_user: bool
) -> _Program:
    profile, binary, refusal = header["profile"], -1, ""
    try:
        if profile == "binary":
            binary, source = kernel.executable_in_memory(source), b""
        restrict_files(profile, readable, box=BOX_WRITE if header["with_box"] else 0)
    except (JailError, OSError) as error:
        refusal = str(error)
    return _Program(
        profile=profile,
        source=source,
        binary=binary,
        readable=readable,
        with_box=header["with_box"],
        channels=channels,
        shares_user=shares_user,
        refusal=refusal,
    )


def _serve(connection: socket.socket, program: _Program) -> Task | None:
    """One run; its task in the child. A function of its own, so that nothing of it is left for the next one to find."""
    header, (stdin, detail, *files) = _receive(connection)
    for name, content in zip(header["files"], files, strict=True):
        with open(os.path.join(BOX, name), "wb") as file:
            file.write(content)
    task = Task(mode=header["mode"], source=program.source, detail=detail, arguments=tuple(header["arguments"]))
    run = _Run(header, stdin, task)
    if program.refusal:
        run.refuse(program.refusal)
    elif run.fork(program, connection):
        return task
    else:
        run.watch(connection)
    if task.mode == "serve":
        os._exit(0)  # it spoke for itself; our end of the connection closes, and that says it all
    connection.sendall(run.report())
    return None


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[bytes]]:
    (length,) = FRAME.unpack(_read(connection, FRAME.size))
    header = json.loads(_read(connection, length))
    return header, [_read(connection, length) for length in header["blobs"]]


def _read(connection: socket.socket, length: int) -> bytes:
    data = bytearray(length)
    view = memoryview(data)
    while view:
        count = connection.recv_into(view)
        if count == 0:
            os._exit(0)
        view = view[count:]
    return bytes(data)


class _Run:
    """One untrusted process from fork to burial."""

    def __init__(self, header: dict[str, Any], stdin: bytes, task: Task) -> None:
        self._header = header
        self._task = task
        self._stdin = memoryview(stdin)
        self._room = int(header["output_bytes"])
        self._note = mmap.mmap(-1, _NOTE_BYTES)
        self._outward = {"stdout": bytearray(), "stderr": bytearray(), "value": bytearray()}
        self._ending = Ending.EXITED
        self._status, self._cpu_s, self._wall_s, self._peak_kib = 0, 0.0, 0.0, 0
        self._stdin_write = -1

    # ------------------------------------------------------------ the child

    def fork(self, program: _Program, connection: socket.socket) -> bool:
        """True in the child, which is then confined; false in the supervisor."""
        readers, kept = self._pipes(connection)
        if self._task.mode in ("answer", "examine"):
            kept.append((program.channels.pop(), CHANNEL))
        supervisor = os.getpid()
        self._started = time.monotonic()
        self._pid = os.fork()
        if self._pid == 0:
            if program.binary >= 0:
                kept.append((program.binary, PROGRAM_DESCRIPTOR))
            self._become_untrusted(program, supervisor, kept, connection)
            return True
        for source, _ in kept:
            if source != connection.fileno():
                os.close(source)
        self._readers = readers
        return False

    def _pipes(self, connection: socket.socket) -> tuple[dict[int, str], list[tuple[int, int]]]:
        """What the supervisor reads, by name, and what the child keeps, with the number it knows it by."""
        outward = ["stderr"] if self._task.mode == "serve" else ["stdout", "stderr"]
        if self._task.mode in ("call", "examine"):
            outward.append("value")
        readers, kept = {}, []
        for name in outward:
            reader, writer = os.pipe()
            readers[reader] = name
            kept.append((writer, _CHILD_NUMBERS[name]))
        if self._task.mode == "serve":
            return readers, [*kept, (connection.fileno(), 0), (connection.fileno(), 1)]
        stdin, self._stdin_write = os.pipe()
        if len(self._stdin) <= _PIPE_HOLDS:
            self._feed()
        return readers, [*kept, (stdin, 0)]

    def _become_untrusted(
        self, program: _Program, supervisor: int, kept: list[tuple[int, int]], connection: socket.socket
    ) -> None:
        try:
            os.setsid()
            keep_descriptors(kept)
            # The number now means something else, which must not be closed with the object.
            connection.detach()
            if program.with_box:
                os.chdir(BOX)
                if program.profile != "compiler":
                    restrict_files(program.profile, program.readable, box=BOX_READ)
            confine(
                program.profile,
                parent=supervisor,
                shares_user=program.shares_user,
                cpu_seconds=self._header["cpu_seconds"],
                memory_mib=self._header["memory_mib"],
            )
        except (JailError, OSError) as error:
            self._note.write(str(error).encode("utf-8", "replace")[: _NOTE_BYTES - 1])
            os._exit(3)
        # From here on the supervisor knows that what happens is the program's doing.
        self._note.write(_LOCKED)
        self._note.close()

    # ------------------------------------------------------------ the supervisor

    def watch(self, connection: socket.socket) -> None:
        """Feed and read until the child has ended, too much came out, or its time is up; then bury it."""
        deadline = self._started + self._header["wall_seconds"]
        poll = select.poll()
        ended = os.pidfd_open(self._pid)
        poll.register(ended, select.POLLIN)
        poll.register(connection, select.POLLRDHUP)
        for reader in self._readers:
            poll.register(reader, select.POLLIN)
        if self._stdin_write >= 0:
            os.set_blocking(self._stdin_write, False)
            poll.register(self._stdin_write, select.POLLOUT)
        running = True
        while running and self._ending is Ending.EXITED:
            left = deadline - time.monotonic()
            if left <= 0:
                self._ending = Ending.WALL_LIMIT
                break
            for descriptor, _ in poll.poll(left * 1000 + 1):
                if descriptor == ended:
                    running = False
                elif descriptor == connection.fileno():
                    self._kill()
                    os._exit(0)  # nobody waits for the answer any more
                elif self._is_done(descriptor):
                    poll.unregister(descriptor)
        self._bury()
        os.close(ended)

    def _is_done(self, descriptor: int) -> bool:
        """Move what can be moved through a pipe; whether that was all."""
        return not self._take(descriptor) if descriptor in self._readers else self._feed()

    def _feed(self) -> bool:
        """Write what fits; true when there is no more to write, or nobody who reads."""
        try:
            while self._stdin:
                self._stdin = self._stdin[os.write(self._stdin_write, self._stdin[:_CHUNK]) :]
        except BlockingIOError:
            return False
        except BrokenPipeError:
            pass
        os.close(self._stdin_write)  # end of file is part of the input
        self._stdin_write = -1
        return True

    def _take(self, descriptor: int) -> bool:
        """Read one piece; false at the end of the stream."""
        piece = os.read(descriptor, _CHUNK)
        self._room -= len(piece)
        if self._room < 0:
            self._ending = Ending.OUTPUT_LIMIT
            return False
        name = self._readers[descriptor]
        self._outward[name] += piece
        if name == "stderr":
            del self._outward[name][:-_STDERR_KEPT]
        return bool(piece)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # not yet in a group of its own
            os.killpg(self._pid, signal.SIGKILL)
        os.kill(self._pid, signal.SIGKILL)

    def _bury(self) -> None:
        self._kill()
        _, self._status, usage = os.wait4(self._pid, 0)
        self._cpu_s, self._peak_kib = usage.ru_utime + usage.ru_stime, usage.ru_maxrss
        if os.getpid() == 1:
            self._bury_descendants()
        self._wall_s = time.monotonic() - self._started
        for descriptor in self._readers:
            # What was written before the end still lies in the pipe, at most a pipe's worth.
            while self._ending is Ending.EXITED and self._take(descriptor):
                pass
            os.close(descriptor)
        if self._stdin_write >= 0:
            os.close(self._stdin_write)
        if self._note[:1] != _LOCKED:
            self.refuse(self._note[:].rstrip(b"\0").decode() or "died before it was locked up")
        self._note.close()

    def refuse(self, reason: str) -> None:
        """Report that the program was not run."""
        self._ending = Ending.REFUSED
        self._outward["stderr"] = bytearray(reason.encode())

    def _bury_descendants(self) -> None:
        # The compiler's children. Everything in this namespace but ourselves.
        try:
            os.kill(-1, signal.SIGKILL)
            while True:
                os.wait()
        except (ProcessLookupError, ChildProcessError):
            pass

    def report(self) -> bytes:
        """How it ended, for the service."""
        binary = b""
        if self._task.mode == "exec" and self._header["wants_binary"]:
            binary = _compiled()
        out, err, value = (bytes(self._outward[name]) for name in ("stdout", "stderr", "value"))
        lengths = map(len, (out, err, value, binary))
        head = REPORT.pack(self._ending, self._status, self._cpu_s, self._wall_s, self._peak_kib, *lengths)
        return b"".join((head, out, err, value, binary))


def _compiled() -> bytes:
    try:
        with open(COMPILED, "rb") as file:
            return file.read(_LARGEST_BINARY)
    except OSError:
        return b""
