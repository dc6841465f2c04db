"""Landlock: which files a process may open, and that it may neither reach TCP ports nor signal strangers."""

import ctypes
import os
import stat
import struct
import sys
from collections.abc import Sequence

from services.verifier.sandbox.isolation.kernel import JailError, call, last_error

MINIMUM_ABI = 3
_CREATE, _ADD, _RESTRICT = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_FOLDER = 1 << 0, 1 << 1, 1 << 2, 1 << 3
EVERYTHING_ON_FILES = (1 << 15) - 1
_REMOVE_FOLDER, _REMOVE_FILE, _MAKE_FOLDER, _MAKE_FILE, _MOVE, _TRUNCATE = (1 << bit for bit in (4, 5, 7, 8, 13, 14))
KEEP_FILES = (
    READ_FILE | READ_FOLDER | WRITE_FILE | _REMOVE_FOLDER | _REMOVE_FILE | _MAKE_FOLDER | _MAKE_FILE | _MOVE | _TRUNCATE
)
"""Everything with plain files and folders; no devices, sockets, pipes or links."""
_ON_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | _TRUNCATE


Place = str | int
"""A path, or a descriptor of what it leads to."""


def prepare(rules: Sequence[tuple[Place, int]]) -> int:
    """A descriptor of a ruleset that refuses everything save what `rules` (place, access bits) grant.

    Raises:
        JailError: the kernel is too old, or does not take the rules.
    """
    ruleset = _new_ruleset(require())
    for place, access in rules:
        _permit(ruleset, place, access)
    return ruleset


def enforce(ruleset: int) -> None:
    """Put it in force for the calling process and what it forks, on top of what is in force already.

    Raises:
        JailError: the kernel does not let it.
    """
    if call(_RESTRICT, ruleset, 0) != 0:
        raise JailError(f"landlock: the rules cannot be put in force ({last_error().strerror})")


def require() -> int:
    """The kernel's version of Landlock.

    Raises:
        JailError: it has none, or one that is too old.
    """
    abi = call(_CREATE, None, 0, 1)
    if abi < MINIMUM_ABI:
        found = "none" if abi < 0 else f"ABI {abi}"
        raise JailError(
            f"landlock: ABI {MINIMUM_ABI} is needed and the kernel offers {found}; use Linux 6.2 or newer, with "
            "landlock among its security modules, and a container profile that allows landlock_* calls"
        )
    return abi


def _new_ruleset(abi: int) -> int:
    # Newer kernels know more kinds.
    files = EVERYTHING_ON_FILES
    if abi >= 5:
        files |= 1 << 15  # ioctl on devices
    attributes = struct.pack("=Q", files)
    if abi >= 4:
        attributes += struct.pack("=Q", 0b11)  # TCP bind and connect
    if abi >= 6:
        attributes += struct.pack("=Q", 0b11)  # abstract sockets and signals to the outside
    ruleset = call(_CREATE, ctypes.create_string_buffer(attributes, len(attributes)), len(attributes), 0)
    if ruleset < 0:
        raise JailError(f"landlock: no ruleset ({last_error().strerror})")
    return ruleset


def _permit(ruleset: int, place: Place, access: int) -> None:
    try:
        descriptor = os.dup(place) if isinstance(place, int) else os.open(place, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # what is not there needs no permission
    if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
        access &= _ON_A_FILE
    rule = struct.pack("=Qi", access, descriptor)
    failed = call(_ADD, ruleset, 1, ctypes.create_string_buffer(rule, len(rule)), 0) != 0
    os.close(descriptor)
    if failed:
        raise JailError(f"landlock: no rule for {place} ({last_error().strerror})")


def standard_library() -> str:
    """The folder of the interpreter's library."""
    return os.path.realpath(os.path.dirname(os.__file__))


def interpreter_folders() -> list[str]:
    """What an interpreter reads while it runs: not the whole prefix, and nothing under /etc, /home, /proc or /tmp."""
    wanted = [standard_library(), os.path.join(sys.base_prefix, "lib"), "/lib", "/lib64", "/usr/lib", "/usr/lib64"]
    wanted.append("/usr/share/zoneinfo")
    return sorted({os.path.realpath(path) for path in wanted if os.path.isdir(path)})
