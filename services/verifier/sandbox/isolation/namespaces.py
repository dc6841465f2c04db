"""What a zygote gives up once, before it serves: root, the machine's files, its network, its processes.

Tier A: a mount namespace whose root holds the system's libraries, the interpreter's, and nothing else, read-only and
without `/proc`; network, IPC and host-name namespaces of its own; and a user namespace, in which it may make the
namespaces of each program. Tier B: the change of user alone.
"""

import contextlib
import os
import socket
import stat

from services.verifier.sandbox.isolation import kernel
from services.verifier.sandbox.isolation.kernel import JailError
from services.verifier.sandbox.isolation.landlock import interpreter_folders, standard_library

_WANTED = kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
# Hidden while the new root is put together; nothing that we need lies under it.
_SCAFFOLD = "/sys"
_CAP_DAC_READ_SEARCH = 1 << 2
_ADVICE = (
    "tier A needs user, mount, process and network namespaces: allow clone, unshare, mount, umount2 and pivot_root in "
    "the container's seccomp profile and `userns` in its AppArmor profile (no capability is needed), and set "
    "kernel.unprivileged_userns_clone and user.max_user_namespaces above 0; or accept tier B (`verifier.min_tier`)"
)


def become(identity: int) -> None:
    """Change from root to `identity`; an ordinary user stays who it is.

    Raises:
        JailError: root may not change.
    """
    if os.getuid() != 0:
        return
    try:
        os.setgroups([])
        os.setresgid(identity, identity, identity)
        os.setresuid(identity, identity, identity)
    except OSError as error:
        raise JailError(
            f"user: root may not become {identity} ({error.strerror}); start the service as an ordinary user, "
            "or leave it CAP_SETUID and CAP_SETGID"
        ) from None
    if os.getuid() == 0 or os.geteuid() == 0:
        raise JailError("user: still root")


def enter_tier_b(identity: int) -> list[str]:
    """Become `identity`, keeping at most the right to read past file modes; the names of the layers.

    Raises:
        JailError: not possible, or the interpreter's library cannot be read afterwards.
    """
    if os.getuid() == 0:
        kernel.prctl(kernel.PR_SET_KEEPCAPS, 1)
    become(identity)
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("CapPrm:"))
    spare = int(line.split()[1], 16) & _CAP_DAC_READ_SEARCH
    kernel.set_capabilities(0, spare)
    if _can_read_interpreter():
        kernel.set_capabilities(0, 0)
    else:
        # The interpreter lies in somebody's home folder. Reading past file modes is all that is kept; Landlock
        # narrows it to the interpreter's own folders, and there is no exec that could pass it on.
        kernel.set_capabilities(spare, spare)
        if not _can_read_interpreter():
            raise JailError(f"user: user {os.getuid()} cannot read the interpreter's library at {standard_library()}")
    return ["user"]


def _can_read_interpreter() -> bool:
    try:
        os.listdir(standard_library())
    except PermissionError:
        return False
    return True


def enter_tier_a(identity: int, folders: list[str]) -> list[str]:
    """Leave the machine behind; `folders` are kept readable besides the system's. The names of the layers.

    Raises:
        JailError: a namespace or a mount was refused; says what the deployment must change.
    """
    # Outlives the old root, for the user map.
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    as_root = os.getuid() == 0 and _may(_WANTED)
    try:
        if not as_root:
            become(identity)
            _enter_user_namespace(_WANTED, proc)
        # A copy of the machine's, until it is changed.
        socket.sethostname("sandbox")
        _build_root([*interpreter_folders(), *folders])
        if as_root:
            become(identity)
            _enter_user_namespace(0, proc)
    except OSError as error:
        raise JailError(f"namespaces: refused ({error}); {_ADVICE}") from None
    finally:
        os.close(proc)
    return ["user", "userns", "mountns", "netns", "ipcns", "utsns", "pidns"]


def require_nesting(flags: int) -> None:
    """Try what every program will need: namespaces within the zygote's.

    Raises:
        JailError: they are refused.
    """
    try:
        pid, pidfd = kernel.clone_supervisor(flags | kernel.CLONE_NEWUSER)
        if pid == 0:
            os._exit(0)
        os.close(pidfd)
        os.waitpid(pid, 0)
    except OSError as error:
        raise JailError(f"namespaces: refused within the zygote's own ({error}); {_ADVICE}") from None


def _may(flags: int) -> bool:
    try:
        kernel.unshare(flags)
    except PermissionError:
        return False
    return True


def _enter_user_namespace(more: int, proc: int) -> None:
    user, group = os.getuid(), os.getgid()
    # The map of a process that is not dumpable belongs to root.
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    kernel.unshare(kernel.CLONE_NEWUSER | more)
    for name, content in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        descriptor = os.open(f"self/{name}", os.O_WRONLY, dir_fd=proc)
        try:
            os.write(descriptor, content.encode())
        finally:
            os.close(descriptor)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


def _build_root(folders: list[str]) -> None:
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("root", _SCAFFOLD, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=755")
    for folder in _without_nested(["/usr", *folders]):
        _carry(folder)
    for link in ("/bin", "/lib", "/lib64"):
        if os.path.islink(link):
            os.symlink(os.readlink(link), _SCAFFOLD + link)
    for device in _DEVICES:
        _carry(device, kernel.MOUNT_ATTR_NOSUID)
    _carry("/etc/ld.so.cache")
    os.makedirs(_SCAFFOLD + "/tmp", exist_ok=True)  # there already when the libraries lie under it
    kernel.change_root(_SCAFFOLD)
    kernel.restrict_mount("/", kernel.MOUNT_ATTR_RDONLY)


def _without_nested(folders: list[str]) -> list[str]:
    kept: list[str] = []
    for folder in sorted({os.path.realpath(folder) for folder in folders if os.path.isdir(folder)}):
        if not any(folder.startswith(f"{above}/") for above in kept):
            kept.append(folder)
    return kept


def _carry(path: str, attributes: int = kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV) -> None:
    """Make `path` appear in the new root, at the same place, read-only."""
    target = _SCAFFOLD + path
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        return
    os.makedirs(target if is_folder else os.path.dirname(target), mode=0o755, exist_ok=True)
    if not is_folder:
        with contextlib.suppress(FileExistsError):
            os.mknod(target, stat.S_IFREG | 0o644)
    kernel.mount(path, target, "", kernel.MS_BIND | kernel.MS_REC)
    kernel.restrict_mount(target, attributes | kernel.MOUNT_ATTR_RDONLY)
