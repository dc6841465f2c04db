"""Time that a program spends is its own; time that a busy machine takes from it is not. Also what idling costs."""

import asyncio
from dataclasses import replace

import pytest

from services.verifier.algebra.pool import MathPool
from services.verifier.mathematics.question import Leaf, Symbolic
from services.verifier.sandbox.executions import Outcome, Task
from services.verifier.sandbox.zygotes import Tier
from tests.verifier.busy import other_load
from tests.verifier.judge import AC, ILE, LIMITS, TLE, Judge, item_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

_BURN = "import time\nwhile time.process_time() < {seconds}: pass\nprint(input())"


async def test_honest_programs_at_half_their_limit_pass_on_a_busy_machine(judge: Judge) -> None:
    tests: dict[str, object] = {"inputs": ["8"] * 4, "outputs": ["8"] * 4, "cpu_seconds": 0.2}
    with other_load(4):
        found = await asyncio.gather(*(judge.grade(_BURN.format(seconds=0.1), tests) for _ in range(5)))
    assert [each.reason for each in found] == ["all_tests"] * 5


async def test_the_wall_limit_grows_with_what_the_machine_takes(judge: Judge) -> None:
    # Far less wall time than it needs beside four others on each processor.
    limits = replace(LIMITS, cpu_seconds=2.0, wall_seconds=1.2, idle_seconds=1.0)
    with other_load(4):
        async with judge.sandbox.program(_BURN.format(seconds=0.8).encode()) as program:
            execution = await program.run(Task(stdin=b"8\n"), limits)
    assert execution.outcome is Outcome.OK, execution


async def test_threads_that_wait_for_one_that_computes_are_not_idle(judge: Judge) -> None:
    program = f"import threading\nt = threading.Thread(target=lambda: exec({_BURN.format(seconds=0.8)!r}))\n"
    limits = replace(LIMITS, wall_seconds=20.0, idle_seconds=0.4)
    with other_load(2):
        async with judge.sandbox.program((program + "t.start()\nt.join()").encode()) as running:
            execution = await running.run(Task(stdin=b"8\n"), limits)
    assert execution.outcome is Outcome.OK, execution


async def test_symbolic_answers_are_decided_on_a_busy_machine() -> None:
    pool = MathPool(2, Tier.A, 1.5)
    questions = [
        Symbolic(gold="", answer="", question=Leaf(gold=f"(x+{n})^3", answer=f"x^3+{3 * n}x^2+{3 * n * n}x+{n**3 + r}"))
        for n in range(2, 32)
        for r in (0, 1)
    ]
    try:
        with other_load(4):
            found = await asyncio.gather(*(pool.settle(each) for each in questions))
        assert found == [True, False] * 30
    finally:
        pool.close()


# ---------------------------------------------------------------- idling


async def test_a_sleeper_is_stopped_after_its_idle_time_and_not_in_each_test(judge: Judge) -> None:
    tests: dict[str, object] = {"inputs": ["8"] * 50, "outputs": ["8"] * 50}
    grader = judge.grader(limits=replace(LIMITS, wall_seconds=60.0, idle_seconds=0.6))
    found = await grader.grade(grader.parse(item_of("import time\ntime.sleep(60)\nprint(8)", tests)))
    assert {record.verdict for record in found.tests} == {ILE}
    assert len(found.tests) <= 3
    assert found.score == 0.0


async def test_naps_add_up(judge: Judge) -> None:
    tests: dict[str, object] = {"inputs": ["8"] * 50, "outputs": ["8"] * 50}
    grader = judge.grader(limits=replace(LIMITS, wall_seconds=60.0, idle_seconds=0.5))
    found = await grader.grade(grader.parse(item_of("import time\ntime.sleep(0.1)\nprint(8)", tests)))
    assert 1 <= len(found.tests) <= 8
    assert found.reason == f"program_limit:{len(found.tests)}" or found.tests[-1].verdict is ILE


async def test_one_test_that_waits_for_ever_does_not_cost_the_others(judge: Judge) -> None:
    program = "import threading\nn = input()\nif n == '2': threading.Event().wait()\nprint(n)"
    tests: dict[str, object] = {"inputs": ["1", "2", "3"], "outputs": ["1", "2", "3"]}
    grader = judge.grader(limits=replace(LIMITS, wall_seconds=60.0, idle_seconds=2.0))
    found = await grader.grade(grader.parse(item_of(program, tests)))
    assert [record.verdict for record in found.tests] == [AC, ILE, AC]


async def test_a_short_pause_passes(judge: Judge) -> None:
    tests: dict[str, object] = {"inputs": ["8"] * 3, "outputs": ["8"] * 3}
    grader = judge.grader(limits=replace(LIMITS, wall_seconds=60.0, idle_seconds=4.0))
    found = await grader.grade(grader.parse(item_of("import time\ntime.sleep(0.2)\nprint(8)", tests)))
    assert found.score == 1.0


async def test_a_loop_of_tiny_sleeps_is_idling_too(judge: Judge) -> None:
    limits = replace(LIMITS, wall_seconds=60.0, idle_seconds=0.5)
    async with judge.sandbox.program(b"import time\nwhile True: time.sleep(0.001)") as program:
        assert (await program.run(Task(), limits)).outcome is Outcome.WALL_LIMIT


async def test_processor_time_of_all_threads_counts_and_is_stopped_soon_after_its_limit(judge: Judge) -> None:
    program = "import hashlib, threading\ndef f():\n  while True: hashlib.sha256(b'x' * 10**6)\n"
    program += "for _ in range(4): threading.Thread(target=f).start()"
    found = await judge.grade(program, {"inputs": [""], "outputs": ["8"], "cpu_seconds": 0.3})
    assert found.tests[0].verdict is TLE
    assert found.tests[0].cpu_ms >= 300
