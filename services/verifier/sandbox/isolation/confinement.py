"""What each kind of untrusted process may still do, and how it gives up the rest: all of it, for good."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from services.verifier.sandbox.isolation import kernel, landlock, limits
from services.verifier.sandbox.isolation.kernel import JailError
from services.verifier.sandbox.isolation.seccomp import (
    Filter,
    binary_filter,
    compiler_filter,
    python_filter,
)

BOX = "/tmp"
"""A small tmpfs of the program's own: what the compiler works in, and where a checker reads its files."""
BOX_READ = landlock.READ_FILE | landlock.READ_FOLDER
BOX_WRITE = landlock.EVERYTHING_ON_FILES & ~landlock.EXECUTE
VALUE = 3
"""Descriptor of a called function's value, and of what came of assertions."""
_SIGKILL = 9
# Where a user is counted together with everything else that it runs on the machine.
_SHARED_PROCESSES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What one kind of program needs: `PROFILES["python"]`."""

    filter: Filter
    processes: int
    """Threads and processes together."""
    file_mib: int
    """Largest file that it may write."""
    stacks_mib: int = 0
    """Address space on top of its memory limit, for stacks of threads, which are as large as the main one's."""
    reads_library: bool = False
    """Whether it needs the interpreter's library."""
    folders: tuple[str, ...] = ()
    """What it may read and execute besides."""


PROFILES = {
    "python": Profile(filter=python_filter(), processes=33, file_mib=0, reads_library=True),
    "mathematics": Profile(filter=python_filter(), processes=33, file_mib=0, reads_library=True),
    # A compiled program is linked statically: it needs no file at all.
    "binary": Profile(filter=binary_filter(), processes=33, file_mib=0, stacks_mib=1024),
    "compiler": Profile(
        filter=compiler_filter(), processes=64, file_mib=64, folders=("/usr", "/lib", "/lib64", "/bin")
    ),
}


def restrict_files(profile: str, readable: Sequence[str], *, box: int = 0) -> None:
    """Landlock, for the calling process and whatever it forks; `box` is what they may do in theirs.

    Raises:
        JailError: it cannot be had.
    """
    rules = [("/dev/null", landlock.READ_FILE | landlock.WRITE_FILE)]
    if profile != "compiler":
        rules.append(("/dev/urandom", landlock.READ_FILE))  # an endless thing to include
    if PROFILES[profile].reads_library:
        rules += [(folder, BOX_READ) for folder in (*landlock.interpreter_folders(), *readable)]
        rules.append(("/etc/ld.so.cache", landlock.READ_FILE))
    rules += [(folder, BOX_READ | landlock.EXECUTE) for folder in PROFILES[profile].folders]
    if box:
        rules.append((BOX, box))
    landlock.restrict(rules)


def confine(profile: str, *, parent: int, shares_user: bool, cpu_seconds: int, memory_mib: int) -> None:
    """Limits and seccomp, for the calling process, which must be freshly forked.

    Raises:
        JailError: one of them cannot be had. The process must then end.
    """
    chosen = PROFILES[profile]
    kernel.prctl(kernel.PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:
        raise JailError("session: the supervisor died in between, and would not take this process with it")
    limits.limit(
        cpu_seconds=cpu_seconds,
        memory_mib=memory_mib + chosen.stacks_mib,
        processes=_SHARED_PROCESSES if shares_user else chosen.processes,
        file_mib=chosen.file_mib,
    )
    chosen.filter.install(os.getpid())


def keep_descriptors(kept: Sequence[tuple[int, int]]) -> None:
    """Put each `(source, target)` descriptor in its place, and close all others beyond the standard three."""
    high = [(os.dup2(source, 100 + target, inheritable=False), target) for source, target in kept]
    for moved, target in high:
        # Only the standard three survive an exec.
        os.dup2(moved, target, inheritable=target < 3)
    first = 0
    for target in sorted(target for _, target in kept):
        if first < target:
            kernel.close_range(first, target - 1)
        first = target + 1
    kernel.close_range(first, 2**32 - 1)
