"""The pool of mathematics workers: locked up, killed at the deadline, replaced, and never in each other's way."""

import asyncio
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator

import psutil
import pytest

from prime.errors import NotReady, SandboxError
from services.verifier.algebra.pool import MathPool, Unsettled
from services.verifier.algebra.process import Nursery
from services.verifier.mathematics.compare import Symbolic, compare_answer
from services.verifier.mathematics.question import How, Leaf
from services.verifier.sandbox.isolation.wire import FRAME, REPORT
from services.verifier.sandbox.zygotes import Tier, Zygote


def slow(number: int = 0) -> Symbolic:
    """A question that no guard stands in front of here, and that takes minutes."""
    answer = f"(x+y+z+w)^{{60}}+(x-y)^{{900}}+{number}"
    return Symbolic(gold="x^2", answer=answer, question=Leaf(gold="x<2", answer=f"{answer}<1", how=How.AS_WRITTEN))


def question(answer: str, gold: str) -> Symbolic:
    found = compare_answer(f"\\boxed{{{answer}}}", gold)
    assert isinstance(found, Symbolic)
    return found


def square(n: int, rest: int = 0) -> Symbolic:
    return question(f"(x+{n})^2", f"x^2+{2 * n}x+{n * n + rest}")


@pytest.fixture(scope="module", params=[Tier.A, Tier.B])
def pool(request: pytest.FixtureRequest) -> Iterator[MathPool]:
    built = MathPool(2, request.param)
    yield built
    built.close()


async def test_questions_of_many_tasks_at_once_get_their_own_answers(pool: MathPool) -> None:
    asked = [pool.settle(square(n, rest=n % 2)) for n in range(2, 42)]
    assert await asyncio.gather(*asked) == [n % 2 == 0 for n in range(2, 42)]


def test_questions_from_many_threads_and_loops_get_the_same_answers_as_one_by_one(pool: MathPool) -> None:
    """M18: nothing hangs on signals or on one event loop."""
    found: dict[int, list[bool]] = {}

    def ask(seat: int) -> None:
        async def several() -> list[bool]:
            return [await pool.settle(square(n, rest=n % 3)) for n in range(seat, seat + 5)]

        found[seat] = asyncio.run(several())

    threads = [threading.Thread(target=ask, args=(seat,)) for seat in range(2, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {seat: [n % 3 == 0 for n in range(seat, seat + 5)] for seat in range(2, 8)}


async def test_a_slow_question_is_killed_from_outside_and_its_worker_replaced(pool: MathPool) -> None:
    await pool.settle(square(2))
    before = pool.replaced
    with pytest.raises(Unsettled, match="deadline"):
        await pool.settle(slow())
    assert pool.replaced > before
    assert await pool.settle(square(3))
    assert not await pool.settle(square(3, rest=1))


async def test_honest_questions_overtake_slow_ones(pool: MathPool) -> None:
    """M19, in small: as many slow questions as there are places, and everything else is still answered first."""
    poison = [asyncio.ensure_future(pool.settle(slow(number))) for number in range(4)]
    await asyncio.sleep(0.3)
    assert all(await asyncio.gather(*(pool.settle(square(n)) for n in range(2, 22))))
    assert not any(each.done() for each in poison)
    found = await asyncio.gather(*poison, return_exceptions=True)
    assert [str(each) for each in found] == ["deadline"] * 4


async def test_no_worker_is_left_behind_by_poison(pool: MathPool) -> None:
    await asyncio.gather(*(pool.settle(slow(number)) for number in range(3)), return_exceptions=True)
    dead = [pid for pid in pool.pids if not psutil.pid_exists(pid)]
    assert dead == []
    assert len(pool.pids) <= 2


async def test_workers_killed_at_random_cost_no_question(pool: MathPool) -> None:
    """M20: a question whose worker dies is asked once more."""
    for n in range(2, 12):
        assert await pool.settle(square(n))
        for pid in pool.pids:
            os.kill(pid, signal.SIGKILL)


async def test_a_question_whose_worker_is_killed_twice_says_nothing_about_the_answer() -> None:
    pool = MathPool(1, Tier.A, 60.0)
    asked = asyncio.ensure_future(pool.settle(slow()))
    killed: set[int] = set()
    while not asked.done():
        for pid in set(pool.pids) - killed:
            # One that still starts has not been asked yet.
            if psutil.Process(pid).cpu_times().user > 0.1:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        await asyncio.sleep(0.05)
    with pytest.raises(SandboxError, match="killed from outside"):
        await asked
    assert len(killed) == 2
    pool.close()


async def test_a_worker_retires_after_its_share_of_answers() -> None:
    pool = MathPool(1, Tier.A, recycle_after=2)
    pids = set()
    for n in range(2, 6):
        assert await pool.settle(square(n))
        pids |= set(pool.pids)
    assert len(pids) == 2
    pool.close()


async def test_a_gold_that_cannot_be_read_is_equal_to_nothing_but_its_text(pool: MathPool) -> None:
    unreadable = Leaf(gold="\\foo x", answer="x")
    assert await pool.settle(Symbolic(gold=unreadable.gold, answer="x", question=unreadable)) is False


async def test_what_neither_points_nor_forms_decide_is_undecided(pool: MathPool) -> None:
    unknown = Leaf(gold="\\int_0^1f(x)dx", answer="\\int_0^1f(1-x)dx")
    with pytest.raises(Unsettled, match="not_comparable"):
        await pool.settle(Symbolic(gold=unknown.gold, answer=unknown.answer, question=unknown))


async def test_a_question_too_long_for_a_line_is_not_asked(pool: MathPool) -> None:
    with pytest.raises(Unsettled, match="too_complex"):
        await pool.equal("x", ["y" * 70_000])


async def test_after_closing_nothing_is_started_any_more() -> None:
    pool = MathPool(1, Tier.A)
    assert await pool.settle(square(2))
    pids = pool.pids
    pool.close()
    with pytest.raises(NotReady):
        await pool.settle(square(3))
    await asyncio.sleep(0.1)
    assert not any(psutil.pid_exists(pid) for pid in pids)


async def test_a_zygote_that_dies_is_started_anew() -> None:
    nursery = Nursery(Tier.A)
    pool = MathPool(1, Tier.A, start=nursery)
    assert await pool.settle(square(2))
    for child in psutil.Process().children():
        if "zygote.py" in " ".join(child.cmdline()) and '"mathematics"' in " ".join(child.cmdline()):
            child.kill()
    assert await pool.settle(square(3))
    pool.close()
    nursery.close()


def test_a_worker_sees_neither_the_machine_nor_the_network() -> None:
    """A program of ours, under the lock of a mathematics worker."""
    source = (
        "import os, socket\n"
        "def refused(attempt):\n"
        "    try: attempt()\n"
        "    except OSError: return True\n"
        "    return False\n"
        "tries = [lambda: open('/etc/passwd'), lambda: open('/tmp/x', 'w'), socket.socket, os.fork,\n"
        "         lambda: os.kill(os.getppid(), 0), lambda: os.listdir('/'), lambda: os.execv('/bin/true', ['true'])]\n"
        "print(all(map(refused, tries)))\n"
    )
    assert _run_in("mathematics", source) == "True\n"


def _run_in(profile: str, source: str) -> str:
    zygote = Zygote(Tier.A, 65000)
    ours, theirs = socket.socketpair()
    with theirs:
        pidfd = zygote.fork_blocking(theirs)
    run = {"op": "run", "mode": "script", "arguments": [], "files": [], "cpu_seconds": 5, "wall_seconds": 10.0}
    run |= {"memory_mib": 512, "output_bytes": 4096, "wants_binary": False, "blobs": [0, 0]}
    for header, blob in (
        ({"op": "load", "profile": profile, "with_box": False, "blobs": [len(source)]}, source),
        (run, ""),
    ):
        text = json.dumps(header).encode()
        ours.sendall(FRAME.pack(len(text)) + text + blob.encode())
    report = b""
    while len(report) < REPORT.size:
        report += ours.recv(65536)
    _, _, _, _, _, out, *_ = REPORT.unpack(report[: REPORT.size])
    while len(report) < REPORT.size + out:
        report += ours.recv(65536)
    ours.close()
    os.close(pidfd)
    zygote.end()
    return report[REPORT.size : REPORT.size + out].decode()
