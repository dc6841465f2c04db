"""A warm interpreter that forks a supervisor per program. Started as a script by `sandbox.py`, never imported.

It gives up what it can before it serves, loads what programs use, and never sees a program itself: a request is one
descriptor, the supervisor's connection to the service. So it stays as clean as it started.
"""

import gc
import importlib
import json
import os
import signal
import socket
import sys

# What `threading` and `random` would do after each fork takes a tenth of a test's time. Our processes fork with one
# thread, so there is nothing to mend, and each draws its random numbers again itself.
_register_at_fork = os.register_at_fork
os.register_at_fork = lambda **_: None

_CONFIG = json.loads(sys.argv[1])
sys.path.insert(0, _CONFIG["root"])

from services.verifier.sandbox.isolation import interpreter, kernel, landlock, libraries, limits, namespaces  # noqa: E402
from services.verifier.sandbox.isolation.confinement import BOX, Surroundings  # noqa: E402
from services.verifier.sandbox.isolation.supervisor import Task, rulesets, supervise  # noqa: E402
from services.verifier.sandbox.isolation.untrusted import prepare, run  # noqa: E402
from services.verifier.sandbox.isolation.wire import MOST_CHANNELS  # noqa: E402

_PROGRAMS_USE = (
    "array bisect cmath collections collections.abc contextlib copy dataclasses datetime decimal enum fractions "
    "functools heapq io itertools json math operator os queue random re statistics string struct sys threading time "
    "typing"
)
_TIER_A = kernel.CLONE_NEWPID | kernel.CLONE_NEWIPC
PLAIN, WITH_BOX = b"P", b"B"
_SCRATCH = _CONFIG.get("scratch", BOX)


def _main() -> Task:
    control = socket.socket(fileno=_CONFIG["control"])
    try:
        _load()
        layers, around = _isolate()
        # Made once, since nearly all programs have the same.
        usual = None if _CONFIG["serves"] else rulesets("python", around, with_box=False)
    except kernel.JailError as error:
        control.send(json.dumps({"refused": str(error)}).encode())
        os._exit(3)
    gc.collect()
    gc.freeze()
    # Whoever complains here must not have to wait until somebody reads it.
    os.set_blocking(2, False)
    # The kernel buries the supervisors; how they ended the service sees from their connections.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    control.send(json.dumps({"layers": layers}).encode())
    return _serve(control, around, usual)


def _load() -> None:
    """What the children need: the module that they serve, or those that programs use."""
    if _CONFIG["serves"]:
        sys.path += _CONFIG["readable"]
        importlib.import_module(_CONFIG["serves"]).load()
    else:
        for name in _PROGRAMS_USE.split():
            __import__(name)
        limits.fit_thread_stacks()
        prepare(_CONFIG["root"], _SCRATCH)
    sys.path.remove(_CONFIG["root"])
    os.register_at_fork = _register_at_fork


def _isolate() -> tuple[list[str], Surroundings]:
    kernel.require_supported_machine()
    landlock.require()
    # Outlives the old root. For the user map, and for supervisors, who look at what their programs do.
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    kernel.require_one_thread(proc)
    limits.offer_to_the_oom_killer()
    identity, libraries_in = _CONFIG["identity"], _CONFIG.get("library_folders", [])
    if _CONFIG["tier"] == "A":
        folders = interpreter.without_nested([*landlock.interpreter_folders(), *_CONFIG["readable"]])
        names = {folder: f"/libraries/{os.path.basename(folder)}" for folder in libraries_in}
        layers = namespaces.enter_tier_a(identity, folders, names, proc, _SCRATCH)
        namespaces.require_nesting(_TIER_A)
        kept: list[int] = []
    else:
        held = interpreter.hold([*_CONFIG["readable"], *libraries_in])
        folders, libraries_in = list(held), []
        layers = namespaces.enter_tier_b(identity)
        names = interpreter.keep_unreachable(held)
        kept = interpreter.descriptors(names)
    interpreter.rename_everywhere(names)
    places = {name: interpreter.rename(place, names) for name, place in _CONFIG.get("libraries", {}).items()}
    libraries.offer(places)
    around = Surroundings(
        proc=proc,
        readable=tuple(interpreter.rename(folder, names) for folder in (*folders, *libraries_in)),
        tools=tuple(_CONFIG.get("tools", ())),
        scratch=_SCRATCH,
        libraries=places,
        kept=tuple(kept),
        shares_machine=_CONFIG["tier"] == "B",
    )
    return layers, around


def _serve(control: socket.socket, around: Surroundings, usual: tuple[int, int] | None) -> Task:
    """Fork a supervisor per request, until the service is gone. Returns only in an untrusted process."""
    while True:
        kind, descriptors, _, _ = socket.recv_fds(control, 1, 1 + MOST_CHANNELS)
        if not kind:
            os._exit(0)
        connection, channels = socket.socket(fileno=descriptors[0]), descriptors[1:]
        try:
            pid, pidfd = _fork_supervisor(kind)
        except OSError as error:
            control.send(f"refused {error.strerror}".encode())
            _close(connection, channels)
            continue
        if pid == 0:
            control.close()
            return _supervise(connection, kind, around, usual, channels)
        socket.send_fds(control, [b"forked"], [pidfd])
        os.close(pidfd)
        _close(connection, channels)


def _close(connection: socket.socket, channels: list[int]) -> None:
    connection.close()
    for channel in channels:
        os.close(channel)


def _supervise(
    connection: socket.socket,
    kind: bytes,
    around: Surroundings,
    usual: tuple[int, int] | None,
    channels: list[int],
) -> Task:
    tier = _CONFIG["tier"]
    # Nothing about the machine stays for a program to find.
    _CONFIG.clear()
    if kind == WITH_BOX:
        kernel.mount("box", BOX, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=256m,nr_inodes=4096")
    if tier == "A":
        kernel.set_capabilities(0, 0)
    return supervise(connection, around, usual, channels)


def _fork_supervisor(kind: bytes) -> tuple[int, int]:
    if _CONFIG["tier"] == "B":
        pid = os.fork()
        return (pid, os.pidfd_open(pid)) if pid else (0, -1)
    # A box is mounted by its supervisor, which for that must stay in the zygote's user namespace.
    own = kernel.CLONE_NEWNS if kind == WITH_BOX else kernel.CLONE_NEWUSER
    return kernel.clone_supervisor(_TIER_A | own)


if limits.raise_stack():
    os.execv(sys.executable, sys.orig_argv)
run(_main())
