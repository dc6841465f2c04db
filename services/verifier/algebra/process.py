"""One worker process of `worker.py`: forked, asked, watched, killed. Used by `pool.py`."""

import contextlib
import functools
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from prime.errors import SandboxError
from services.verifier.sandbox.isolation.clock import Stopwatch, Times, cpu_seconds
from services.verifier.sandbox.isolation.wire import FRAME
from services.verifier.sandbox.zygotes import UNPRIVILEGED_ID, Tier, Zygote, is_readable

_WORKER = "services.verifier.algebra.worker"
# Clear of the users that programs run under.
_IDENTITY = UNPRIVILEGED_ID - 100
_MEMORY_MIB = 1024
# Only backstops: the deadline of a question kills long before. Above what a worker may use in its whole life.
_CPU_SECONDS = 3600
_LIFE_SECONDS = 14 * 86400
_STDERR_BYTES = 1 << 40
_START_SECONDS = 60.0
_LONGEST_LINE = 64 * 1024
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_NICENESS = 12
_CREDENTIALS = struct.Struct("3i")


class WorkerDied(Exception):
    """The worker ended in the middle of a question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A child that speaks lines of JSON, the first of them its greeting."""

    connection: socket.socket
    """Owned by the worker that is made of it."""
    end: Callable[[], None]
    """Kills it and everything of it with SIGKILL. May be called twice, and from any thread."""


Starter = Callable[[], Process]
"""Makes a child. Raises SandboxError."""


class Nursery:
    """A `Starter`: forks workers from a zygote that has loaded everything, and starts that anew when it is dead."""

    def __init__(self, tier: Tier) -> None:
        self._tier = tier
        self._zygote: Zygote | None = None
        self._closed = False
        self._lock = threading.Lock()
        self.layers: tuple[str, ...] = ()
        """Isolation of the zygote that was started last."""

    def __call__(self) -> Process:
        """A new worker, locked up in its own namespaces.

        Raises:
            SandboxError: the zygote cannot be started or cannot fork.
        """
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise SandboxError(f"no connection to a mathematics worker can be made ({error.strerror})") from None
        try:
            # The kernel then says with each message who sent it, in process ids of our own namespace.
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            with self._lock, theirs:
                pidfd = self._fork(theirs)
            header = {
                "op": "run",
                "mode": "serve",
                "arguments": [_WORKER],
                "files": [],
                "cpu_seconds": _CPU_SECONDS,
                "wall_seconds": _LIFE_SECONDS,
                "memory_mib": _MEMORY_MIB,
                "output_bytes": _STDERR_BYTES,
                "wants_binary": False,
            }
            ours.sendall(_frame({"op": "load", "profile": "mathematics", "with_box": False}, 1) + _frame(header, 2))
        except SandboxError:
            ours.close()
            raise
        except OSError as error:
            ours.close()
            raise SandboxError(f"a mathematics worker did not start ({error.strerror})") from None
        return Process(connection=ours, end=_Ending(pidfd))

    def _fork(self, connection: socket.socket) -> int:
        if self._closed:
            raise SandboxError("no more mathematics workers are started: the verifier is stopping")
        if self._zygote is not None:
            try:
                return self._zygote.fork_blocking(connection)
            except SandboxError:
                self._zygote.end()
        libraries = [folder for folder in sys.path if folder.endswith("-packages")]
        self._zygote = None
        self._zygote = Zygote(self._tier, _IDENTITY, serves=_WORKER, libraries=libraries)
        self.layers = self._zygote.layers
        return self._zygote.fork_blocking(connection)

    def close(self) -> None:
        """End the zygote; the workers that live go with it."""
        with self._lock:
            self._closed = True
            if self._zygote is not None:
                self._zygote.end()
            self._zygote = None


def _frame(header: dict[str, object], blobs: int) -> bytes:
    text = json.dumps({**header, "blobs": [0] * blobs}).encode()
    return FRAME.pack(len(text)) + text


class _Ending:
    """Kills a supervisor, and with it its namespace, once."""

    def __init__(self, pidfd: int) -> None:
        self._pidfd = pidfd
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            if self._pidfd < 0:
                return
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            is_readable(self._pidfd, None)
            os.close(self._pidfd)
            self._pidfd = -1


class Worker:
    """A warm, locked process that answers one question at a time."""

    def __init__(self, start: Starter) -> None:
        """Start it and wait until it is locked up.

        Raises:
            SandboxError: it did not start, or could not be locked up.
        """
        self.answered = 0
        self.pid = 0
        """Of the process, as the kernel tells it; 0 until it has greeted."""
        self._rest = b""
        self._asked = (0.0, 0.0)
        self._stopwatch: Stopwatch | None = None
        self._process = start()
        self._connection = self._process.connection
        try:
            self._await_greeting()
        except WorkerDied:
            self.end()
            raise SandboxError("a mathematics worker did not start, or could not be locked up") from None
        self.answered = 0

    def _await_greeting(self) -> None:
        if not is_readable(self._connection.fileno(), _START_SECONDS):
            raise WorkerDied
        try:
            line, control, _, _ = self._connection.recvmsg(_LONGEST_LINE, socket.CMSG_SPACE(_CREDENTIALS.size))
        except OSError:
            raise WorkerDied from None
        for level, kind, data in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                self.pid, _, _ = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])
        if line != b'{"ready": true}\n' or not self.pid:
            raise WorkerDied

    def send(self, line: bytes) -> None:
        """Ask a question, one line.

        Raises:
            WorkerDied: there is nobody to ask.
        """
        self._forget_time()
        try:
            self._asked = (time.monotonic(), cpu_seconds(self.pid))
        except OSError:
            raise WorkerDied from None
        try:
            self._connection.sendall(line)
        except OSError:
            raise WorkerDied from None

    def poll(self, until: float) -> dict[str, object] | None:
        """The answer, or None when there is none by `until` on the monotonic clock.

        Raises:
            WorkerDied: none will come.
        """
        while b"\n" not in self._rest:
            try:
                if not is_readable(self._connection.fileno(), until - time.monotonic()):
                    return None
                piece = self._connection.recv(_LONGEST_LINE)
            except (OSError, ValueError):
                raise WorkerDied from None
            if not piece or len(self._rest) > _LONGEST_LINE:
                raise WorkerDied
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        self.answered += 1
        return _read_answer(line)

    def times(self) -> Times:
        """What it has done with its time since the last question, as the kernel counts it."""
        # Made when first wanted, since most questions are answered before.
        if self._stopwatch is None:
            self._stopwatch = Stopwatch(self.pid, str(self.pid), _proc(), self._asked)
        return self._stopwatch.read()

    def _forget_time(self) -> None:
        if self._stopwatch is not None:
            self._stopwatch.close()
        self._stopwatch = None

    def is_alive(self) -> bool:
        """Whether it was not killed while nobody asked it anything: an idle worker says nothing, unless it has gone."""
        return not is_readable(self._connection.fileno(), 0)

    def resident_bytes(self) -> int:
        """Memory in use, as the kernel counts it and not as the worker says; 0 when it is gone."""
        try:
            with open(f"/proc/{self.pid}/statm") as file:
                return int(file.read().split()[1]) * _PAGE_BYTES
        except (OSError, IndexError, ValueError):
            return 0

    def step_back(self) -> None:
        """Let others have the processor first."""
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self.pid, _NICENESS)

    def step_forward(self) -> bool:
        """Undo `step_back`; only the superuser may."""
        try:
            os.setpriority(os.PRIO_PROCESS, self.pid, 0)
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """End it at once; whoever waits for its answer gets `WorkerDied`."""
        self._process.end()

    def end(self) -> None:
        """End it and close our end. By the thread that reads from it, not by one that merely kills."""
        self._forget_time()
        self._process.end()
        self._connection.close()


@functools.cache
def _proc() -> int:
    return os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _read_answer(line: bytes) -> dict[str, object]:
    try:
        answer = json.loads(line)
    except ValueError:
        raise WorkerDied from None
    if not isinstance(answer, dict):
        raise WorkerDied
    return answer
