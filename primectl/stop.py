"""`primectl stop`: ends a run in good order, whoever started it."""

import os
import signal
import time
from pathlib import Path

from prime.errors import CheckpointError, EngineError
from prime.files import holder
from primectl.display import Display
from primectl.processes import LOCK, TRAINER_LOCK

_PERIOD_S = 0.2


def stop_run(folder: Path, *, patience_s: float) -> int:
    """Tell `primectl`, or a trainer that was started alone, to stop, and wait until it is gone.

    Raises:
        CheckpointError: the folder holds no run.
        EngineError: it was still there after `patience_s` seconds.
    """
    if not (folder / "settings.json").is_file() and not (folder / TRAINER_LOCK).is_file():
        raise CheckpointError(f"{folder} holds no run: it has no settings.json")
    display = Display()
    found = _at_work(folder)
    if found is None:
        display.say(f"{folder}: not running")
        return 0
    who, lock, pid = found
    if pid == 0:
        raise EngineError(f"{lock} is held by a process that did not leave its id; find it with: fuser {lock}")
    display.say(f"{folder}: {who} (process {pid}) is told to stop; it finishes its step and saves")
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    while holder(lock) is not None:
        if time.monotonic() > deadline:
            raise EngineError(f"{who} (process {pid}) has not ended within {patience_s:.0f} s; look at {folder}/logs")
        time.sleep(_PERIOD_S)
    display.say(f"{folder}: stopped")
    return 0


def _at_work(folder: Path) -> tuple[str, Path, int] | None:
    """Who is to be told, the lock that it holds, and its process id; `primectl` where there is one."""
    for who, lock in (("primectl", folder / LOCK), ("trainer", folder / TRAINER_LOCK)):
        pid = holder(lock)
        if pid is not None:
            return who, lock, pid
    return None
