"""The folder in which a Python program may write: empty at the start of each test, bounded, never passed on.

In tier A it is a tmpfs of the slot's own, whose size the kernel bounds. In tier B it is a folder of the machine, to
which Landlock confines the program; its supervisor looks now and then whether it has grown too large.
"""

import contextlib
import os

MIB = 32
FILES = 256
"""Quota of files and folders together."""
MOUNT_DATA = f"size={MIB}m,nr_inodes={FILES},mode=700"
_BLOCK = 512


def clear(folder: str) -> None:
    """Delete all that is in it.

    Folders may be nested deeper than a path can be long, so each one's folders are first moved up. Raises OSError.
    """
    number = 0
    while found := list(os.scandir(folder)):
        for entry in found:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
                continue
            os.chmod(entry.path, 0o700)
            for inner in list(os.scandir(entry.path)):
                if inner.is_dir(follow_symlinks=False):
                    os.chmod(inner.path, 0o700)
                    number = _free_number(folder, number + 1)
                    os.rename(inner.path, os.path.join(folder, str(number)))
                else:
                    os.unlink(inner.path)
            os.rmdir(entry.path)


def _free_number(folder: str, number: int) -> int:
    while os.path.lexists(os.path.join(folder, str(number))):
        number += 1
    return number


def is_over_quota(folder: str) -> bool:
    """Whether there is more in it than a program may write. What changes meanwhile is not counted."""
    files = blocks = 0
    waiting = [folder]
    while waiting:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            for entry in os.scandir(waiting.pop()):
                files += 1
                with contextlib.suppress(OSError):
                    blocks += entry.stat(follow_symlinks=False).st_blocks
                if files > FILES or blocks * _BLOCK > MIB * 1024 * 1024:
                    return True
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
    return False
