"""Seccomp: the system calls that an untrusted process may make. An allow list: the rest is refused with EPERM.

Four profiles: a Python program, a mathematics worker, a compiled program (exec'd once), and the compiler.
"""

import ctypes
import resource
import struct
from collections.abc import Mapping, Sequence

from services.verifier.sandbox.isolation.kernel import JailError, call, last_error

_COMMON = """
read:0 write:1 futex:202 mmap:9 munmap:11 brk:12 mprotect:10 madvise:28 mremap:25 close:3 openat:257 open:2
fstat:5 newfstatat:262 stat:4 lstat:6 statx:332 lseek:8 pread64:17 pwrite64:18 readv:19 writev:20 preadv:295
pwritev:296 preadv2:327 pwritev2:328 poll:7 ppoll:271 select:23 pselect6:270 rt_sigaction:13 rt_sigprocmask:14
rt_sigreturn:15 rt_sigpending:127 rt_sigtimedwait:128 rt_sigsuspend:130 sigaltstack:131 pause:34 access:21
faccessat:269 faccessat2:439 readlink:89 readlinkat:267 getdents64:217 getcwd:79 pipe:22 pipe2:293 dup:32
dup2:33 dup3:292 close_range:436 sched_yield:24 sched_getaffinity:204 getcpu:309 nanosleep:35
clock_nanosleep:230 clock_gettime:228 clock_getres:229 gettimeofday:96 time:201 times:100 getitimer:36
setitimer:38 alarm:37 getrusage:98 getrlimit:97 sysinfo:99 uname:63 getrandom:318 getpid:39 getppid:110
gettid:186 getuid:102 geteuid:107 getgid:104 getegid:108 getresuid:118 getresgid:120 getgroups:115 getpgrp:111
getpgid:121 getsid:124 capget:125 getpriority:140 wait4:61 waitid:247 set_tid_address:218 set_robust_list:273
get_robust_list:274 rseq:334 membarrier:324 arch_prctl:158 restart_syscall:219 exit:60 exit_group:231 umask:95
statfs:137 fstatfs:138
"""
# For the scratch folder. No links, devices, modes or times, which nobody misses.
_SCRATCH_TOO = """
mkdir:83 mkdirat:258 rmdir:84 unlink:87 unlinkat:263 rename:82 renameat:264 renameat2:316 creat:85 truncate:76
ftruncate:77 fallocate:285 fsync:74 fdatasync:75 fadvise64:221 chdir:80 fchdir:81
"""
# For event loops, which wake themselves through a pair of sockets that leads nowhere else.
_EVENTS_TOO = """
epoll_create1:291 epoll_ctl:233 epoll_wait:232 epoll_pwait:281 eventfd2:290 recvfrom:45 shutdown:48 getsockname:51
getpeername:52
"""
_COMPILER_TOO = """
execve:59 vfork:58 fork:57 unlink:87 unlinkat:263 rename:82 renameat:264 renameat2:316 mkdir:83 chmod:90 fchmod:91
fchmodat:268 ftruncate:77 fallocate:285 fadvise64:221 chdir:80 fchdir:81 creat:85 utimensat:280 getpgid:121
"""

# Allowed for some arguments only.
_CLONE, _CLONE3, _FCNTL, _IOCTL, _PRCTL, _PRLIMIT64, _KILL, _TGKILL, _EXECVEAT = 56, 435, 72, 16, 157, 302, 62, 234, 322
_SECCOMP, _SOCKETPAIR, _SENDTO = 317, 53, 44
_AF_UNIX = 1

_CLONE_THREAD = 0x10000
_NAMESPACES = 0x7E020000
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_GETPIPE_SZ. Not F_SETOWN, which sends signals to
# strangers, nor F_SETPIPE_SZ, whose memory no limit counts, nor locks: two programs could talk through those that they
# put on a file of the library.
_FCNTL_COMMANDS = (0, 1, 2, 3, 4, 1030, 1032)
# TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX.
_IOCTL_REQUESTS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_GET_NO_NEW_PRIVS, PR_SET_VMA (names of anonymous memory).
_PRCTL_OPTIONS = (3, 15, 16, 39, 0x53564D41)

_EPERM, _ENOTTY, _ENOSYS = 1, 25, 38
_SIGKILL = 9
_ARCH_X86_64 = 0xC000003E
_X32_BIT = 0x40000000
_LOAD, _JUMP, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x05, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH = 0, 4
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_SET_MODE_FILTER = 1
_OWN_PID = 0x7FFFFFF1
"""Stands for the process's own id, which is known only after the fork."""

PROGRAM_DESCRIPTOR = 9
"""Where a compiled program lies when it is exec'd; the one descriptor that may be."""

_Instruction = tuple[int, int, int, int]
_Leaf = tuple[int, int, list[_Instruction]]
"""First and last number of neighbouring calls, and what is done with them."""


class Filter:
    """A compiled profile; made once, installed in every child."""

    def __init__(self, instructions: list[_Instruction]) -> None:
        self._length = len(instructions)
        self._code = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)

    def install(self, pid: int) -> None:
        """Put the filter in force in this process, whose id is `pid`, for good.

        Raises:
            JailError: the kernel did not take it.
        """
        code = self._code.replace(struct.pack("=I", _OWN_PID), struct.pack("=I", pid))
        block = ctypes.create_string_buffer(code, len(code))
        header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", self._length, ctypes.addressof(block)))
        # For the calling thread, which is the only one after a fork; to ask for all would take a third longer.
        if call(_SECCOMP, _SET_MODE_FILTER, 0, header) != 0:
            raise JailError(
                f"seccomp: the filter was not taken ({last_error().strerror}); the kernel needs "
                "CONFIG_SECCOMP_FILTER and the container's own profile must allow the seccomp call"
            )


def python_filter() -> Filter:
    """For a Python program: threads, files and event loops; no processes, no exec, no network."""
    pairs = {_SOCKETPAIR: _one_of(0, (_AF_UNIX,), _EPERM), _SENDTO: _to_its_peer()}
    return _filter(_COMMON + _SCRATCH_TOO + _EVENTS_TOO, {**_restricted(), **pairs, _CLONE: _threads_only()})


def mathematics_filter() -> Filter:
    """For a mathematics worker: threads, and nothing that writes."""
    return _filter(_COMMON, {**_restricted(), _CLONE: _threads_only()})


def binary_filter() -> Filter:
    """For a compiled program: the same, and one exec of what lies in `PROGRAM_DESCRIPTOR`."""
    once = [
        _instruction(_LOAD, _argument(0)),
        _instruction(_EQUAL, PROGRAM_DESCRIPTOR, 0, 1),
        _give(_ALLOW),
        _refuse(),
    ]
    return _filter(_COMMON, {**_restricted(), _CLONE: _threads_only(), _EXECVEAT: once})


def compiler_filter() -> Filter:
    """For the compiler and the programs that it starts: processes, but no namespaces."""
    processes = [
        _instruction(_LOAD, _argument(0)),
        _instruction(_ANY_BIT, _NAMESPACES, 0, 1),
        _refuse(),
        _give(_ALLOW),
    ]
    return _filter(_COMMON + _COMPILER_TOO, {**_restricted(), _CLONE: processes})


def _filter(allowed: str, restricted: Mapping[int, list[_Instruction]]) -> Filter:
    leaves: list[_Leaf] = [(number, number, body) for number, body in restricted.items()]
    numbers = sorted({int(entry.partition(":")[2]) for entry in allowed.split()} - restricted.keys())
    first = numbers[0]
    for number, following in zip(numbers, [*numbers[1:], -1], strict=True):
        if following != number + 1:
            leaves.append((first, number, [_give(_ALLOW)]))
            first = following
    leaves.sort(key=lambda leaf: leaf[0])
    assert leaves[0][0] == 0, "nothing may lie below the first leaf"
    return Filter([*_prologue(), *_search(leaves)])


def _instruction(code: int, k: int, true: int = 0, false: int = 0) -> _Instruction:
    return (code, true, false, k)


def _argument(index: int, high: bool = False) -> int:
    return 16 + 8 * index + (4 if high else 0)


def _give(value: int) -> _Instruction:
    return _instruction(_RETURN, value)


def _refuse() -> _Instruction:
    return _give(_ERRNO | _EPERM)


def _search(leaves: Sequence[_Leaf]) -> list[_Instruction]:
    """Find the leaf of the call by bisection: the kernel tries a new filter for every call that there is.

    On the way to a leaf all that lies below it has been turned off, so only its upper end is left to check.
    """
    if len(leaves) > 1:
        middle = len(leaves) // 2
        lower, upper = _search(leaves[:middle]), _search(leaves[middle:])
        pivot, farthest = leaves[middle][0], 255
        if len(lower) <= farthest:
            return [_instruction(_AT_LEAST, pivot, len(lower), 0), *lower, *upper]
        return [_instruction(_AT_LEAST, pivot, 0, 1), _instruction(_JUMP, len(lower)), *lower, *upper]
    ((_, last, body),) = leaves
    return [_instruction(_AT_LEAST, last + 1, len(body), 0), *body, _refuse()]


def _prologue() -> list[_Instruction]:
    """Kill on a foreign architecture and on x32, whose numbers mean other calls; leaves the number loaded."""
    return [
        _instruction(_LOAD, _ARCH),
        _instruction(_EQUAL, _ARCH_X86_64, 1, 0),
        _give(_KILL_PROCESS),
        _instruction(_LOAD, _NUMBER),
        _instruction(_AT_LEAST, _X32_BIT, 0, 1),
        _give(_KILL_PROCESS),
    ]


def _threads_only() -> list[_Instruction]:
    return [
        _instruction(_LOAD, _argument(0)),
        _instruction(_ANY_BIT, _NAMESPACES, 1, 0),
        _instruction(_ANY_BIT, _CLONE_THREAD, 1, 0),
        _refuse(),
        _give(_ALLOW),
    ]


def _restricted() -> dict[int, list[_Instruction]]:
    """Calls of every profile that are allowed for some arguments. Each body ends by giving a verdict."""
    return {
        # Its flags lie in memory, where a filter cannot look; the C library then falls back to clone.
        _CLONE3: [_give(_ERRNO | _ENOSYS)],
        _FCNTL: _one_of(1, _FCNTL_COMMANDS, _EPERM),
        _IOCTL: _one_of(1, _IOCTL_REQUESTS, _ENOTTY),
        _PRCTL: _one_of(0, _PRCTL_OPTIONS, _EPERM),
        _PRLIMIT64: _own_limits(),
        _KILL: _signal_to_self(1),
        _TGKILL: _signal_to_self(2),
    }


def _one_of(index: int, values: tuple[int, ...], refusal: int) -> list[_Instruction]:
    """Allow when an argument is one of `values`."""
    body = [_instruction(_LOAD, _argument(index))]
    for value in values:
        body += [_instruction(_EQUAL, value, 0, 1), _give(_ALLOW)]
    return [*body, _give(_ERRNO | refusal)]


def _to_its_peer() -> list[_Instruction]:
    """Allow `sendto` without an address, which is `send`: what is not connected then reaches nobody."""
    body = []
    for half in (_argument(4), _argument(4, high=True)):
        body += [_instruction(_LOAD, half), _instruction(_EQUAL, 0, 1, 0), _refuse()]
    return [*body, _give(_ALLOW)]


def _signal_to_self(signal_index: int) -> list[_Instruction]:
    # Never SIGKILL: a child that dies of it was killed from outside, and the service relies on that.
    return [
        _instruction(_LOAD, _argument(0)),
        _instruction(_EQUAL, _OWN_PID, 1, 0),
        _refuse(),
        _instruction(_LOAD, _argument(signal_index)),
        _instruction(_EQUAL, _SIGKILL, 0, 1),
        _refuse(),
        _give(_ALLOW),
    ]


def _own_limits() -> list[_Instruction]:
    # Reading is free; setting is for the stack alone, which programs raise in good faith.
    return [
        _instruction(_LOAD, _argument(0)),
        _instruction(_EQUAL, 0, 1, 0),
        _refuse(),
        _instruction(_LOAD, _argument(1)),
        _instruction(_EQUAL, resource.RLIMIT_STACK, 0, 1),
        _give(_ALLOW),
        _instruction(_LOAD, _argument(2)),
        _instruction(_EQUAL, 0, 1, 0),
        _refuse(),
        _instruction(_LOAD, _argument(2, high=True)),
        _instruction(_EQUAL, 0, 1, 0),
        _refuse(),
        _give(_ALLOW),
    ]
