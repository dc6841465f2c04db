"""Programs that leave something for the next test or job, or look for one that runs beside them."""

import asyncio

import pytest

from services.verifier.sandbox.executions import Outcome, Task
from tests.verifier.judge import LIMITS, Judge

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Leaves a mark in every way it knows when it is told to, and prints the ways in which it finds one.
_MARKS = """
import builtins, ctypes, gc, heapq, json, os, random, sys, fcntl
libc = ctypes.CDLL(None, use_errno=True)
MARK = "prime-" + "escape"
def leave_file(folder): open(folder + "/" + MARK, "w").write(MARK)
def leave_key(): assert libc.syscall(248, b"user", MARK.encode(), b"x", 1, -3) >= 0
def leave_segment(): assert libc.shmget(20202, 4096, 0o1666) >= 0
def leave_queue(): assert libc.msgget(20202, 0o1666) >= 0
def leave_lock(): fcntl.lockf(open(os.__file__), fcntl.LOCK_SH)
def leave_whole_lock(): fcntl.flock(open(os.__file__), fcntl.LOCK_EX)
def patch():
    for module in (builtins, heapq, json, random, sys, os): setattr(module, MARK.replace("-", "_"), 1)
    heapq.heappush = json.dumps = None
def find_patch():
    modules = (builtins, heapq, json, random, sys, os)
    return any(hasattr(m, MARK.replace("-", "_")) for m in modules) or not heapq.heappush
def find_text():
    hold = MARK + "-input"
    for o in gc.get_objects():
        for r in gc.get_referents(o):
            if isinstance(r, (bytes, bytearray)) and hold.encode() in r: return True
def find_key(): return libc.syscall(249, b"user", MARK.encode(), None, 0) >= 0
def find_segment(): return libc.shmget(20202, 4096, 0) >= 0
def find_queue(): return libc.msgget(20202, 0) >= 0
def find_file(folder): return os.path.exists(folder + "/" + MARK)
def find_environment(): return MARK in os.environ
def leave_environment(): os.environ[MARK] = "1"
FOLDERS = ("/tmp", "/dev/shm", "/var/tmp", ".")
if os.read(0, 5) == b"leave":
    for act in (leave_key, leave_segment, leave_queue, leave_lock, leave_whole_lock, patch, leave_environment):
        try: act()
        except (OSError, AssertionError): pass
    for folder in FOLDERS:
        try: leave_file(folder)
        except OSError: pass
else:
    looks = (find_patch, find_text, find_key, find_segment, find_queue, find_environment)
    found = [look.__name__ for look in looks if look()]
    print(found, [folder for folder in FOLDERS if find_file(folder)])
"""
_LEAVE, _LOOK = Task(stdin=b"leave prime-escape-input"), Task(stdin=b"look.")


async def test_the_next_test_of_a_program_finds_nothing(judge: Judge) -> None:
    async with judge.sandbox.program(_MARKS.encode()) as program:
        for _ in range(2):
            assert (await program.run(_LEAVE, LIMITS)).outcome is Outcome.OK
        execution = await program.run(_LOOK, LIMITS)
    assert execution.stdout == b"[] []\n", execution
    await judge.is_as_before()


async def test_the_next_program_finds_nothing(judge: Judge) -> None:
    for _ in range(2):  # in each of two places
        await judge.run(_MARKS, _LEAVE)
    executions = [await judge.run(_MARKS, _LOOK) for _ in range(2)]
    assert [execution.stdout for execution in executions] == [b"[] []\n"] * 2
    await judge.is_as_before()


# The first holds what it can get hold of for a while; the second looks for it meanwhile.
_HOLD = _MARKS.replace("else:", "    import time; time.sleep(0.6)\nelse:", 1)
_MEET = """
import ctypes, fcntl, os, socket, struct
found = []
def attempt(name, act):
    try: act()
    except OSError: return
    found.append(name)
request = struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0)
with open(os.__file__) as file:
    attempt("record lock", lambda: fcntl.fcntl(file, fcntl.F_GETLK, request))
    attempt("lock", lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB))
attempt("abstract socket", lambda: socket.socket(socket.AF_UNIX).bind("\\0prime-escape"))
attempt("port", lambda: socket.socket().bind(("127.0.0.1", 0)))
for pid in range(2, 400):
    if pid != os.getpid(): attempt(f"signal {pid}", lambda: os.kill(pid, 0))
print(found)
"""


async def test_two_programs_side_by_side_do_not_find_each_other(judge: Judge) -> None:
    async def later(program: str, task: Task) -> bytes:
        await asyncio.sleep(0.2)
        return (await judge.run(program, task)).stdout

    first, marks = await asyncio.gather(judge.run(_HOLD, _LEAVE), later(_MARKS, _LOOK))
    assert (first.outcome, marks) == (Outcome.OK, b"[] []\n")
    first, met = await asyncio.gather(judge.run(_HOLD, _LEAVE), later(_MEET, Task()))
    assert (first.outcome, met) == (Outcome.OK, b"[]\n")
    await judge.is_as_before()


async def test_random_numbers_differ_from_run_to_run_and_sets_are_ordered_the_same(judge: Judge) -> None:
    draw = "import random\nprint(random.random(), end=' ')\nprint({'a', 'b', 'c', 'd'})"
    async with judge.sandbox.program(draw.encode()) as program:
        first, second = [(await program.run(Task(), LIMITS)).stdout.split(b" ", 1) for _ in range(2)]
    assert first[0] != second[0]
    assert first[1] == second[1]


async def test_a_thousand_children_are_capped_and_buried(judge_a: Judge) -> None:
    # Only the compiler may have processes, so its profile is the one to storm.
    storm = b"""
import os, time
started = 0
for _ in range(1000):
    try: pid = os.fork()
    except OSError: break
    if pid == 0: time.sleep(60); os._exit(0)
    started += 1
print(started, flush=True)
"""
    async with judge_a.sandbox.program(storm, profile="compiler", with_box=True) as program:
        execution = await program.run(Task(), LIMITS)
    assert 1 <= int(execution.stdout) <= 64, execution
    await judge_a.is_as_before()
