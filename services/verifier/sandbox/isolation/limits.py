"""Resource limits of an untrusted process."""

import _thread
import os
import resource
import threading
from typing import Any

from services.verifier.sandbox.isolation.forbidden import without_place
from services.verifier.sandbox.isolation.kernel import JailError

STACK_BYTES = 256 * 1024 * 1024
"""Stack of a program's main thread: 200,000 cached recursive calls need it. Must be raised before an exec."""
THREAD_STACK_BYTES = 16 * 1024 * 1024
# Read once, in the zygote, which leaves its own as they are.
_CEILINGS = {
    number: resource.getrlimit(number)[1]
    for name in ("CPU", "AS", "NPROC", "NOFILE", "FSIZE", "CORE", "MEMLOCK", "MSGQUEUE", "SIGPENDING")
    for number in [getattr(resource, f"RLIMIT_{name}")]
}
_LARGEST_THREAD_STACK = 512 * 1024 * 1024


def raise_stack() -> bool:
    """Raise the stack limit for the next exec; false when it is high enough already or may not be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = STACK_BYTES if hard == resource.RLIM_INFINITY else min(STACK_BYTES, hard)
    if (soft != resource.RLIM_INFINITY and soft >= wanted) or soft == wanted:
        return False
    resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))
    return True


def limit(*, cpu_seconds: int, memory_mib: int, processes: int, file_mib: int = 0) -> None:
    """Put all limits in force, for good.

    `processes` counts threads too, per user, or per user namespace where there is one.

    Raises:
        JailError: one cannot be set.
    """
    memory = memory_mib * 1024 * 1024
    files = file_mib * 1024 * 1024
    _set(resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 1)
    _set(resource.RLIMIT_AS, memory)
    _set(resource.RLIMIT_NPROC, processes)
    _set(resource.RLIMIT_NOFILE, 64)
    _set(resource.RLIMIT_FSIZE, files)
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_MEMLOCK, 0)
    _set(resource.RLIMIT_MSGQUEUE, 0)
    _set(resource.RLIMIT_SIGPENDING, 64)
    # Threads would otherwise take the raised stack limit as their own size, and four fill the address space.
    threading.stack_size(THREAD_STACK_BYTES)


def fit_thread_stacks() -> None:
    """Let a thread start whose stack, as large as the program asked for, finds no room: with a smaller one.

    A stack is reserved long before it is filled, and it is memory in use that counts. Once, in the zygote.
    """
    start = _thread.start_new_thread

    @without_place
    def start_new_thread(*arguments: Any) -> int:
        wanted = threading.stack_size()
        size = min(wanted, _LARGEST_THREAD_STACK)
        try:
            while True:
                threading.stack_size(size)
                try:
                    return start(*arguments)
                except RuntimeError as error:
                    size //= 2
                    if size < THREAD_STACK_BYTES:
                        raise RuntimeError(f"{error}: the sandbox's limit of threads or memory") from None
        finally:
            threading.stack_size(wanted)

    _thread.start_new_thread = threading._start_new_thread = start_new_thread  # type: ignore[attr-defined]


def _set(number: int, soft: int, hard: int | None = None) -> None:
    hard = soft if hard is None else hard
    ceiling = _CEILINGS[number]
    if ceiling != resource.RLIM_INFINITY:
        hard = min(hard, ceiling)
    try:
        resource.setrlimit(number, (min(soft, hard), hard))
    except (OSError, ValueError) as error:
        raise JailError(f"rlimits: limit {number} cannot be set to {soft} ({error})") from None


def offer_to_the_oom_killer() -> None:
    """When the machine runs out of memory, this process goes and the service stays. A comfort, not a wall."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass


def is_root() -> bool:
    """Whether this process has the machine's user id 0, or its namespace's."""
    return os.getuid() == 0 or os.geteuid() == 0
