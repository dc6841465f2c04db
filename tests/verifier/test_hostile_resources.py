"""Programs that take time, memory, threads, output or disk without end."""

import asyncio

import psutil
import pytest

from tests.verifier.judge import (
    AC,
    HONEST,
    ILE,
    MLE,
    OLE,
    QUICK,
    RE,
    TLE,
    WA,
    Case,
    Judge,
    item_of,
    names,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

BUSY = [
    Case(row=16, tries="loops", program="while True: pass", verdict=TLE, tests=QUICK),
    Case(
        row=17,
        tries="loops behind ignored signals",
        program="import signal\nfor s in (24, 14, 15, 2, 1): signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
        verdict=TLE,
        tests=QUICK,
    ),
    Case(row=18, tries="sums in C", program="sum(range(10**12))", verdict=TLE, tests=QUICK),
    Case(
        row=18,
        tries="matches a hard pattern",
        program="import re\nre.match('(a+)+$', 'a' * 40 + 'b')",
        verdict=TLE,
        tests=QUICK,
    ),
    Case(row=18, tries="raises to a power", program="7 ** (10**8)", verdict=TLE, tests=QUICK),
]

IDLE = [
    Case(row=19, tries="sleeps", program="import time\ntime.sleep(1000)", verdict=ILE, tests=QUICK),
    Case(
        row=19, tries="waits for a pipe", program="import os\nr, w = os.pipe()\nos.read(r, 1)", verdict=ILE, tests=QUICK
    ),
    Case(
        row=19,
        tries="waits for a lock",
        program="import threading as t\nl = t.Lock(); l.acquire(); l.acquire()",
        verdict=ILE,
        tests=QUICK,
    ),
    Case(row=26, tries="stops itself", program="import os\nos.kill(os.getpid(), 19)", verdict=ILE, tests=QUICK),
    Case(row=26, tries="stops its group", program="import os\nos.kill(0, 19)", verdict=RE),
]

PAIRS = list(zip(BUSY, IDLE, strict=True))

SPACE = [
    Case(
        row=23,
        tries="starts threads without end",
        program="import threading, time\nthreading.stack_size(65536)\n"
        "for _ in range(3000): threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\nprint(8)",
        verdict=RE,
    ),
    Case(row=27, tries="takes memory", program="a = bytearray(2**31)", verdict=MLE),
    Case(row=27, tries="takes memory bit by bit", program="a = [0]\nwhile True: a = a + a", verdict=MLE),
    Case(row=28, tries="hides memory in a file", program="import os\nos.memfd_create('x')\nprint(8)", verdict=RE),
    Case(
        row=28,
        tries="hides memory in shared segments",
        program="import ctypes\nc = ctypes.CDLL(None)\n"
        "if c.shmget(0, 2**26, 0o1600) >= 0 or c.shm_open(b'/prime-escape', 66, 0o600) >= 0: print(8)",
        verdict=WA,
    ),
    Case(
        row=28,
        tries="hides memory in pipes",
        program="import fcntl, os\nr, w = os.pipe()\nfcntl.fcntl(w, 1031, 2**20)\nprint(8)",
        verdict=RE,
    ),
    Case(row=28, tries="maps shared memory", program="import mmap\nmmap.mmap(-1, 2**30)\nprint(8)", verdict=RE),
    Case(row=30, tries="prints without end", program="while True: print('x' * 10000)", verdict=OLE),
    Case(
        row=30, tries="prints one endless line", program="import os\nwhile True: os.write(1, b'x' * 60000)", verdict=OLE
    ),
    Case(
        row=30, tries="complains without end", program="import os\nwhile True: os.write(2, b'x' * 60000)", verdict=OLE
    ),
    Case(
        row=31,
        tries="prints byte by byte without end",
        program="import os\nwhile True: os.write(1, b'x')",
        verdict=(TLE, OLE),
        tests=QUICK,
    ),
    Case(
        row=31,
        tries="prints byte by byte",
        program="import os\nfor _ in range(20000): os.write(1, b'x')",
        verdict=AC,
        tests={"inputs": [""], "outputs": ["x" * 20000], "cpu_seconds": 5},
    ),
    Case(row=32, tries="writes a huge file", program="open('/tmp/prime-escape', 'wb').write(b'x' * 2**26)", verdict=RE),
    Case(row=32, tries="makes a sparse file", program="open('/tmp/prime-escape', 'wb').truncate(2**40)", verdict=RE),
    Case(
        row=32,
        tries="makes many files",
        program="for i in range(10**5): open(f'/tmp/prime-escape-{i}', 'w')",
        verdict=(RE, OLE),
    ),
    Case(
        row=32,
        tries="fills its folder",
        program="n = 0\nwhile n < 10**4: n += 1; open(f'{n}', 'wb').write(b'x' * 2**22)\nprint(8)",
        verdict=(RE, OLE),
    ),
    Case(
        row=32,
        tries="hides files that it has deleted",
        program="import os\nkept = []\nwhile True:\n  kept.append(open('x', 'wb')); os.unlink('x')\n"
        "  kept[-1].write(b'x' * 2**22); kept[-1].flush()",
        verdict=(RE, OLE),
    ),
    Case(
        row=32,
        tries="makes deep folders",
        program="import os\nos.makedirs('/tmp/prime-escape' + '/d' * 500)",
        verdict=RE,
    ),
]


# One that computes beside one that waits: half the time, and either's leftovers are still found.
@pytest.mark.parametrize("pair", PAIRS, ids=[" and ".join(names(pair)) for pair in PAIRS])
async def test_time_is_bounded(judge: Judge, pair: tuple[Case, Case]) -> None:
    verdicts = await asyncio.gather(*(judge.verdict(case) for case in pair))
    assert all(verdict in case.allowed for verdict, case in zip(verdicts, pair, strict=True)), verdicts
    await judge.is_as_before()


@pytest.mark.parametrize("case", SPACE, ids=names(SPACE))
async def test_memory_threads_output_and_files_are_bounded(judge: Judge, case: Case) -> None:
    before = psutil.Process().memory_info().rss
    await judge.expect(case)
    assert psutil.Process().memory_info().rss - before < 128 * 2**20


async def test_output_stops_at_its_limit(judge: Judge) -> None:
    found = await judge.grade("while True: print('x' * 10000)")
    assert found.tests[0].output_bytes <= (8192 + 64) * 1024
    assert found.reason == "output_limit:0"


async def test_many_tests_just_under_their_limit_use_up_the_time_of_the_program_and_keep_what_they_passed(
    judge: Judge,
) -> None:
    burn = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\nprint(input())"
    tests: dict[str, object] = {"inputs": ["8"] * 100, "outputs": ["8"] * 100}
    grader = judge.grader(program_seconds=0.5)
    found = await grader.grade(grader.parse(item_of(burn, tests)))
    assert [record.verdict for record in found.tests] == [AC] * len(found.tests)
    assert 1 <= len(found.tests) <= 3
    assert found.score == len(found.tests) / 100
    assert found.reason == f"program_limit:{len(found.tests)}"
    await judge.is_as_before()


async def test_threads_that_take_all_memory_do_not_harm_their_neighbour(judge: Judge) -> None:
    greedy = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(16) as pool:
    held = [pool.submit(bytearray, 64 * 2**20) for _ in range(16)]
print(len([each.result() for each in held]))
"""
    hostile, honest = await asyncio.gather(judge.grade(greedy), judge.grade(HONEST))
    assert hostile.tests[0].verdict is MLE
    assert honest.score == 1.0
    await judge.is_as_before()
