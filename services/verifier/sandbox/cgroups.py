"""A control group per sandbox slot, where this machine lets us make them: memory and processes, counted by the kernel.

A layer on top of the limits that every process has. The group holds the slot's zygote, and with it whatever that forks;
it is made once and used by all programs of the slot. Version 2 needs a delegated subtree, version 1 (as root) needs
writable `memory` and `pids` hierarchies.
"""

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

_MOUNT = Path("/sys/fs/cgroup")
_PREFIX = "prime-verifier-"
_MIB = 1024 * 1024
# Files of each version: memory limit, process limit, and the one that counts kills for want of memory.
_V2 = {"memory": "memory.max", "pids": "pids.max"}
_V1 = {"memory": "memory.limit_in_bytes", "pids": "pids.max"}


class ControlGroup:
    """The groups of one slot: `ControlGroup.create("0", memory_mib=1024, processes=80)`."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders
        self._kills = 0
        self._limits_hit = 0

    @classmethod
    def create(cls, name: str, *, memory_mib: int, processes: int) -> "ControlGroup | None":
        """Make the groups, or None where this machine does not let us."""
        hierarchies = _hierarchies()
        if hierarchies is None:
            return None
        files = _V2 if len(set(hierarchies.values())) == 1 else _V1
        folders = {kind: parent / f"{_PREFIX}{os.getpid()}-{name}" for kind, parent in hierarchies.items()}
        limits = {"memory": memory_mib * _MIB, "pids": processes}
        group = cls(folders)
        try:
            for kind, folder in folders.items():
                folder.mkdir(exist_ok=True)
                (folder / files[kind]).write_text(str(limits[kind]))
        except OSError:
            group.remove()
            return None
        return group

    def add(self, pid: int) -> bool:
        """Put a process in; what it forks is in too. False where the kernel refuses."""
        try:
            for folder in set(self._folders.values()):
                (folder / "cgroup.procs").write_text(str(pid))
        except OSError:
            return False
        return True

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel killed something in here for this group's own limit since this was last asked.

        A kill for want of memory on the whole machine is none of a program's doing, and does not count.
        """
        kills, limits_hit = self._kills, self._limits_hit
        self._kills, self._limits_hit = self._out_of_memory_kills(), self._times_at_limit()
        return self._kills > kills and self._limits_hit > limits_hit

    def _out_of_memory_kills(self) -> int:
        return self._count("memory.events", "oom_kill") or self._count("memory.oom_control", "oom_kill")

    def _times_at_limit(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int((self._folders["memory"] / "memory.failcnt").read_text())
        return self._count("memory.events", "oom")

    def _count(self, file: str, name: str) -> int:
        with contextlib.suppress(OSError):
            for line in (self._folders["memory"] / file).read_text().splitlines():
                if line.startswith(f"{name} "):
                    return int(line.split()[1])
        return 0

    def remove(self) -> None:
        """Take the groups away, as soon as what was killed in them has gone. Waits for at most half a second."""
        for folder in set(self._folders.values()):
            for _ in range(50):
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.01)
                else:
                    break


def remove_leftovers() -> None:
    """Take away the groups of verifiers that were killed."""
    for parent in set((_hierarchies() or {}).values()):
        for folder in parent.glob(f"{_PREFIX}*"):
            if not Path("/proc", folder.name.removeprefix(_PREFIX).partition("-")[0]).exists():
                with contextlib.suppress(OSError):
                    folder.rmdir()


def _hierarchies() -> dict[str, Path] | None:
    """Where groups of each kind can be made."""
    with contextlib.suppress(OSError):
        if (_MOUNT / "cgroup.controllers").exists():
            return _delegated_v2()
        memory, pids = _own_v1("memory"), _own_v1("pids")
        if os.access(memory, os.W_OK) and os.access(pids, os.W_OK):
            return {"memory": memory, "pids": pids}
    return None


def _delegated_v2() -> dict[str, Path] | None:
    own = Path("/proc/self/cgroup").read_text().strip().partition("::")[2]
    # Groups with controllers may not hold processes themselves, so ours lie beside our own, not in it.
    parent = (_MOUNT / own.lstrip("/")).parent
    handed_down = (parent / "cgroup.subtree_control").read_text().split()
    if {"memory", "pids"} <= set(handed_down) and os.access(parent, os.W_OK):
        return {"memory": parent, "pids": parent}
    return None


def _own_v1(kind: str) -> Path:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, kinds, path = line.split(":", 2)
        if kind in kinds.split(","):
            return _MOUNT / kind / path.lstrip("/")
    return _MOUNT / kind
