"""The proof that the sandbox holds: over real sandboxes, of which some are made to leak, or to refuse too much."""

import asyncio
import contextlib
import dataclasses
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from typing import cast

import pytest
import pytest_asyncio

from prime.errors import SandboxError
from services.verifier.algebra.pool import MathPool
from services.verifier.canaries import Canaries
from services.verifier.programs.compiler import Compiler
from services.verifier.sandbox.executions import Execution, Limits, Outcome, Program, Task
from services.verifier.sandbox.sandbox import Sandbox
from services.verifier.sandbox.zygotes import Tier

pytestmark = pytest.mark.asyncio(loop_scope="module")

Alter = Callable[[bytes, Execution], Execution]


class AlteredProgram:
    """A program of which the outcome is not what it was."""

    def __init__(self, program: Program, source: bytes, alter: Alter) -> None:
        self._program, self._source, self._alter = program, source, alter

    async def run(self, task: Task, limits: Limits, wants_binary: bool = False) -> Execution:
        return self._alter(self._source, await self._program.run(task, limits, wants_binary))


class AlteredSandbox(Sandbox):
    """A sandbox that reports something else than what happened, for as long as `alter` is set."""

    alter: Alter | None = None

    @contextlib.asynccontextmanager
    async def program(
        self, source: bytes, *, profile: str = "python", with_box: bool = False
    ) -> AsyncIterator[Program]:
        async with super().program(source, profile=profile, with_box=with_box) as program:
            yield cast(Program, AlteredProgram(program, source, self.alter)) if self.alter else program


def leaks(word: bytes) -> Alter:
    """Whatever tries something with `word` in it gets away with it."""
    return lambda source, execution: (
        dataclasses.replace(execution, stdout=b"escaped\n") if word in source else execution
    )


def fails(word: bytes) -> Alter:
    """Whatever has `word` in it cannot work."""
    return lambda source, execution: (
        dataclasses.replace(execution, outcome=Outcome.RUNTIME_ERROR, stdout=b"", value=b"", exit_code=1)
        if word in source
        else execution
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[Tier.A, Tier.B])
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[AlteredSandbox]:
    built = AlteredSandbox(2, request.param, first_identity=40_000 - 16 * (os.getpid() % 1000))
    await built.start()
    yield built
    built.close()


@pytest.fixture(scope="module")
def pool() -> Iterator[MathPool]:
    built = MathPool(1, Tier.A, 20.0)
    yield built
    built.close()


@pytest.fixture
def canaries(sandbox: AlteredSandbox, pool: MathPool) -> Canaries:
    sandbox.alter = None
    return Canaries(sandbox, pool, Compiler(sandbox), period_seconds=3600, retry_seconds=0.1)


async def test_a_sandbox_that_holds_is_proven_in_both_directions(canaries: Canaries) -> None:
    assert not canaries.healthy
    await canaries.check()
    assert canaries.healthy


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (b"socket.socket()", "'open a socket' was not held by seccomp.*do not grade"),
        (b"os.fork()", "'fork' was not held by seccomp"),
        (b"/tmp/prime-canary'", "'write beside its folder' was not held by landlock"),
        (b"/private/inside", "'use a capability' was not held by the change of user"),
        (b"environ').read()", "environment' was not held by landlock"),
        (b".read()\n", "'read a planted secret' was not held by landlock or the mount namespace"),
        (b"target=time.sleep, args=(5,)", "was not held by"),
    ],
)
async def test_a_sandbox_that_leaks_is_refused_by_the_name_of_the_layer(
    sandbox: AlteredSandbox, canaries: Canaries, word: bytes, said: str
) -> None:
    sandbox.alter = leaks(word)
    with pytest.raises(SandboxError, match=said):
        await canaries.check()
    assert not canaries.healthy


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (b"print('honest')", "honest canary 'print' failed.*readable"),
        (b"difflib", "honest canary 'read stdin' failed"),
        (b"threading.Thread(target=print", "honest canary 'start threads' failed"),
        (b"tempfile", "honest canary 'use files and loops' failed"),
        (b"class Solution", "honest canary 'call a function' failed"),
    ],
)
async def test_a_sandbox_in_which_everything_fails_is_not_taken_for_a_safe_one(
    sandbox: AlteredSandbox, canaries: Canaries, word: bytes, said: str
) -> None:
    sandbox.alter = fails(word)
    with pytest.raises(SandboxError, match=said):
        await canaries.check()
    assert not canaries.healthy


@pytest.mark.parametrize("word", [b"while True: pass", b"time.sleep(60)", b"bytearray(2**30)", b"print('x' * 1000)"])
async def test_a_limit_that_does_not_hold_is_noticed(sandbox: AlteredSandbox, canaries: Canaries, word: bytes) -> None:
    sandbox.alter = lambda source, execution: (
        dataclasses.replace(execution, outcome=Outcome.OK) if source.endswith(word) else execution
    )
    with pytest.raises(SandboxError, match=r"(?s)should end as .*rlimits"):
        await canaries.check()


async def test_the_watch_notices_a_new_zygote_a_leak_and_its_end(sandbox: AlteredSandbox, canaries: Canaries) -> None:
    async def until(healthy: bool) -> None:
        while canaries.healthy is not healthy:
            await asyncio.sleep(0.05)

    await canaries.check()
    watch = asyncio.ensure_future(canaries.watch())
    try:
        proven = canaries.age_seconds
        # A new zygote is a reason to look again, long before the period is over; it is found to leak.
        sandbox.alter = leaks(b"socket.socket()")
        await kill_a_zygote(sandbox)
        await until(healthy=False)
        # Which is tried again soon, and no longer so.
        sandbox.alter = None
        await until(healthy=True)
        # Another new zygote, in order.
        while canaries.age_seconds < proven + 0.2:
            await asyncio.sleep(0.05)
        age = canaries.age_seconds
        await kill_a_zygote(sandbox)
        while canaries.age_seconds >= age:
            await asyncio.sleep(0.05)
        assert canaries.healthy
    finally:
        watch.cancel()


async def kill_a_zygote(sandbox: Sandbox) -> None:
    """One dies; the place is filled again when it is next used."""
    restarts = sandbox.restarts
    os.kill(sandbox.pids[0], signal.SIGKILL)
    while sandbox.restarts == restarts:
        with contextlib.suppress(SandboxError):
            async with sandbox.program(b"print(8)"):
                pass
