"""Child processes of one run: each in a session of its own, its log in a file, ended by its own id and nothing else."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prime.errors import EngineError
from prime.files import write_file

LOCK, TRAINER_LOCK, PROCESSES = "lock", "trainer.lock", "processes.json"
"""In the run folder."""
_LOG_TAIL_LINES = 15
_KILLED_RANK = re.compile(r"exitcode\s*: -\d")
"""In torchrun's report."""


@dataclass(frozen=True, slots=True)
class Child:
    """A process that this run started."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    log_start: int = 0
    """Where in the log this life begins."""

    @property
    def has_ended(self) -> bool:
        """Whether it is gone."""
        return self.process.returncode is not None

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended it, or one of the processes that torchrun started for it: nothing it chose."""
        code = self.process.returncode
        return code is not None and (code < 0 or (code > 0 and bool(_KILLED_RANK.search(self._said()))))

    def _said(self) -> str:
        """What it logged in this life."""
        with self.log.open(errors="replace") as log:
            log.seek(self.log_start)
            return log.read()

    def last_words(self) -> str:
        """What it logged last, for people: the errors among the last lines, else what is no log entry of a service."""
        lines = self._said().splitlines()[-_LOG_TAIL_LINES:]
        messages = [message for message in map(_message, lines) if message]
        return "\n".join(messages or [line for line in lines if not line.startswith("{")])

    def death_notice(self) -> EngineError:
        """The error to raise when it ended and should not have."""
        code = self.process.returncode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        words = self.last_words()
        return EngineError(f"{self.name} {how}; its log is {self.log}{':' if words else ''}\n{words}".rstrip())


async def start(name: str, command: Sequence[str], *, environment: dict[str, str], logs: Path) -> Child:
    """Start a process; it does not get the terminal's signals, so that we can end it in good order.

    When this process is killed, it is told to end (`tethered.py`).
    """
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{name}.log"
    with log.open("ab") as output:
        log_start = output.tell()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "primectl.tethered", str(os.getpid())),
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )
    return Child(name, process, log, log_start)


def write_processes(folder: Path, children: Iterable[Child]) -> None:
    """Note in the run folder which process is which, for `primectl status`."""
    write_file(folder / PROCESSES, json.dumps({child.name: child.process.pid for child in children}))


async def stop_all(children: Sequence[Child], *, grace_seconds: float) -> None:
    """SIGTERM, then SIGKILL for the process groups of those still there after the grace."""
    alive = [child for child in children if not child.has_ended]
    for child in alive:
        child.process.terminate()
    waits = [asyncio.ensure_future(child.process.wait()) for child in alive]
    if waits:
        await asyncio.wait(waits, timeout=grace_seconds)
    for child in alive:
        if not child.has_ended:
            os.killpg(child.process.pid, signal.SIGKILL)
            await child.process.wait()


def _message(line: str) -> str:
    try:
        entry = json.loads(line)
    except ValueError:
        return line if line.startswith("primectl: ") else ""
    if not isinstance(entry, dict) or entry.get("level") not in ("error", "critical"):
        return ""
    parts = [entry.get("event"), *(entry.get(key) for key in ("reason", "detail", "exception"))]
    return ": ".join(str(part) for part in parts if part)
