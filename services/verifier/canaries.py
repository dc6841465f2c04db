"""Proof at boot that the sandbox holds and that honest work gets through, over the same path as real grading.

`main.py` runs `check` before the service listens. Programs that try to get out must fail to; programs that do nothing
wrong must succeed, so that a sandbox in which everything fails is not taken for a safe one.
"""

import asyncio
import os
from dataclasses import dataclass

from prime.errors import SandboxError
from services.verifier.mathematics import MathPool, Unsettled
from services.verifier.sandbox import Call, Execution, Limits, Outcome, Sandbox

_LIMITS = Limits(cpu_seconds=5, wall_seconds=20.0, memory_mib=512, output_kib=64)
REQUIRED_LAYERS = ("session", "rlimits", "no_new_privs", "landlock", "seccomp")

# Each tries one thing; anything but an OSError on the way there is an escape too.
_ATTEMPT = """
try:
    {attempt}
except OSError:
    print("held")
else:
    print("escaped")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Escape:
    name: str
    layer: str
    """What must have held it, and what to look at when it did not."""
    attempt: str


_ESCAPES = (
    _Escape(name="read a file outside", layer="landlock", attempt="open('/etc/passwd').read()"),
    _Escape(name="list the root folder", layer="landlock", attempt="__import__('os').listdir('/')"),
    _Escape(name="write a file", layer="landlock", attempt="open('/tmp/prime-canary', 'w').write('x')"),
    _Escape(
        name="read the service's environment",
        layer="landlock",
        attempt="open('/proc/{parent}/environ', 'rb').read()",
    ),
    _Escape(name="open a socket", layer="seccomp", attempt="__import__('socket').socket()"),
    _Escape(name="fork", layer="seccomp", attempt="__import__('os').fork()"),
    _Escape(name="start a program", layer="seccomp", attempt="__import__('os').execv('/bin/true', ['true'])"),
    _Escape(name="signal the service", layer="seccomp", attempt="__import__('os').kill({parent}, 0)"),
    _Escape(name="signal its group", layer="seccomp", attempt="__import__('os').kill(0, 0)"),
    _Escape(
        name="raise its limits",
        layer="rlimits",
        attempt="__import__('resource').prlimit(0, 9, (-1, -1))",
    ),
)


async def check(sandbox: Sandbox, pool: MathPool) -> tuple[str, ...]:
    """Run all of them and return the layers in force.

    Raises:
        SandboxError: something got out, or honest work did not get through; names the layer and what to change.
    """
    honest = await _honest_programs(sandbox)
    missing = [name for name in REQUIRED_LAYERS if not any(layer.startswith(name) for layer in honest.layers)]
    if missing:
        raise SandboxError(f"the sandbox runs without {', '.join(missing)}; the verifier does not start like this")
    await asyncio.gather(*(_must_hold(sandbox, escape) for escape in _ESCAPES))
    await _must_stop(sandbox)
    await _honest_mathematics(pool)
    return honest.layers


async def _must_hold(sandbox: Sandbox, escape: _Escape) -> None:
    attempt = escape.attempt.replace("{parent}", str(os.getpid()))
    execution = await sandbox.run(_ATTEMPT.replace("{attempt}", attempt).encode(), b"", _LIMITS)
    if execution.stdout != b"held\n":
        raise SandboxError(
            f"canary '{escape.name}' was not held by {escape.layer} ({_describe(execution)}); do not grade code on "
            f"this machine: look at the kernel's and the container's support for {escape.layer}"
        )


async def _must_stop(sandbox: Sandbox) -> None:
    limits = Limits(cpu_seconds=1, wall_seconds=20.0, memory_mib=512, output_kib=64)
    for name, source, wanted in (
        ("loop", b"while True: pass", Outcome.CPU_LIMIT),
        ("memory", b"bytearray(2**30)", Outcome.MEMORY_LIMIT),
        ("output", b"while True: print('x' * 1000)", Outcome.OUTPUT_LIMIT),
    ):
        execution = await sandbox.run(source, b"", limits)
        if execution.outcome is not wanted:
            raise SandboxError(f"canary '{name}' should end as {wanted}: {_describe(execution)}; look at rlimits")


async def _honest_programs(sandbox: Sandbox) -> Execution:
    execution = await sandbox.run(b"print('honest')", b"", _LIMITS)
    _must_succeed("print", execution, execution.stdout == b"honest\n")
    reader = b"import sys, threading, heapq, decimal\nprint(int(input()) + int(sys.stdin.read()))"
    reading = await sandbox.run(reader, b"3\n5\n", _LIMITS)
    _must_succeed("read stdin", reading, reading.stdout == b"8\n")
    source = b"class Solution:\n    def add(self, a: List[int]) -> int:\n        return sum(a)"
    calling = await sandbox.run(source, b"", _LIMITS, Call(fn_name="add", arguments=[[3, 5]]))
    _must_succeed("call a function", calling, calling.value == b"8")
    return execution


def _must_succeed(name: str, execution: Execution, right: bool) -> None:
    if not right:
        raise SandboxError(
            f"honest canary '{name}' failed ({_describe(execution)}); the sandbox refuses too much here: is the "
            "interpreter's library readable, is `memory_mib` enough?"
        )


async def _honest_mathematics(pool: MathPool) -> None:
    try:
        right = await pool.equal("(x+1)^2", ["x^2+2x+1"]) and not await pool.equal("(x+1)^2", ["x^2+2x+2"])
    except Unsettled as error:
        raise SandboxError(f"mathematics canary was not settled: {error}; is `math_seconds` too short?") from None
    if not right:
        raise SandboxError("mathematics canary was graded wrongly; are math-verify's pinned versions installed?")


def _describe(execution: Execution) -> str:
    said = execution.stderr_tail.decode("utf-8", "replace").strip()[-200:]
    return f"{execution.outcome}, exit {execution.exit_code}, printed {execution.stdout[:40]!r}, {said or 'no message'}"
