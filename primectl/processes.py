"""Child processes of one run: each in a session of its own, its log in a file, ended by its own id and nothing else."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prime.errors import EngineError

_LOG_TAIL_LINES = 15


@dataclass(frozen=True, slots=True)
class Child:
    """A process that this run started."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    @property
    def has_ended(self) -> bool:
        """Whether it is gone."""
        return self.process.returncode is not None

    def last_words(self) -> str:
        """What it logged last, for people: the errors among the last lines, else what is no log entry of a service."""
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
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
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "primectl.tethered", str(os.getpid())),
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )
    return Child(name, process, log)


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
