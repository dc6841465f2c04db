"""What the sandbox does when something of ours is killed, cancelled, worn out or closed."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import psutil
import pytest
import pytest_asyncio

from prime.errors import NotReady, SandboxError
from services.verifier.sandbox.executions import Execution, Outcome, Task
from services.verifier.sandbox.sandbox import Sandbox
from services.verifier.sandbox.zygotes import Tier
from tests.verifier.judge import HONEST, LIMITS, SCRIPT, Judge, item_of, open_judge

pytestmark = pytest.mark.asyncio(loop_scope="module")
_SLOW = "import time\ntime.sleep(0.4)\nprint(8)"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[Tier.A, Tier.B])
async def own(request: pytest.FixtureRequest) -> AsyncIterator[Judge]:
    """A sandbox that only these tests use, since its zygotes do not live long."""
    async with open_judge(request.param) as judge:
        yield judge


def family(judge: Judge) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """Supervisors, and untrusted processes, that live."""
    supervisors, untrusted = [], []
    for pid in judge.sandbox.pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisors += psutil.Process(pid).children()
    for supervisor in supervisors:
        with contextlib.suppress(psutil.NoSuchProcess):
            untrusted += supervisor.children()
    return supervisors, untrusted


async def kill_one(judge: Judge, role: str) -> None:
    """Wait until a program runs, and kill it or what is above it."""
    while True:
        supervisors, untrusted = family(judge)
        # What is killed earlier was never locked up, and says so.
        if untrusted and time.time() - untrusted[0].create_time() > 0.1:
            zygotes = [psutil.Process(pid) for pid in judge.sandbox.pids if pid == supervisors[0].ppid()]
            with contextlib.suppress(psutil.NoSuchProcess, IndexError):
                {"zygote": zygotes, "supervisor": supervisors, "untrusted": untrusted}[role][0].kill()
                return
        await asyncio.sleep(0.02)


async def settled(judge: Judge) -> None:
    """Nothing is left, and all places work."""
    assert await judge.strays() == []
    both = await asyncio.gather(judge.grade(HONEST), judge.grade(HONEST))
    assert [found.score for found in both] == [1.0, 1.0]


@pytest.mark.parametrize("role", ["zygote", "supervisor", "untrusted"])
async def test_a_program_is_repeated_once_when_something_of_ours_was_killed(own: Judge, role: str) -> None:
    grading = asyncio.ensure_future(own.grade(_SLOW))
    await kill_one(own, role)
    assert (await grading).score == 1.0
    await settled(own)


@pytest.mark.parametrize("role", ["zygote", "supervisor", "untrusted"])
async def test_a_program_whose_process_is_killed_again_and_again_has_no_verdict(own: Judge, role: str) -> None:
    grader = own.grader()
    grading = asyncio.ensure_future(grader.grade(grader.parse(item_of(_SLOW, SCRIPT))))
    await kill_one(own, role)
    await asyncio.sleep(0.1)
    await kill_one(own, role)
    with pytest.raises(SandboxError, match=r"killed|went away|gone"):
        await grading
    await settled(own)


async def test_tests_that_were_done_are_not_repeated(own: Judge) -> None:
    program = "import time\nn = input()\ntime.sleep(0.4 if n == '2' else 0)\nprint(n, time.time())"
    tests: dict[str, object] = {"inputs": ["1", "2", "3"], "outputs": ["1 1.0", "2 1.0", "3 1.0"], "tolerance": 1.0}
    grading = asyncio.ensure_future(own.grade(program, tests))
    await kill_one(own, "supervisor")
    assert len((await grading).tests) == 3


async def test_a_cancelled_program_leaves_nothing_and_its_place_is_free_again(own: Judge) -> None:
    for _ in range(2):
        running = [asyncio.ensure_future(own.run("import time\ntime.sleep(60)")) for _ in range(4)]
        while len(family(own)[1]) < 2:
            await asyncio.sleep(0.02)
        for each in running:
            each.cancel()
        assert all(
            isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*running, return_exceptions=True)
        )
        await settled(own)


async def test_descriptors_do_not_grow(own: Judge) -> None:
    await asyncio.gather(*(own.run("print(8)") for _ in range(4)))
    before = len(os.listdir("/proc/self/fd"))
    await asyncio.gather(*(own.run("print(8)") for _ in range(20)), own.run("import os; os._exit(1)"))
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("tier", [Tier.A, Tier.B])
async def test_a_zygote_is_replaced_when_it_has_served_its_time(tier: Tier) -> None:
    sandbox = Sandbox(1, tier, recycle_after=3)
    await sandbox.start()
    try:
        pids: list[int] = []
        for _ in range(7):
            async with sandbox.program(b"print(8)") as program:
                assert (await program.run(Task(), LIMITS)).stdout == b"8\n"
            pids += sandbox.pids
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]
        assert sandbox.restarts == 2
        assert not any(psutil.pid_exists(pid) for pid in pids[:6])
    finally:
        sandbox.close()


@pytest.mark.parametrize("tier", [Tier.A, Tier.B])
async def test_closing_ends_what_runs_and_turns_away_who_waits(tier: Tier) -> None:
    sandbox = Sandbox(1, tier)
    await sandbox.start()

    async def run() -> Execution:
        async with sandbox.program(b"import time\ntime.sleep(60)") as program:
            return await program.run(Task(), LIMITS)

    running, waiting = asyncio.ensure_future(run()), asyncio.ensure_future(run())
    while not psutil.Process(sandbox.pids[0]).children(recursive=True):
        await asyncio.sleep(0.02)
    below = psutil.Process(sandbox.pids[0]).children(recursive=True)
    sandbox.close()
    with pytest.raises(SandboxError):
        await running
    with pytest.raises(NotReady):
        await waiting
    with pytest.raises(NotReady):
        await run()
    assert sandbox.pids == ()
    psutil.wait_procs(below, timeout=5)
    assert not any(process.is_running() for process in below)


async def test_a_group_that_runs_out_of_memory_is_a_memory_limit() -> None:
    sandbox = Sandbox(1, Tier.A, group_memory_mib=200)
    await sandbox.start()
    try:
        if "cgroup" not in sandbox.layers:
            pytest.skip("this machine lets us make no control groups")
        limits = type(LIMITS)(cpu_seconds=5.0, wall_seconds=20.0, memory_mib=2048, output_kib=64)
        for _ in range(2):
            async with sandbox.program(b"a = bytearray(b'x' * 2**29)") as program:
                assert (await program.run(Task(), limits)).outcome is Outcome.MEMORY_LIMIT
        async with sandbox.program(b"print(8)") as program:
            assert (await program.run(Task(), limits)).outcome is Outcome.OK
    finally:
        sandbox.close()


_SERVICE = """
import asyncio, json, sys
from services.verifier.sandbox.executions import Limits, Task
from services.verifier.sandbox.sandbox import Sandbox
from services.verifier.sandbox.zygotes import Tier
async def main():
    sandbox = Sandbox(1, Tier(sys.argv[1]))
    await sandbox.start()
    async with sandbox.program(b"import time\\nwhile True: time.sleep(1)") as program:
        print(json.dumps(sandbox.pids), flush=True)
        await program.run(Task(), Limits(cpu_seconds=9.0, wall_seconds=90.0, memory_mib=512, output_kib=64))
asyncio.run(main())
"""


@pytest.mark.parametrize("tier", [Tier.A, Tier.B])
async def test_nothing_outlives_a_service_that_is_killed(tier: Tier) -> None:
    with subprocess.Popen([sys.executable, "-c", _SERVICE, tier.value], stdout=subprocess.PIPE) as service:
        assert service.stdout is not None
        (zygote,) = json.loads(service.stdout.readline())
        tree = [psutil.Process(zygote)]
        while len(tree) < 3:
            tree = [tree[0], *tree[0].children(recursive=True)]
            await asyncio.sleep(0.02)
        service.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(tree, timeout=10)
        assert alive == []
