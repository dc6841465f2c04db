"""What a zygote gives up once, before it serves: root, the machine's files, its network, its processes.

Tier A: a mount namespace whose root holds the system's libraries, the interpreter's, and nothing else, read-only and
without `/proc`; network, IPC and host-name namespaces of its own; and a user namespace, in which it may make the
namespaces of each program. Tier B: the change of user alone.
"""

import contextlib
import os
import socket
import stat
from collections.abc import Mapping, Sequence

from services.verifier.sandbox.isolation import kernel, scratch
from services.verifier.sandbox.isolation.interpreter import without_nested
from services.verifier.sandbox.isolation.kernel import JailError

_WANTED = kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
# Names of the standard streams, which programs look for; the interpreter opens what they stand for.
_STREAMS = ("/dev/stdin", "/dev/stdout", "/dev/stderr")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
# Hidden while the new root is put together; nothing that we need lies under it.
_SCAFFOLD = "/sys"
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
    """Become `identity` and keep no capability; the names of the layers.

    Raises:
        JailError: not possible.
    """
    become(identity)
    try:
        kernel.set_capabilities(0, 0)
    except OSError as error:
        raise JailError(f"user: capabilities cannot be given up ({error.strerror})") from None
    return ["user"]


def enter_tier_a(
    identity: int, folders: Sequence[str], renamed: Mapping[str, str], proc: int, scratch_folder: str
) -> list[str]:
    """Leave the machine behind; `folders` are kept readable, those in `renamed` under other names. Names of the layers.

    `proc` is a descriptor of the machine's `/proc`, and `scratch_folder` where a tmpfs for programs is mounted.

    Raises:
        JailError: a namespace or a mount was refused; says what the deployment must change.
    """
    as_root = os.getuid() == 0 and _may(_WANTED)
    try:
        if not as_root:
            become(identity)
            _enter_user_namespace(_WANTED, proc)
        # A copy of the machine's, until it is changed.
        socket.sethostname("sandbox")
        _build_root({**{folder: folder for folder in without_nested(["/usr", *folders])}, **renamed}, scratch_folder)
        kernel.mount(
            "scratch",
            scratch_folder,
            "tmpfs",
            kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC,
            f"{scratch.MOUNT_DATA},uid={identity},gid={identity}" if as_root else scratch.MOUNT_DATA,
        )
        if as_root:
            become(identity)
            _enter_user_namespace(0, proc)
    except OSError as error:
        raise JailError(f"namespaces: refused ({error}); {_ADVICE}") from None
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


def _build_root(folders: Mapping[str, str], scratch_folder: str) -> None:
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("root", _SCAFFOLD, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=755")
    for folder, name in folders.items():
        _carry(folder, name)
    for link in ("/bin", "/lib", "/lib64"):
        if os.path.islink(link):
            os.symlink(os.readlink(link), _SCAFFOLD + link)
    for device in _DEVICES:
        _carry(device, device, kernel.MOUNT_ATTR_NOSUID)
    _carry("/etc/ld.so.cache", "/etc/ld.so.cache")
    for stream in _STREAMS:
        os.mknod(_SCAFFOLD + stream, stat.S_IFREG | 0o600)
    for folder in ("/tmp", scratch_folder):
        os.makedirs(_SCAFFOLD + folder, exist_ok=True)  # there already when the libraries lie under it
    kernel.change_root(_SCAFFOLD)
    kernel.restrict_mount("/", kernel.MOUNT_ATTR_RDONLY)


def _carry(path: str, name: str, attributes: int = kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV) -> None:
    """Make `path` appear in the new root as `name`, read-only."""
    target = _SCAFFOLD + name
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
