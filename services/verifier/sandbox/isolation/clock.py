"""What a process did with its time: it computed, waited for the processor, or idled.

Only the last is its own choice. The wait is what the machine took away: run queue, throttling and stolen time.
"""

import contextlib
import os
import time
from dataclasses import dataclass

_CPU_OF_PROCESS = 2
_STEAL_FIELD = 8
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds since a process was started: `Times(wall=3.0, cpu=1.4, taken=1.5, measured=True)`."""

    wall: float
    cpu: float
    taken: float
    """By the machine: it was ready to run and was not run."""
    measured: bool
    """Whether the kernel says what it took; else `taken` is 0."""

    @property
    def own(self) -> float:
        """Wall time without what the machine took."""
        return self.wall - self.taken

    @property
    def idle(self) -> float:
        """Time in which it neither ran nor wanted to; 0 where that cannot be told from waiting."""
        return max(0.0, self.own - self.cpu) if self.measured else 0.0


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and all its threads, as exact as the kernel keeps it.

    Raises:
        OSError: there is no such process.
    """
    return time.clock_gettime(~pid << 3 | _CPU_OF_PROCESS)


def process_name(pidfd: int, proc: int) -> str:
    """Its folder below `proc`, a descriptor of a `/proc` that may be another namespace's; "-1" if it has none."""
    try:
        lines = _read(f"self/fdinfo/{pidfd}", proc).decode().splitlines()
    except OSError:
        return "-1"
    return next((line.split()[1] for line in lines if line.startswith("Pid:")), "-1")


class Stopwatch:
    """Follows one process: `Stopwatch(pid, "4711", proc, (time.monotonic(), cpu_seconds(pid)))`.

    `pid` is its id here, `name` its folder below `proc`, a descriptor of a `/proc` that may be another namespace's.
    `since` is a moment on the monotonic clock and its processor time then; of 0.0 if that was its birth. Must be read
    every now and then: a thread that has ended no longer says how long it waited.
    """

    def __init__(self, pid: int, name: str, proc: int, since: tuple[float, float]) -> None:
        self._pid = pid
        self._proc = proc
        self._started, self._first_cpu = since
        self._waited: dict[str, int] = {}
        self._taken, self._cpu = 0.0, 0.0
        try:
            self._threads = os.open(f"{name}/task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
            if self._first_cpu:
                self._waited = self._waits()
        except OSError:
            self._threads = -1
        self._stolen = self._steal()

    def read(self) -> Times:
        """What it has done since then."""
        with contextlib.suppress(OSError):
            self._cpu = cpu_seconds(self._pid) - self._first_cpu
        if self._threads >= 0:
            with contextlib.suppress(OSError):
                waits = self._waits()
                # Threads wait at the same time: the longest wait is what the process as a whole lost.
                self._taken += max((wait - self._waited.get(tid, 0) for tid, wait in waits.items()), default=0) / 1e9
                self._waited |= waits
            stolen = self._steal()
            self._taken += max(0.0, stolen - self._stolen)
            self._stolen = stolen
        wall = time.monotonic() - self._started
        return Times(wall=wall, cpu=self._cpu, taken=min(self._taken, wall), measured=self._threads >= 0)

    def close(self) -> None:
        """Release its descriptor."""
        if self._threads >= 0:
            os.close(self._threads)
        self._threads = -1

    def _waits(self) -> dict[str, int]:
        """Nanoseconds in the run queue, by thread."""
        waits = {}
        for tid in os.listdir(self._threads):
            with contextlib.suppress(OSError, IndexError, ValueError):
                waits[tid] = int(_read(f"{tid}/schedstat", self._threads).split()[1])
        return waits

    def _steal(self) -> float:
        """Seconds that the machine's own host took from each processor, on average."""
        try:
            fields = _read("stat", self._proc).split(b"\n", 1)[0].split()
            return int(fields[_STEAL_FIELD]) / _TICKS_PER_SECOND / (os.cpu_count() or 1)
        except (OSError, IndexError, ValueError):
            return 0.0


def _read(path: str, folder: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
