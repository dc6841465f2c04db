"""Zygotes: warm processes that fork a supervisor on demand, in the isolation of a tier.

Used by `sandbox.py` for programs and by `algebra/process.py` for workers; the other side is `isolation/zygote.py`.
"""

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from prime.errors import SandboxError
from services.verifier.sandbox.folders import Found, ScratchFolder, scratch_in_tier_a
from services.verifier.sandbox.toolchain import tools

_ZYGOTE = Path(__file__).with_name("isolation") / "zygote.py"
_ROOT = Path(__file__).parents[3]
UNPRIVILEGED_ID = 65534
"""User of the first zygote when the service runs as root; the others' are lower, since limits count per user."""
# What programs find, too.
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "PATH": "/usr/bin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/",
    # Libraries would start a thread for each processor, and reserve memory for each.
    **{f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL")},
}
_START_SECONDS = 60.0
_FORK_SECONDS = 20.0
_LONGEST_GREETING = 8192


class Tier(StrEnum):
    """How strong the isolation is."""

    A = "A"
    """All layers: namespaces for every program, Landlock, seccomp, limits."""
    B = "B"
    """Without namespaces, for containers that refuse them; Python only, and no checkers."""


class Zygote:
    """A process of `isolation/zygote.py`. Making one blocks until it is ready.

    `serves` names the module whose `load()` the zygote calls and whose `serve()` its children run; without it they run
    programs. `libraries` are folders that may be read besides the interpreter's own; `found` are libraries that
    programs may import.

    Raises:
        SandboxError: a layer of the tier cannot be had here; names it and what to change.
    """

    def __init__(
        self,
        tier: Tier,
        identity: int,
        *,
        serves: str = "",
        libraries: Sequence[str] = (),
        found: Found | None = None,
    ) -> None:
        found = found or Found(places={}, folders=())
        self._scratch = ScratchFolder(identity) if tier is Tier.B and not serves else None
        scratch = self._scratch.path if self._scratch else scratch_in_tier_a([*libraries, sys.base_prefix])
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        config = {
            "root": str(_ROOT),
            "control": theirs.fileno(),
            "tier": tier.value,
            "identity": identity,
            "serves": serves,
            "readable": list(libraries),
            "library_folders": list(found.folders),
            "scratch": scratch,
            "libraries": found.places,
            "tools": [] if serves or tier is Tier.B else list(tools()),
        }
        # A file, as standard input is one for every program: the interpreter's stream then knows that it can go back.
        stdin = os.memfd_create("stdin", os.MFD_CLOEXEC)
        self.process = subprocess.Popen(
            # -I would ignore the hash seed too; the rest of what it does is here. The environment holds nothing else.
            [
                os.path.realpath(sys.executable),
                *("-s", "-S", "-P", "-B", "-X", "utf8"),
                str(_ZYGOTE),
                json.dumps(config),
            ],
            # Pipes, as in every child, so that the interpreter's streams can be used there as it made them.
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(theirs.fileno(),),
            env={**_ENVIRONMENT, "TMPDIR": scratch},
            cwd="/",
            start_new_session=True,
        )
        theirs.close()
        os.close(stdin)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._control.settimeout(_START_SECONDS)
        self.layers = self._greeting()
        self._control.setblocking(False)

    def _greeting(self) -> tuple[str, ...]:
        try:
            greeting = json.loads(self._control.recv(_LONGEST_GREETING) or b"{}")
        except TimeoutError:
            greeting = {}
        if "layers" in greeting:
            return tuple(greeting["layers"])
        self.process.kill()
        assert self.process.stderr is not None
        said = self.process.stderr.read().decode(errors="replace").strip()[-500:]
        self.end()
        raise SandboxError(greeting.get("refused") or f"the sandbox's zygote did not start: {said or 'no message'}")

    async def fork(self, connection: socket.socket, with_box: bool, channels: Sequence[socket.socket] = ()) -> int:
        """A supervisor at the other end of `connection`; a pidfd of it. One call at a time.

        `channels` are what its program can talk through to another one, one for each run.

        Raises:
            SandboxError: the zygote is dead, or may not fork. It is then of no more use.
        """
        try:
            self._request(connection, with_box, channels)
            async with asyncio.timeout(_FORK_SECONDS):
                await _readable(self._control.fileno())
            return self._forked()
        except (OSError, TimeoutError) as error:
            raise _gone(error) from None

    def fork_blocking(self, connection: socket.socket) -> int:
        """The same for callers that are threads and need no box."""
        try:
            self._request(connection, with_box=False)
            if not is_readable(self._control.fileno(), _FORK_SECONDS):
                raise TimeoutError
            return self._forked()
        except OSError as error:
            raise _gone(error) from None

    def _request(self, connection: socket.socket, with_box: bool, channels: Sequence[socket.socket] = ()) -> None:
        descriptors = [each.fileno() for each in (connection, *channels)]
        socket.send_fds(self._control, [b"B" if with_box else b"P"], descriptors)

    def _forked(self) -> int:
        answer, descriptors, _, _ = socket.recv_fds(self._control, 256, 1)
        if not descriptors:
            raise SandboxError(f"no supervisor: {answer.decode(errors='replace') or 'the zygote died'}")
        return descriptors[0]

    def end(self) -> None:
        """Kill it; its supervisors die with it."""
        self.process.kill()
        self.process.wait()
        self._control.close()
        if self.process.stderr is not None:
            self.process.stderr.close()
        if self._scratch is not None:
            self._scratch.remove()


def _gone(error: OSError) -> SandboxError:
    return SandboxError(f"the sandbox's zygote is gone ({error or 'no answer'})")


async def end_supervisor(pidfd: int) -> None:
    """Kill a supervisor, and with it its namespace, and see that it is gone."""
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        await _readable(pidfd)
    finally:
        os.close(pidfd)


def is_readable(descriptor: int, seconds: float | None) -> bool:
    """Whether there is something to read within so many seconds (None: wait for ever). For threads.

    Not by `select`, which cannot take the descriptors of a busy service.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if seconds is None else max(0.0, seconds * 1000)))


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)
