"""Children of `primectl`: they end with it, and say why they ended."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from prime.adapters.settings import child_environment
from primectl.processes import start, stop_all

_PARENT = """
import asyncio, sys, time
from collections.abc import Callable
from pathlib import Path
from primectl.processes import start

async def main():
    child = await start("sleeper", ["sleep", "600"], environment={"PATH": "/usr/bin:/bin"}, logs=Path(sys.argv[1]))
    print(child.process.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        _wait_until(lambda: _command(child) == "sleep")
        parent.kill()
    _wait_until(lambda: not _is_running(child))


async def test_a_death_notice_says_how_it_ended_and_shows_no_metrics(tmp_path: Path) -> None:
    environment = child_environment("token")
    script = """print('{"event": "step", "level": "info"}', flush=True); import time; time.sleep(600)"""
    child = await start("noisy", [sys.executable, "-c", script], environment=environment, logs=tmp_path)
    while "event" not in child.log.read_text():
        await asyncio.sleep(0.05)
    os.kill(child.process.pid, signal.SIGKILL)
    await child.process.wait()
    assert str(child.death_notice()) == f"noisy was killed by SIGKILL; its log is {child.log}"
    script = "raise SystemExit('no such model')"
    failing = await start("broken", [sys.executable, "-c", script], environment=environment, logs=tmp_path)
    await failing.process.wait()
    assert str(failing.death_notice()) == f"broken ended with exit code 1; its log is {failing.log}:\nno such model"
    await stop_all([child, failing], grace_seconds=1)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
