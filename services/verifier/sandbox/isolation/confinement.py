"""What each kind of untrusted process may still do, and how it gives up the rest: all of it, for good."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from services.verifier.sandbox.isolation import kernel, landlock, limits, scratch
from services.verifier.sandbox.isolation.kernel import JailError
from services.verifier.sandbox.isolation.seccomp import (
    Filter,
    binary_filter,
    compiler_filter,
    mathematics_filter,
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
# Where no file system of its own bounds what a program writes: then 60 open files, deleted, are all that it can hide.
_SHARED_FILE_MIB = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What one kind of program needs: `PROFILES["python"]`."""

    filter: Filter
    processes: int
    """Threads and processes together."""
    file_mib: int
    """Largest file that it may write."""
    stacks_mib: int = 0
    """Address space on top of its memory limit, for stacks of threads: these are reserved and hardly ever filled."""
    reads_library: bool = False
    """Whether it needs the interpreter's library."""
    has_scratch: bool = False
    """Whether it has a folder to write in."""
    runs_tools: bool = False
    """Whether it reads and executes the compiler's files."""


PROFILES = {
    # Half a GiB of stack is what many programs ask for; a GiB mapped at once is still refused.
    "python": Profile(
        filter=python_filter(),
        processes=33,
        file_mib=scratch.MIB,
        stacks_mib=512,
        reads_library=True,
        has_scratch=True,
    ),
    "mathematics": Profile(filter=mathematics_filter(), processes=33, file_mib=0, reads_library=True),
    # A compiled program is linked statically: it needs no file at all.
    "binary": Profile(filter=binary_filter(), processes=33, file_mib=0, stacks_mib=1024),
    "compiler": Profile(filter=compiler_filter(), processes=64, file_mib=64, runs_tools=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a zygote leaves within reach of its supervisors and their programs."""

    proc: int
    """Descriptor of a `/proc`. For supervisors: programs have neither it nor a path that leads there."""
    readable: tuple[str, ...]
    """Folders of the interpreter and of libraries."""
    tools: tuple[str, ...]
    """Files and folders of the compiler."""
    scratch: str
    """The folder that Python programs may write in."""
    libraries: dict[str, str]
    """Where each library is that may be imported."""
    kept: tuple[int, ...]
    """Descriptors that programs keep, since folders are reached through them."""
    shares_machine: bool
    """Tier B: its user has other processes, its scratch folder no quota, and `/proc` is there."""


def file_rules(profile: str, around: Surroundings, *, box: int = 0) -> list[tuple[landlock.Place, int]]:
    """What a program may do with which files; `box` is what it may do in its box, if it has one."""
    chosen = PROFILES[profile]
    rules: list[tuple[landlock.Place, int]] = [("/dev/null", landlock.READ_FILE | landlock.WRITE_FILE)]
    if profile != "compiler":
        rules.append(("/dev/urandom", landlock.READ_FILE))  # an endless thing to include
    if chosen.reads_library:
        rules += [(folder, BOX_READ) for folder in around.readable]
        rules.append(("/etc/ld.so.cache", landlock.READ_FILE))
    if chosen.runs_tools:
        rules += [(tool, BOX_READ | landlock.EXECUTE) for tool in around.tools]
    if box:
        rules.append((BOX, box))
    elif chosen.has_scratch:
        rules.append((around.scratch, landlock.KEEP_FILES))
    return rules


def supervisor_rules(around: Surroundings) -> list[tuple[landlock.Place, int]]:
    """What a supervisor needs on top of its program's rules: to see what its program does with its time."""
    return [(around.proc, BOX_READ)]


def confine(profile: str, *, parent: int, shares_machine: bool, cpu_seconds: int, memory_mib: int) -> None:
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
        processes=_SHARED_PROCESSES if shares_machine else chosen.processes,
        file_mib=min(chosen.file_mib, _SHARED_FILE_MIB) if shares_machine else chosen.file_mib,
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
