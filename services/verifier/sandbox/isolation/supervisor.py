"""PID 1 of a program: forks one untrusted process per test, bounds it, and reports how it ended.

It lives as long as its connection to the service; when that closes, or the zygote dies, it ends, and with it everything
in its process namespace. What the right answers are it never learns.
"""

import contextlib
import gc
import json
import math
import mmap
import os
import select
import signal
import socket
import time
from dataclasses import dataclass
from typing import Any

from services.verifier.sandbox.isolation import kernel, landlock, libraries, scratch
from services.verifier.sandbox.isolation.clock import Stopwatch, Times, cpu_seconds, process_name
from services.verifier.sandbox.isolation.confinement import (
    BOX,
    BOX_READ,
    BOX_WRITE,
    PROFILES,
    TOKEN,
    VALUE,
    Surroundings,
    confine,
    file_rules,
    keep_descriptors,
    supervisor_rules,
)
from services.verifier.sandbox.isolation.kernel import JailError
from services.verifier.sandbox.isolation.seccomp import PROGRAM_DESCRIPTOR
from services.verifier.sandbox.isolation.wire import FRAME, REPORT, Ending

_CHUNK = 64 * 1024
_STDERR_KEPT = 64 * 1024
# How often it looks at what the program did with its time and its folder.
_LOOK_SECONDS = 0.05
# Over its processor time by this factor a program is stopped; what ends before may be tried again.
_CPU_FACTOR = 1.2
# Less than this was not spent idling, or is not worth knowing.
_MEASURED_SECONDS = 0.01
# In units of its wall time: by then a machine that is merely busy would have let it run.
_PATIENCE = 30
_NOTE_BYTES = 1024
_LOCKED = b"\1"
_TOKEN_BYTES = 16
_MIB = 1024 * 1024
COMPILED = os.path.join(BOX, "program")
_LARGEST_BINARY = 64 * _MIB
_CHILD_NUMBERS = {"stdout": 1, "stderr": 2, "value": VALUE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What an untrusted process does once it is confined."""

    mode: str
    """`script`, `check` (a script that is a checker), `call`, `assert`, `exec` or `serve`."""
    source: bytes
    detail: bytes
    """JSON of a call, or the source of the assertions."""
    arguments: tuple[str, ...]
    """Command line; of `serve` the module whose `serve()` is run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Program:
    """What all runs have in common."""

    profile: str
    source: bytes
    binary: int
    """Descriptor of a compiled program, or -1."""
    ruleset: int
    """Descriptor of rules for its files, where they are stricter than its supervisor's; or -1."""
    with_box: bool
    around: Surroundings
    refusal: str
    """Why it cannot be locked up, if so."""

    @property
    def scratch(self) -> str:
        """The folder that it may write in; empty when it has none."""
        return self.around.scratch if PROFILES[self.profile].has_scratch and not self.with_box else ""


def rulesets(profile: str, around: Surroundings, with_box: bool) -> tuple[int, int]:
    """Descriptors of the rules for the files of a program (-1: as its supervisor's), and of its supervisor.

    Raises:
        JailError: they cannot be had.
    """
    rules = file_rules(profile, around, box=BOX_WRITE if with_box else 0)
    own = landlock.prepare([*rules, *supervisor_rules(around)])
    if with_box and profile != "compiler":
        return landlock.prepare(file_rules(profile, around, box=BOX_READ)), own
    # In tier A no path of a program leads to what its supervisor may read besides.
    return landlock.prepare(rules) if around.shares_machine else -1, own


def supervise(connection: socket.socket, around: Surroundings, usual: tuple[int, int] | None) -> Task:
    """Answer requests for one program until the connection closes, then end this process.

    `usual` are the rulesets of a Python program without a box, where they were made before. Returns only in an
    untrusted child, with what it has to do.
    """
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    header, (source,) = _receive(connection)
    program = _load(header, source, around, usual)
    gc.freeze()
    while True:
        task = _serve(connection, program)
        if task is not None:
            return task


def _load(header: dict[str, Any], source: bytes, around: Surroundings, usual: tuple[int, int] | None) -> _Program:
    profile, binary, ruleset, refusal = header["profile"], -1, -1, ""
    with_box = header["with_box"]
    try:
        if profile == "binary":
            binary, source = kernel.executable_in_memory(source), b""
        ruleset, own = usual if usual and profile == "python" and not with_box else rulesets(profile, around, with_box)
        landlock.enforce(own)
        if with_box:
            os.chdir(BOX)
        elif PROFILES[profile].has_scratch:
            os.chdir(around.scratch)
        if profile == "python" and libraries.load_named(source, around.libraries):
            kernel.require_one_thread(around.proc)
    except (JailError, OSError) as error:
        refusal = str(error)
    return _Program(
        profile=profile,
        source=source,
        binary=binary,
        ruleset=ruleset,
        with_box=with_box,
        around=around,
        refusal=refusal,
    )


def _serve(connection: socket.socket, program: _Program) -> Task | None:
    """One run; its task in the child. A function of its own, so that nothing of it is left for the next one to find."""
    header, (stdin, detail, *files) = _receive(connection)
    for name, content in zip(header["files"], files, strict=True):
        with open(os.path.join(BOX, name), "wb") as file:
            file.write(content)
    task = Task(mode=header["mode"], source=program.source, detail=detail, arguments=tuple(header["arguments"]))
    run = _Run(header, stdin, task, program)
    refusal = program.refusal or _clear(program.scratch)
    if refusal:
        run.refuse(refusal)
    elif run.fork(connection):
        return task
    else:
        run.watch(connection)
    if task.mode == "serve":
        os._exit(0)  # it spoke for itself; our end of the connection closes, and that says it all
    connection.sendall(run.report())
    return None


def _clear(folder: str) -> str:
    """Empty the scratch folder; why that failed, if it did."""
    try:
        if folder:
            scratch.clear(folder)
    except OSError as error:
        return f"scratch: the folder of the program before cannot be emptied ({error.strerror})"
    return ""


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

    def __init__(self, header: dict[str, Any], stdin: bytes, task: Task, program: _Program) -> None:
        self._header = header
        self._task = task
        self._program = program
        self._stdin = stdin
        self._room = int(header["output_bytes"])
        self._note = mmap.mmap(-1, _NOTE_BYTES)
        self._outward = {"stdout": bytearray(), "stderr": bytearray(), "value": bytearray()}
        self._ending = Ending.EXITED
        self._token = os.urandom(_TOKEN_BYTES) if task.mode == "assert" else b""
        self._status, self._cpu_s, self._wall_s, self._taken_s, self._peak_kib = 0, 0.0, 0.0, 0.0, 0
        self._stopwatch: Stopwatch | None = None

    # ------------------------------------------------------------ the child

    def fork(self, connection: socket.socket) -> bool:
        """True in the child, which is then confined; false in the supervisor."""
        readers, kept = self._pipes(connection)
        supervisor = os.getpid()
        self._started = time.monotonic()
        self._pid = os.fork()
        if self._pid == 0:
            if self._program.binary >= 0:
                kept.append((self._program.binary, PROGRAM_DESCRIPTOR))
            self._become_untrusted(supervisor, kept, connection)
            return True
        for source, _ in kept:
            if source != connection.fileno():
                os.close(source)
        self._readers = readers
        return False

    def _pipes(self, connection: socket.socket) -> tuple[dict[int, str], list[tuple[int, int]]]:
        """What the supervisor reads, by name, and what the child keeps, with the number it knows it by."""
        outward = ["stderr"] if self._task.mode == "serve" else ["stdout", "stderr"]
        if self._task.mode in ("call", "assert"):
            outward.append("value")
        readers, kept = {}, []
        for name in outward:
            reader, writer = os.pipe()
            readers[reader] = name
            kept.append((writer, _CHILD_NUMBERS[name]))
        if self._task.mode == "assert":
            token, token_writer = os.pipe()
            os.write(token_writer, self._token)
            os.close(token_writer)
            kept.append((token, TOKEN))
        if self._task.mode == "serve":
            return readers, [*kept, (connection.fileno(), 0), (connection.fileno(), 1)]
        # A file, as on the judges: it can be measured, mapped and read twice, and nobody has to feed it.
        return readers, [*kept, (kernel.file_in_memory(self._stdin, self._program.around.proc), 0)]

    def _become_untrusted(self, supervisor: int, kept: list[tuple[int, int]], connection: socket.socket) -> None:
        program = self._program
        try:
            os.setsid()
            if program.ruleset >= 0:
                landlock.enforce(program.ruleset)
            keep_descriptors([*kept, *((number, number) for number in program.around.kept)])
            # The number now means something else, which must not be closed with the object.
            connection.detach()
            confine(
                program.profile,
                parent=supervisor,
                shares_machine=program.around.shares_machine,
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
        """Read until the child has ended, too much came out, or its time is up; then bury it."""
        poll = select.poll()
        self._ended = os.pidfd_open(self._pid)
        poll.register(self._ended, select.POLLIN)
        poll.register(connection, select.POLLRDHUP)
        for reader in self._readers:
            poll.register(reader, select.POLLIN)
        running = True
        # A worker lives until it is killed; who asks it keeps the time.
        pause = None if self._task.mode == "serve" else _LOOK_SECONDS
        look_at = self._started + _LOOK_SECONDS
        while running and self._ending is Ending.EXITED:
            for descriptor, _ in poll.poll(pause and max(0.0, 1000 * (look_at - time.monotonic())) + 1):
                if descriptor == self._ended:
                    running = False
                elif descriptor == connection.fileno():
                    self._kill()
                    os._exit(0)  # nobody waits for the answer any more
                elif not self._take(descriptor):
                    poll.unregister(descriptor)
            if pause and running and time.monotonic() >= look_at:
                self._look()
                look_at = time.monotonic() + pause
        self._bury()
        os.close(self._ended)

    def _look(self) -> None:
        """Stop the child when it has had its time, or has written too much."""
        times = self._times()
        header, around, folder = self._header, self._program.around, self._program.scratch
        is_idle = times.idle >= header.get("idle_seconds", math.inf)
        has_computed = times.cpu >= _CPU_FACTOR * header.get("cpu_limit", math.inf)
        if is_idle or has_computed or times.own >= header["wall_seconds"]:
            self._ending = Ending.WALL_LIMIT
        elif times.wall >= _PATIENCE * header["wall_seconds"]:
            self._ending = Ending.STARVED
        elif around.shares_machine and folder and scratch.is_over_quota(folder):
            self._ending = Ending.OUTPUT_LIMIT

    def _times(self) -> Times:
        if self._stopwatch is None:
            name = process_name(self._ended, self._program.around.proc)
            self._stopwatch = Stopwatch(self._pid, name, self._program.around.proc, (self._started, 0.0))
        return self._stopwatch.read()

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
        self._taken_s = self._taken()
        self._kill()
        _, self._status, usage = os.wait4(self._pid, 0)
        self._cpu_s, self._peak_kib = usage.ru_utime + usage.ru_stime, usage.ru_maxrss
        if os.getpid() == 1:
            self._bury_descendants()
        self._wall_s = time.monotonic() - self._started
        if self._stopwatch is not None:
            self._stopwatch.close()
        for descriptor in self._readers:
            # What was written before the end still lies in the pipe, at most a pipe's worth.
            while self._ending is Ending.EXITED and self._take(descriptor):
                pass
            os.close(descriptor)
        if self._note[:1] != _LOCKED:
            self.refuse(self._note[:].rstrip(b"\0").decode() or "died before it was locked up")
        if self._task.mode == "assert":
            passed = bytes(self._outward["value"]) == self._token
            self._outward["value"] = bytearray(b"passed" if passed else b"")
        self._note.close()

    def _taken(self) -> float:
        """Seconds in which it waited for the machine; all that it did not compute, where that is little or unknown."""
        lost = time.monotonic() - self._started - cpu_seconds(self._pid)
        if lost > _MEASURED_SECONDS and self._task.mode != "serve":
            times = self._times()
            if times.measured:
                return times.taken
        return max(0.0, lost)

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
        head = REPORT.pack(
            self._ending, self._status, self._cpu_s, self._wall_s, self._peak_kib, *lengths, self._taken_s
        )
        return b"".join((head, out, err, value, binary))


def _compiled() -> bytes:
    try:
        with open(COMPILED, "rb") as file:
            return file.read(_LARGEST_BINARY)
    except OSError:
        return b""
