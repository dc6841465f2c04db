"""Files that a crash does not tear, and files that one process holds at a time.

Run folders, evaluations and answer caches each have a lock, so that two processes never write the same files. The
kernel lets go of it when its holder ends.
"""

import fcntl
import os
import time
from pathlib import Path
from typing import TextIO

from prime.errors import InUse

_TRIES, _PAUSE_S = 5, 0.02
"""`holder` holds the file for an instant while it looks."""


def write_file(path: Path, text: str) -> None:
    """Replace a file in one move."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.writing-{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def hold(file: Path, *, complaint: str) -> TextIO:
    """Hold `file`, which is made where it is missing, until the handle is closed or this process ends.

    The process id is written into it. A child that inherits the handle would hold it too; Python's children do not.

    Raises:
        InUse: another process holds it; the message is `complaint` with that process' id in place of `{pid}`.
    """
    handle = file.open("a+", encoding="utf-8")
    for number in range(1, _TRIES + 1):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if number == _TRIES:
                pid = _written_pid(handle)
                handle.close()
                raise InUse(complaint.replace("{pid}", str(pid or "?"))) from None
            time.sleep(_PAUSE_S)
    handle.seek(0)
    handle.truncate()
    handle.write(f"{os.getpid()}\n")
    handle.flush()
    return handle


def holder(file: Path) -> int | None:
    """The id of the process that holds `file`; None where nobody does. 0: somebody does, who did not say who.

    A process id that was merely written down may by now be another program's; the lock proves that it is not.
    """
    if not file.is_file():
        return None
    with file.open("r", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _written_pid(handle)
        return None


def _written_pid(handle: TextIO) -> int:
    handle.seek(0)
    text = handle.read().strip()
    return int(text) if text.isdecimal() else 0
