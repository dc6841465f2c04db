"""Child processes of one run: each in a session of its own, its log in a file, ended by its own id and nothing else."""

import asyncio
import json
import os
import signal
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
        """What it logged last, for people: the errors among the last lines, else the last lines."""
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        messages = [message for message in map(_message, lines) if message]
        return "\n".join(messages or lines)

    def death_notice(self) -> EngineError:
        """The error to raise when it ended and should not have."""
        return EngineError(
            f"{self.name} ended with exit code {self.process.returncode}; its log is {self.log}:\n{self.last_words()}"
        )


async def start(name: str, command: Sequence[str], *, environment: dict[str, str], logs: Path) -> Child:
    """Start a process; it does not get the terminal's signals, so that we can end it in good order."""
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{name}.log"
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
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
