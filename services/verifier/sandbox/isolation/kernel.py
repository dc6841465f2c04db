"""System calls that Python has no name for. Numbers are x86-64's; every other file of this folder goes through here."""

import contextlib
import ctypes
import os
import struct
import sys

MACHINE = "x86_64"
_LIBC = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
_CLONE_PIDFD = 0x1000
_SIGCHLD = 17

_CLONE, _PIVOT_ROOT, _MOUNT, _UMOUNT2, _UNSHARE, _CAPSET, _EXECVEAT = 56, 155, 165, 166, 272, 126, 322
_MOUNT_SETATTR, _CLOSE_RANGE, _FCNTL = 442, 436, 72
_MFD_EXEC, _MFD_NOEXEC_SEAL, _MFD_ALLOW_SEALING = 0x10, 8, 2
_ADD_SEALS, _ALL_SEALS = 1033, 0xF
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
_MNT_DETACH = 2
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
_AT_RECURSIVE, _AT_EMPTY_PATH = 0x8000, 0x1000

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS = 1, 4, 8, 38
_CAPABILITY_VERSION_3 = 0x20080522


class JailError(Exception):
    """A layer of isolation cannot be had here; says which, and what to change."""


def require_supported_machine() -> None:
    """Raises `JailError` on machines whose system calls have other numbers."""
    if os.uname().machine != MACHINE or sys.maxsize < 2**63 - 1:
        raise JailError(f"seccomp: no table of system calls for {os.uname().machine}; this verifier needs {MACHINE}")


def require_one_thread(proc: int) -> None:
    """Raises `JailError` when this process has more than one; `proc` is a descriptor of `/proc`."""
    folder = os.open("self/task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
    try:
        if len(os.listdir(folder)) != 1:
            raise JailError("seccomp: there is more than one thread, and a jail binds only the calling one")
    finally:
        os.close(folder)


def call(number: int, *arguments: object) -> int:
    """One system call; negative when it failed, and then `last_error` says why."""
    # Plain integers would be passed as 32-bit C ints.
    wide = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    result: int = _LIBC.syscall(ctypes.c_long(number), *wide)
    return result


def last_error() -> OSError:
    """Why the last call failed."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _must(result: int) -> int:
    if result < 0:
        raise last_error()
    return result


def prctl(option: int, value: int) -> int:
    """`prctl` with one argument.

    Raises:
        OSError: the kernel refused.
    """
    return _must(_LIBC.prctl(ctypes.c_int(option), ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3))


def unshare(flags: int) -> None:
    """Leave the namespaces named by `CLONE_NEW...` flags. Raises OSError."""
    _must(call(_UNSHARE, flags))


def clone_supervisor(flags: int) -> tuple[int, int]:
    """Fork into new namespaces: `(0, -1)` in the child, `(pid, pidfd)` in the parent. Raises OSError.

    `os.fork` takes no flags. The interpreter's own steps around a fork are called by hand; the caller must have one
    thread only.
    """
    pidfd = ctypes.c_int(-1)
    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    # Through PyDLL, so that the GIL stays ours.
    raw = ctypes.PyDLL(None, use_errno=True).syscall
    pid: int = raw(
        ctypes.c_long(_CLONE),
        ctypes.c_ulong(flags | _CLONE_PIDFD | _SIGCHLD),
        None,
        ctypes.byref(pidfd),
        None,
        ctypes.c_ulong(0),
    )
    if pid == 0:
        python.PyOS_AfterFork_Child()
        return 0, -1
    failure = last_error() if pid < 0 else None
    python.PyOS_AfterFork_Parent()
    if failure is not None:
        raise failure
    return pid, pidfd.value


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """`mount(2)`. Raises OSError."""
    _must(call(_MOUNT, source.encode(), target.encode(), kind.encode(), flags, data.encode()))


def restrict_mount(path: str, attributes: int) -> None:
    """Add attributes such as read-only to the mount at `path` and to all below it. Raises OSError."""
    block = ctypes.create_string_buffer(struct.pack("=4Q", attributes, 0, 0, 0), 32)
    _must(call(_MOUNT_SETATTR, -100, path.encode(), _AT_RECURSIVE, block, 32))


def change_root(folder: str) -> None:
    """Make `folder`, a mount, the root, and let go of the old one. Raises OSError."""
    os.chdir(folder)
    _must(call(_PIVOT_ROOT, b".", b"."))
    _must(call(_UMOUNT2, b".", _MNT_DETACH))
    os.chdir("/")


def set_capabilities(effective: int, permitted: int) -> None:
    """Keep only these; `0, 0` gives all up. Raises OSError."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    data = ctypes.create_string_buffer(struct.pack("=6I", effective, permitted, 0, 0, 0, 0))
    _must(call(_CAPSET, header, data))


def close_range(first: int, last: int) -> None:
    """Close every descriptor from `first` to `last`. Raises OSError."""
    _must(call(_CLOSE_RANGE, first, last, 0))


def executable_in_memory(data: bytes) -> int:
    """A descriptor of an anonymous file with `data`, closed on exec. Raises OSError."""
    try:
        descriptor = os.memfd_create("program", os.MFD_CLOEXEC | _MFD_EXEC)
    except OSError:
        descriptor = os.memfd_create("program", os.MFD_CLOEXEC)  # before Linux 6.3
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    return descriptor


def file_in_memory(data: bytes, proc: int) -> int:
    """A descriptor of an anonymous file with `data` that nobody can change, open for reading. Raises OSError.

    `proc` is a descriptor of `/proc`.
    """
    try:
        descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC | _MFD_ALLOW_SEALING | _MFD_NOEXEC_SEAL)
    except OSError:
        descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC | _MFD_ALLOW_SEALING)  # before Linux 6.3
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    # Not by `fcntl`: a module more would make every fork dearer.
    _must(call(_FCNTL, descriptor, _ADD_SEALS, _ALL_SEALS))
    os.lseek(descriptor, 0, os.SEEK_SET)
    # Before Linux 6.7 a sealed file that is open for writing cannot be mapped as shared, not even for reading.
    with contextlib.suppress(OSError):
        reader = os.open(f"self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
        os.close(descriptor)
        return reader
    return descriptor


def execute(descriptor: int, arguments: list[str], environment: list[str]) -> None:
    """Replace this process by the program in `descriptor`. Returns only by raising OSError."""
    argv = (ctypes.c_char_p * (len(arguments) + 1))(*(text.encode() for text in arguments), None)
    envp = (ctypes.c_char_p * (len(environment) + 1))(*(text.encode() for text in environment), None)
    _must(call(_EXECVEAT, descriptor, b"", argv, envp, _AT_EMPTY_PATH))
