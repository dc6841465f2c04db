"""Locks the calling process up, for good: session, limits, user, Landlock, network namespace, seccomp.

Runs inside the children that hold code nobody trusts: `runner.py` (programs) and `math_worker.py` (answers). Standard
library only and no import of this project, because those children are started without its packages.

There is no way to ask for less. A layer that this machine cannot give raises `JailError`, and nothing runs. What the
kernel sees is an allow list of system calls: what is not named below is refused with EPERM.
"""

import contextlib
import ctypes
import os
import resource
import struct
import sys

UNPRIVILEGED_ID = 65534
STACK_BYTES = 120 * 1024 * 1024
"""Below the 128 MiB that the kernel keeps free under a stack which is raised after the process has started."""

_MACHINE = "x86_64"
_LIBC = ctypes.CDLL(None, use_errno=True)

# ---------------------------------------------------------------- system calls

_ALLOWED = """
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

# Allowed for some arguments only.
_CLONE, _CLONE3, _FCNTL, _IOCTL, _PRCTL, _PRLIMIT64, _KILL, _TGKILL = 56, 435, 72, 16, 157, 302, 62, 234
_SECCOMP = 317
_UNSHARE = 272
_CAPSET = 126
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446

_CLONE_THREAD = 0x10000
_CLONE_NEWNET = 0x40000000
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, the record locks, F_DUPFD_CLOEXEC, F_GETPIPE_SZ. Not F_SETOWN, which
# sends signals to strangers, nor F_SETPIPE_SZ, whose memory no limit counts.
_FCNTL_COMMANDS = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032)
# TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX.
_IOCTL_REQUESTS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_GET_NO_NEW_PRIVS, PR_SET_VMA (names of anonymous memory).
_PRCTL_OPTIONS = (3, 15, 16, 39, 0x53564D41)

_EPERM, _ENOTTY, _ENOSYS = 1, 25, 38
_SIGKILL = 9


class JailError(Exception):
    """A layer of isolation cannot be had here."""


# ---------------------------------------------------------------- entering


def enter(
    *, identity: int, cpu_seconds: int, memory_mib: int, threads: int, readable: tuple[str, ...] = ()
) -> list[str]:
    """Lock this process up and return the layers in force.

    `identity` is the user id to become when started as root; one per child that lives at the same time, because
    the kernel counts threads per user. `readable` names folders that may be read besides the interpreter's own.

    Raises:
        JailError: a layer is missing. The process must then end.
    """
    if os.uname().machine != _MACHINE or sys.maxsize < 2**63 - 1:
        raise JailError(f"seccomp: no table of system calls for {os.uname().machine}; this verifier needs {_MACHINE}")
    if len(os.listdir("/proc/self/task")) != 1:
        raise JailError("seccomp: the child has more than one thread, and a jail binds only the calling one")
    layers = [_new_session(), _offer_to_the_oom_killer()]
    _hand_over_pipes(identity)
    layers.append(_leave_the_network())
    layers.append(_limit(cpu_seconds, memory_mib, threads))
    layers.append(_drop_privileges(identity))
    _end_with_the_service()
    layers.append(_forbid_new_privileges())
    layers.append(_landlock(_readable_folders(readable)))
    layers.append(_seccomp())
    return [layer for layer in layers if layer]


def _new_session() -> str:
    # kill(0) of a child in our process group would reach the service.
    if os.getsid(0) != os.getpid():
        try:
            os.setsid()
        except OSError as error:
            raise JailError(f"session: setsid failed ({error.strerror})") from None
    return "session"


def _offer_to_the_oom_killer() -> str:
    # When the machine runs out of memory, the child goes and the service stays. A comfort, not a wall.
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        return ""
    return "oom_score"


def _hand_over_pipes(identity: int) -> None:
    # So that `open("/dev/stdin")` works for the new user as it does for the old one.
    if os.getuid() == 0:
        for descriptor in range(3):
            with contextlib.suppress(OSError):
                os.fchown(descriptor, identity, identity)


def _leave_the_network() -> str:
    # Needs a privilege that restricted containers do not have; Landlock and seccomp refuse sockets anyway.
    return "netns" if _call(_UNSHARE, _CLONE_NEWNET) == 0 else ""


def _limit(cpu_seconds: int, memory_mib: int, threads: int) -> str:
    memory = memory_mib * 1024 * 1024
    # As an ordinary user the children share their user id, and so the count, with the service.
    processes = threads if os.getuid() == 0 else 4096
    limits = [
        (resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 1),
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_NPROC, processes, processes),
        (resource.RLIMIT_NOFILE, 64, 64),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
        (resource.RLIMIT_SIGPENDING, 64, 64),
        (resource.RLIMIT_STACK, STACK_BYTES, resource.getrlimit(resource.RLIMIT_STACK)[1]),
    ]
    for number, soft, hard in limits:
        ceiling = resource.getrlimit(number)[1]
        if ceiling != resource.RLIM_INFINITY:
            hard = ceiling if hard == resource.RLIM_INFINITY else min(hard, ceiling)
        if hard != resource.RLIM_INFINITY:
            soft = min(soft, hard)
        try:
            resource.setrlimit(number, (soft, hard))
        except (OSError, ValueError) as error:
            raise JailError(f"rlimits: limit {number} cannot be set to {soft}, {hard} ({error})") from None
    return "rlimits"


# ---------------------------------------------------------------- user

_PR_SET_PDEATHSIG, _PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS, _PR_GET_NO_NEW_PRIVS = 1, 8, 38, 39
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_READ_SEARCH = 1 << 2


def _drop_privileges(identity: int) -> str:
    layer = "capabilities"
    if os.getuid() == 0:
        if identity <= 0:
            raise JailError(f"user: {identity} is not an unprivileged user id")
        _prctl(_PR_SET_KEEPCAPS, 1)
        try:
            os.setgroups([])
            os.setresgid(identity, identity, identity)
            os.setresuid(identity, identity, identity)
        except OSError as error:
            raise JailError(
                f"user: root may not become {identity} ({error.strerror}); start the service as an ordinary user, "
                "or leave it CAP_SETUID and CAP_SETGID"
            ) from None
        layer = "user"
    if os.getuid() == 0 or os.geteuid() == 0:
        raise JailError("user: still root")
    _keep_capabilities(0)
    if not _can_read_interpreter():
        # The interpreter lies in somebody's home folder. Reading past file modes is all that is kept; Landlock
        # narrows it to the interpreter's own folders, and there is no exec that could pass it on.
        _keep_capabilities(_CAP_DAC_READ_SEARCH)
        if not _can_read_interpreter():
            raise JailError(f"user: user {os.getuid()} cannot read the interpreter's library at {_stdlib()}")
    return layer


def _keep_capabilities(mask: int) -> None:
    # While `mask` is 0 the permitted set stays, so that one of it may be taken up again by the second call.
    permitted = mask if mask else _permitted() & _CAP_DAC_READ_SEARCH
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    data = ctypes.create_string_buffer(struct.pack("=6I", mask, permitted, 0, 0, 0, 0))
    if _call(_CAPSET, header, data) != 0:
        raise JailError(f"user: capabilities cannot be given up ({os.strerror(ctypes.get_errno())})")


def _permitted() -> int:
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("CapPrm:"))
    return int(line.split()[1], 16) & 0xFFFFFFFF


def _can_read_interpreter() -> bool:
    try:
        os.listdir(_stdlib())
    except PermissionError:
        return False
    return True


def _end_with_the_service() -> None:
    # After the change of user, which would undo it.
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)


def _forbid_new_privileges() -> str:
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if _prctl(_PR_GET_NO_NEW_PRIVS, 0) != 1:
        raise JailError("no_new_privs: the kernel did not take it")
    return "no_new_privs"


# ---------------------------------------------------------------- Landlock

_LANDLOCK_MINIMUM = 3
_READ_FILE, _READ_DIR, _WRITE_FILE = 1 << 2, 1 << 3, 1 << 1


def _landlock(folders: tuple[str, ...]) -> str:
    abi = _call(_LANDLOCK_CREATE, None, 0, 1)
    if abi < _LANDLOCK_MINIMUM:
        found = "none" if abi < 0 else f"ABI {abi}"
        raise JailError(
            f"landlock: ABI {_LANDLOCK_MINIMUM} is needed and the kernel offers {found}; use Linux 6.2 or newer, with "
            "landlock among its security modules, and a container profile that allows landlock_* calls"
        )
    ruleset = _new_ruleset(abi)
    for folder in folders:
        _permit(ruleset, folder, _READ_FILE | _READ_DIR)
    _permit(ruleset, "/dev/urandom", _READ_FILE)
    _permit(ruleset, "/dev/null", _READ_FILE | _WRITE_FILE)
    if os.path.exists("/etc/ld.so.cache"):
        _permit(ruleset, "/etc/ld.so.cache", _READ_FILE)
    if _call(_LANDLOCK_RESTRICT, ruleset, 0) != 0:
        raise JailError(f"landlock: the rules cannot be put in force ({os.strerror(ctypes.get_errno())})")
    os.close(ruleset)
    return f"landlock:{abi}"


def _new_ruleset(abi: int) -> int:
    # Everything the kernel can refuse is refused, save what a rule grants. Newer kernels know more kinds.
    files = (1 << 15) - 1
    if abi >= 5:
        files |= 1 << 15  # ioctl on devices
    attributes = struct.pack("=Q", files)
    if abi >= 4:
        attributes += struct.pack("=Q", 0b11)  # TCP bind and connect
    if abi >= 6:
        attributes += struct.pack("=Q", 0b11)  # abstract sockets and signals to the outside
    ruleset: int = _call(_LANDLOCK_CREATE, ctypes.create_string_buffer(attributes, len(attributes)), len(attributes), 0)
    if ruleset < 0:
        raise JailError(f"landlock: no ruleset ({os.strerror(ctypes.get_errno())})")
    return ruleset


def _permit(ruleset: int, path: str, access: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    rule = struct.pack("=Qi", access, descriptor)
    failed = _call(_LANDLOCK_ADD, ruleset, 1, ctypes.create_string_buffer(rule, len(rule)), 0) != 0
    os.close(descriptor)
    if failed:
        raise JailError(f"landlock: no rule for {path} ({os.strerror(ctypes.get_errno())})")


def _stdlib() -> str:
    return os.path.dirname(os.__file__)


def _readable_folders(more: tuple[str, ...]) -> tuple[str, ...]:
    # Not the whole prefix, and nothing under /etc, /home, /proc, /sys, /tmp or /var.
    wanted = [_stdlib(), os.path.join(sys.base_prefix, "lib"), "/lib", "/lib64", "/usr/lib", "/usr/lib64"]
    wanted += ["/usr/share/zoneinfo", *more]
    return tuple(sorted({os.path.realpath(path) for path in wanted if os.path.isdir(path)}))


# ---------------------------------------------------------------- seccomp

_ARCH_X86_64 = 0xC000003E
_X32_BIT = 0x40000000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH = 0, 4
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_SET_MODE_FILTER, _SYNC_THREADS = 1, 1

_Instruction = tuple[int, int, int, int]


def _instruction(code: int, k: int, true: int = 0, false: int = 0) -> _Instruction:
    return (code, true, false, k)


def _argument(index: int, high: bool = False) -> int:
    return 16 + 8 * index + (4 if high else 0)


def _give(value: int) -> _Instruction:
    return _instruction(_RETURN, value)


def _when(number: int, body: list[_Instruction]) -> list[_Instruction]:
    """`body`, which always returns, for one system call."""
    return [_instruction(_EQUAL, number, 0, len(body)), *body]


def _one_of(index: int, values: tuple[int, ...], refusal: int) -> list[_Instruction]:
    """Allow when an argument is one of `values`."""
    body = [_instruction(_LOAD, _argument(index))]
    for value in values:
        body += [_instruction(_EQUAL, value, 0, 1), _give(_ALLOW)]
    return [*body, _give(_ERRNO | refusal)]


def _signal_to_self(pid: int, signal_index: int) -> list[_Instruction]:
    # Never SIGKILL: a child that dies of it was killed from outside, and the service relies on that.
    return [
        _instruction(_LOAD, _argument(0)),
        _instruction(_EQUAL, pid, 1, 0),
        _give(_ERRNO | _EPERM),
        _instruction(_LOAD, _argument(signal_index)),
        _instruction(_EQUAL, _SIGKILL, 0, 1),
        _give(_ERRNO | _EPERM),
        _give(_ALLOW),
    ]


def _own_limits() -> list[_Instruction]:
    # Reading is free; setting is for the stack alone, which programs raise in good faith.
    return [
        _instruction(_LOAD, _argument(0)),
        _instruction(_EQUAL, 0, 1, 0),
        _give(_ERRNO | _EPERM),
        _instruction(_LOAD, _argument(1)),
        _instruction(_EQUAL, resource.RLIMIT_STACK, 0, 1),
        _give(_ALLOW),
        _instruction(_LOAD, _argument(2)),
        _instruction(_EQUAL, 0, 1, 0),
        _give(_ERRNO | _EPERM),
        _instruction(_LOAD, _argument(2, high=True)),
        _instruction(_EQUAL, 0, 1, 0),
        _give(_ERRNO | _EPERM),
        _give(_ALLOW),
    ]


def _program() -> list[_Instruction]:
    pid = os.getpid()
    program = [
        _instruction(_LOAD, _ARCH),
        _instruction(_EQUAL, _ARCH_X86_64, 1, 0),
        _give(_KILL_PROCESS),
        _instruction(_LOAD, _NUMBER),
        _instruction(_AT_LEAST, _X32_BIT, 0, 1),
        _give(_KILL_PROCESS),
    ]
    for entry in _ALLOWED.split():
        program += _when(int(entry.partition(":")[2]), [_give(_ALLOW)])
    threads_only = [
        _instruction(_LOAD, _argument(0)),
        _instruction(_ANY_BIT, _CLONE_THREAD, 0, 1),
        _give(_ALLOW),
        _give(_ERRNO | _EPERM),
    ]
    program += _when(_CLONE, threads_only)
    # Its flags lie in memory, where a filter cannot look; the C library then falls back to clone.
    program += _when(_CLONE3, [_give(_ERRNO | _ENOSYS)])
    program += _when(_FCNTL, _one_of(1, _FCNTL_COMMANDS, _EPERM))
    program += _when(_IOCTL, _one_of(1, _IOCTL_REQUESTS, _ENOTTY))
    program += _when(_PRCTL, _one_of(0, _PRCTL_OPTIONS, _EPERM))
    program += _when(_PRLIMIT64, _own_limits())
    program += _when(_KILL, _signal_to_self(pid, 1))
    program += _when(_TGKILL, _signal_to_self(pid, 2))
    return [*program, _give(_ERRNO | _EPERM)]


def _seccomp() -> str:
    program = _program()
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    block = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(block)))
    if _call(_SECCOMP, _SET_MODE_FILTER, _SYNC_THREADS, header) != 0:
        raise JailError(
            f"seccomp: the filter was not taken ({os.strerror(ctypes.get_errno())}); the kernel needs "
            "CONFIG_SECCOMP_FILTER and the container's own profile must allow the seccomp call"
        )
    return "seccomp"


# ---------------------------------------------------------------- the kernel


def _call(number: int, *arguments: object) -> int:
    # Plain integers would be passed as 32-bit C ints.
    wide = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    result: int = _LIBC.syscall(ctypes.c_long(number), *wide)
    return result


def _prctl(option: int, value: int) -> int:
    result: int = _LIBC.prctl(ctypes.c_int(option), ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3)
    if result < 0:
        raise JailError(f"prctl {option}: {os.strerror(ctypes.get_errno())}")
    return result
