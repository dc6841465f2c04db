"""Proof that the sandbox holds and that honest work gets through, over the same path as real grading.

`main.py` has them run before the service listens, every ten minutes, and whenever a sandbox had to be restarted.
Programs that try to get out must fail to; programs that do nothing wrong must succeed, so that a sandbox in which
everything fails is not taken for a safe one.
"""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import structlog

from prime.errors import InvalidInput, SandboxError
from services.verifier.algebra.pool import MathPool, Unsettled
from services.verifier.programs.code_tests import Language
from services.verifier.programs.compiler import CompileFailure, Compiler
from services.verifier.sandbox.executions import Execution, Limits, Outcome, Task
from services.verifier.sandbox.sandbox import Sandbox

_LIMITS = Limits(cpu_seconds=5, wall_seconds=20.0, memory_mib=512, output_kib=64)
_SHORT_CPU = replace(_LIMITS, cpu_seconds=0.5)
_SHORT_WALL = replace(_LIMITS, wall_seconds=0.5)
_PERIOD_S = 600.0
_RETRY_S = 30.0
_log = structlog.get_logger()

# Each tries one thing; anything but a refusal on the way there is an escape too.
_ATTEMPT = """
import ctypes, os, socket, threading, time
def syscall(*arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(*map(ctypes.c_long, arguments)) == -1:
        raise OSError(ctypes.get_errno(), 'refused')
def threads():
    for _ in range(1000):
        threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
try:
    {attempt}
except (OSError, RuntimeError):
    print("held", flush=True)
else:
    print("escaped", flush=True)
os._exit(0)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Escape:
    name: str
    layer: str
    """What must have held it, and what to look at when it did not."""
    attempt: str


_ESCAPES = (
    _Escape(name="read a planted secret", layer="landlock or the mount namespace", attempt="open('{secret}').read()"),
    _Escape(name="list the root folder", layer="landlock", attempt="os.listdir('/')"),
    _Escape(name="write a file", layer="landlock", attempt="open('{secret}', 'w')"),
    _Escape(name="write beside its folder", layer="landlock", attempt="open('/var/tmp/prime-canary', 'w').write('x')"),
    _Escape(name="read the service's environment", layer="landlock", attempt="open('/proc/{service}/environ').read()"),
    _Escape(name="open a socket", layer="seccomp", attempt="socket.socket()"),
    _Escape(name="make an internet pair", layer="seccomp", attempt="socket.socketpair(socket.AF_INET)"),
    _Escape(
        name="reach another by a pair",
        layer="seccomp",
        attempt="socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', chr(0) + 'prime-canary')",
    ),
    _Escape(name="use a capability", layer="the change of user", attempt="os.stat('{private}')"),
    _Escape(name="fork", layer="seccomp", attempt="os.fork()"),
    _Escape(name="leave a daemon", layer="seccomp", attempt="os.posix_spawn('/bin/sleep', ['sleep', '60'], {})"),
    _Escape(name="start a program", layer="seccomp", attempt="os.execv('/bin/true', ['true'])"),
    _Escape(name="signal the service", layer="seccomp", attempt="os.kill({service}, 0)"),
    _Escape(name="signal its own group", layer="seccomp", attempt="os.kill(0, 0)"),
    _Escape(name="signal a sibling", layer="seccomp", attempt="os.kill({sibling}, 0)"),
    _Escape(name="trace its parent", layer="seccomp", attempt="syscall(101, 16, os.getppid(), 0, 0)"),
    _Escape(name="make a namespace", layer="seccomp", attempt="syscall(272, 0x10000000)"),
    _Escape(name="hide memory in a file", layer="seccomp", attempt="os.memfd_create('x')"),
    _Escape(name="raise its limits", layer="rlimits", attempt="__import__('resource').prlimit(0, 9, (-1, -1))"),
    _Escape(name="start a thousand threads", layer="rlimits", attempt="threads()"),
)

_HOSTILE_CPP = b"""
#include <cstdio>
#include <unistd.h>
#include <sys/socket.h>
int main() {
    char none[] = "none"; char* arguments[] = {none, nullptr};
    bool escaped = fopen("/etc/passwd", "r") || fork() >= 0 || socket(AF_INET, SOCK_STREAM, 0) >= 0
        || execv("/bin/true", arguments) >= 0 || fopen("/tmp/prime-canary", "w");
    puts(escaped ? "escaped" : "held");
}
"""
_ADVICE = "do not grade code on this machine: look at the kernel's and the container's support for"


class Canaries:
    """`check` once before serving; `watch` for as long as the service runs."""

    def __init__(
        self,
        sandbox: Sandbox,
        pool: MathPool,
        compiler: Compiler,
        *,
        period_seconds: float = _PERIOD_S,
        retry_seconds: float = _RETRY_S,
    ) -> None:
        self._sandbox = sandbox
        self._pool = pool
        self._compiler = compiler
        self._period_s, self._retry_s = period_seconds, retry_seconds
        self._passed_at = 0.0
        self._checked_restarts = 0
        self.healthy = False
        """Whether the last check passed."""

    @property
    def age_seconds(self) -> float:
        """Since the last check that passed."""
        return time.monotonic() - self._passed_at

    async def check(self) -> None:
        """Run all of them.

        Raises:
            SandboxError: something got out, or honest work did not get through; names the layer and what to change.
        """
        restarts = self._sandbox.restarts
        try:
            await self._honest_programs()
            await self._hostile_programs()
            await self._limits_hold()
            await self._compiled_programs()
            await self._honest_mathematics()
        except (CompileFailure, OSError, IndexError) as error:
            self.healthy = False
            raise SandboxError(f"the canaries could not be run ({type(error).__name__}: {error})") from None
        except BaseException:
            self.healthy = False
            raise
        self._checked_restarts = restarts
        self._passed_at = time.monotonic()
        self.healthy = True

    async def watch(self) -> None:
        """Check again and again, and say in `healthy` what came of it."""
        while True:
            await self._until_due()
            try:
                await self.check()
            except SandboxError as error:
                _log.error("sandbox no longer proven; not ready", detail=str(error))

    async def _until_due(self) -> None:
        due = time.monotonic() + (self._period_s if self.healthy else self._retry_s)
        while (left := due - time.monotonic()) > 0:
            await asyncio.sleep(min(left, self._retry_s, 1.0))
            if self.healthy and self._sandbox.restarts != self._checked_restarts:
                return

    # ------------------------------------------------------------ honest

    async def _honest_programs(self) -> None:
        # `difflib` is not loaded yet: the library must be readable.
        reader = b"import sys, difflib, decimal\nprint(int(input()) + int(sys.stdin.read()))"
        threads = (
            b"import threading\nts = [threading.Thread(target=print, args=(8,)) for _ in range(4)]\n"
            b"for t in ts: t.start(); t.join()"
        )
        library = (
            b"import asyncio, mmap, tempfile\nwith tempfile.TemporaryFile() as f: f.write(mmap.mmap(0, 0, prot=1))\n"
            b"async def main(): print(8)\nasyncio.run(main())"
        )
        adder = b"class Solution:\n    def add(self, a: List[int]) -> int:\n        return sum(a)"
        call = Task(mode="call", detail=b'{"fn_name": "add", "arguments": [[3, 5]]}')
        for name, source, task, wanted in (
            ("print", b"print('honest')", Task(), b"honest\n"),
            ("read stdin", reader, Task(stdin=b"3\n5\n"), b"8\n"),
            ("start threads", threads, Task(), b"8\n" * 4),
            ("use files and loops", library, Task(stdin=b"3\n5\n"), b"8\n"),
            ("call a function", adder, call, b"8"),
        ):
            execution = await self._run(source, task)
            if wanted not in (execution.stdout, execution.value):
                raise SandboxError(
                    f"honest canary '{name}' failed ({_describe(execution)}); the sandbox refuses too much here: is "
                    "the interpreter's library readable, is `memory_mib` enough?"
                )

    async def _honest_mathematics(self) -> None:
        try:
            right = await self._pool.equal("(x+1)^2", ["x^2+2x+1"])
            right = right and not await self._pool.equal("(x+1)^2", ["x^2+2x+2"])
        except Unsettled as error:
            raise SandboxError(f"mathematics canary was not settled: {error}; is `math_seconds` too short?") from None
        if not right:
            raise SandboxError("mathematics canary was graded wrongly; are math-verify's pinned versions installed?")

    # ------------------------------------------------------------ hostile

    async def _hostile_programs(self) -> None:
        with _planted_secret() as secret:
            await asyncio.gather(*(self._must_hold(escape, secret) for escape in _ESCAPES))

    async def _must_hold(self, escape: _Escape, secret: str) -> None:
        private = os.path.join(os.path.dirname(secret), _PRIVATE, "inside")
        attempt = escape.attempt.replace("{secret}", secret).replace("{service}", str(os.getpid()))
        attempt = attempt.replace("{private}", private)
        attempt = attempt.replace("{sibling}", str(self._sandbox.pids[-1]))
        execution = await self._run(_ATTEMPT.replace("{attempt}", attempt).encode(), Task())
        if execution.stdout != b"held\n":
            raise SandboxError(
                f"canary '{escape.name}' was not held by {escape.layer} ({_describe(execution)}); {_ADVICE} "
                f"{escape.layer}"
            )

    async def _limits_hold(self) -> None:
        await asyncio.gather(
            self._must_stop(b"while True: pass", _SHORT_CPU, Outcome.CPU_LIMIT),
            self._must_stop(b"import time; time.sleep(60)", _SHORT_WALL, Outcome.WALL_LIMIT),
            self._must_stop(b"bytearray(2**30)", _LIMITS, Outcome.MEMORY_LIMIT),
            self._must_stop(b"while True: print('x' * 1000)", _LIMITS, Outcome.OUTPUT_LIMIT),
        )

    async def _must_stop(self, source: bytes, limits: Limits, wanted: Outcome) -> None:
        execution = await self._run(source, Task(), limits)
        if execution.outcome is not wanted:
            raise SandboxError(
                f"canary {source.decode()!r} should end as {wanted}: {_describe(execution)}; look at rlimits"
            )

    async def _compiled_programs(self) -> None:
        try:
            self._compiler.require()
        except InvalidInput:
            return  # then none are run
        with _planted_secret() as secret:
            try:
                await self._compiler.compile(Language.CPP, f'#include "{secret}"\nint main() {{}}'.encode())
            except CompileFailure as failure:
                leaked = _SECRET in str(failure)
            else:
                leaked = True
        if leaked:
            raise SandboxError(f"canary 'include a planted secret' was not held; {_ADVICE} mount namespaces")
        binary = await self._compiler.compile(Language.CPP, _HOSTILE_CPP)
        async with self._sandbox.program(binary.content, profile=binary.profile) as program:
            execution = await program.run(Task(mode="exec", arguments=("program",)), _LIMITS)
        if execution.stdout != b"held\n":
            raise SandboxError(f"compiled canary was not held ({_describe(execution)}); {_ADVICE} landlock and seccomp")

    async def _run(self, source: bytes, task: Task, limits: Limits = _LIMITS) -> Execution:
        async with self._sandbox.program(source) as program:
            return await program.run(task, limits)


_SECRET = "planted-secret-of-the-verifier"
_PRIVATE = "private"


@contextlib.contextmanager
def _planted_secret() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="prime-canary-") as folder:
        os.chmod(folder, 0o755)
        path = os.path.join(folder, "secret")
        with open(path, "w") as file:
            file.write(_SECRET)
        os.chmod(path, 0o644)
        private = os.path.join(folder, _PRIVATE)
        os.mkdir(private)
        with open(os.path.join(private, "inside"), "w"):
            pass
        # Nobody may enter it but root, or a process that kept root's capability to.
        os.chmod(private, 0)
        yield path


def _describe(execution: Execution) -> str:
    said = execution.stderr_tail.decode("utf-8", "replace").strip()[-200:]
    return f"{execution.outcome}, exit {execution.exit_code}, printed {execution.stdout[:40]!r}, {said or 'no message'}"
