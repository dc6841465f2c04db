"""Symbolic comparison in worker processes: right, wrong, killed at the deadline, replaced."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from prime.errors import NotReady
from services.verifier.exact_math import Symbolic, compare_answer
from services.verifier.mathematics import MathPool, Unsettled

# Passes every guard, and takes minutes.
SLOW = "(x+y+z+w)^{60}+(x-y)^{900}"


@pytest.fixture(scope="module")
def pool() -> Iterator[MathPool]:
    built = MathPool(1, 20.0)
    yield built
    built.close()


async def equal(pool: MathPool, answer: str, gold: str) -> bool:
    question = compare_answer(f"\\boxed{{{answer}}}", gold)
    assert isinstance(question, Symbolic)
    return await pool.equal(question.gold, question.parts)


def workers() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if any(part.endswith("math_worker.py") for part in child.cmdline())]


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("(x+1)^2", "x^2+2x+1"),
        ("\\frac{1}{\\sqrt{2}}", "\\frac{\\sqrt{2}}{2}"),
        ("2\\sqrt{3}", "\\sqrt{12}"),
        ("4.123106", "\\sqrt{17}"),
        ("4x+6y=12", "2x+3y=6"),
        ("2>a", "a<2"),
        ("2^{n+1}", "2\\cdot2^n"),
        ("\\begin{bmatrix}1&0\\\\0&2\\end{bmatrix}", "\\begin{pmatrix}1&0\\\\0&2\\end{pmatrix}"),
        ("\\sqrt{8}=2\\sqrt{2}", "2\\sqrt{2}"),
    ],
)
async def test_equal_expressions_are_equal(pool: MathPool, answer: str, gold: str) -> None:
    assert await equal(pool, answer, gold)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("x^{11}", "x^{10}"),
        ("1+1/e", "1-1/e"),
        ("3.14", "\\pi"),
        ("e^{-50}", "e^{-60}"),
        ("\\sqrt{2}/10^{9}", "\\sqrt{3}/10^{9}"),
        ("x\\ge2", "x>2"),
        ("-\\infty", "\\infty"),
        ("\\begin{bmatrix}1&0\\\\0&1\\end{bmatrix}", "\\begin{pmatrix}1&0\\\\0&2\\end{pmatrix}"),
        ("\\sqrt{9}=2\\sqrt{2}", "2\\sqrt{2}"),
        ("x^2", "x^2+C"),
        ("1/0", "2/0"),
    ],
)
async def test_different_expressions_are_different(pool: MathPool, answer: str, gold: str) -> None:
    assert not await equal(pool, answer, gold)


@pytest.mark.parametrize(
    "answer",
    [
        "__import__('os').system('touch /tmp/prime-math-escape')",
        "open('/tmp/prime-math-escape','w').write('x')+\\pi",
        "[x for x in (1).__class__.__base__.__subclasses__()]",
        "(lambda: exec('open(\\'/tmp/prime-math-escape\\', \\'w\\')'))()+\\pi",
    ],
)
async def test_code_in_an_answer_is_not_executed(pool: MathPool, answer: str) -> None:
    assert not await pool.equal("\\begin{pmatrix}1\\\\2\\end{pmatrix}", [answer])
    assert not Path("/tmp/prime-math-escape").exists()


async def test_a_slow_answer_is_killed_from_outside_and_the_next_one_is_graded_by_a_new_worker() -> None:
    pool = MathPool(1, 2.0)
    assert await equal(pool, "(x+1)^2", "x^2+2x+1")
    (before,) = {worker.pid for worker in workers()} - _others
    with pytest.raises(Unsettled, match="deadline"):
        await equal(pool, SLOW, "x^2+1")
    assert not psutil.pid_exists(before)
    assert await equal(pool, "(x+1)^2", "x^2+2x+1")
    assert not await equal(pool, "(x+1)^2", "x^2+2x+2")
    (after,) = {worker.pid for worker in workers()} - _others
    assert after != before
    pool.close()
    assert not psutil.pid_exists(after)


async def test_a_worker_that_dies_is_replaced_and_its_question_asked_once_more() -> None:
    pool = MathPool(1, 20.0)
    assert await equal(pool, "(x+1)^2", "x^2+2x+1")
    for pid in {worker.pid for worker in workers()} - _others:
        os.kill(pid, signal.SIGKILL)
    assert await equal(pool, "(x+1)^2", "x^2+2x+1")
    pool.close()


async def test_a_question_whose_worker_dies_twice_is_undecided() -> None:
    pool = MathPool(1, 60.0)
    assert await equal(pool, "(x+1)^2", "x^2+2x+1")
    asked = asyncio.ensure_future(equal(pool, SLOW, "x^2+1"))
    seen: set[int] = set()
    while not asked.done():
        for worker in workers():
            # A worker that still starts has not been asked yet.
            if worker.pid not in seen | _others and worker.cpu_times().user > 1.5:
                seen.add(worker.pid)
                worker.kill()
        await asyncio.sleep(0.05)
    with pytest.raises(Unsettled, match="worker_died"):
        await asked
    assert len(seen) == 2
    pool.close()


async def test_a_worker_retires_after_its_share_of_answers() -> None:
    pool = MathPool(1, 20.0, recycle_after=2)
    pids = set()
    for _ in range(4):
        assert await equal(pool, "(x+1)^2", "x^2+2x+1")
        pids |= {worker.pid for worker in workers()} - _others
    assert len(pids) == 2
    pool.close()


async def test_the_workers_are_locked_up_like_programs(pool: MathPool) -> None:
    await pool.equal("x", ["x"])
    names = {layer.partition(":")[0] for layer in pool.layers}
    assert {"session", "rlimits", "no_new_privs", "landlock", "seccomp"} <= names


async def test_questions_from_many_sides_at_once_get_their_own_answers(pool: MathPool) -> None:
    asked = [equal(pool, f"(x+{n})^2", f"x^2+{2 * n}x+{n * n + n % 2}") for n in range(2, 12)]
    assert await asyncio.gather(*asked) == [n % 2 == 0 for n in range(2, 12)]


async def test_after_closing_nothing_is_started_any_more() -> None:
    pool = MathPool(1, 20.0)
    pool.close()
    with pytest.raises(NotReady):
        await pool.equal("x", ["y"])


_others: set[int] = set()
"""Workers of the shared pool, which the tests of single workers leave alone."""


@pytest.fixture(autouse=True)
def note_others(pool: MathPool) -> None:
    _others.clear()
    _others.update(worker.pid for worker in workers())
