"""Output files of commands: there only when they are whole."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from prime.errors import SettingsError


def refuse_existing(out: Path | None) -> None:
    """Say before any work that the output is in the way.

    Raises:
        SettingsError: something stands there already, or there is no folder for it.
    """
    if out is not None and out.exists():
        raise SettingsError(f"{out} exists already; choose another file for --out")
    if out is not None and not out.parent.is_dir():
        raise SettingsError(f"there is no folder {out.parent} for --out")


def next_free(folder: Path, name: str) -> Path:
    """The first of `name-1`, `name-2`, ... that is not in the folder yet."""
    number = 1
    while (folder / f"{name}-{number}").exists():
        number += 1
    return folder / f"{name}-{number}"


@contextlib.contextmanager
def written(out: Path | None) -> Iterator[TextIO | None]:
    """The file to write; None when none is wanted.

    Raises:
        SettingsError: as `refuse_existing`.
    """
    refuse_existing(out)
    if out is None:
        yield None
        return
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with unfinished.open("w", encoding="utf-8") as lines:
            yield lines
        unfinished.rename(out)
    finally:
        unfinished.unlink(missing_ok=True)
