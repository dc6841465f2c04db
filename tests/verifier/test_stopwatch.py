"""What the stopwatch says of processes that compute, wait, sleep, or cannot be looked at."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from services.verifier.sandbox.isolation.clock import Stopwatch, cpu_seconds
from tests.verifier.busy import other_load


@contextlib.contextmanager
def child(source: str) -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", source]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def test_a_stopped_process_is_idle_and_a_busy_one_is_not() -> None:
    proc = os.open("/proc", os.O_PATH)
    with child("while True: pass") as pid:
        watch = Stopwatch(pid, str(pid), proc, (time.monotonic(), cpu_seconds(pid)))
        while (times := watch.read()).cpu < 0.2:
            time.sleep(0.01)
        assert times.measured
        assert times.idle < 0.15
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.4)
        after = watch.read()
        watch.close()
    os.close(proc)
    assert after.idle - times.idle > 0.3


def test_waits_of_a_thread_count() -> None:
    source = "import threading\ndef f():\n  while True: pass\nthreading.Thread(target=f).start()"
    proc = os.open("/proc", os.O_PATH)
    with other_load(2), child(source) as pid:
        watch = Stopwatch(pid, str(pid), proc, (time.monotonic(), cpu_seconds(pid)))
        while (times := watch.read()).cpu < 0.3:
            time.sleep(0.02)
        watch.close()
    os.close(proc)
    assert times.own < times.wall
    assert times.idle < 0.5 * times.wall


def test_without_a_proc_nothing_is_idle() -> None:
    here = os.open("/", os.O_PATH)
    watch = Stopwatch(os.getpid(), "nobody", here, (time.monotonic() - 5, cpu_seconds(os.getpid())))
    times = watch.read()
    os.close(here)
    assert (times.measured, times.idle, times.taken) == (False, 0.0, 0.0)
