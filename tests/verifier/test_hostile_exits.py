"""Programs that leave early, claim success, look for the answer, or break their own process."""

import pytest

from tests.verifier.judge import AC, CE, ILE, MLE, QUICK, RE, TLE, WA, Case, Judge, names

pytestmark = pytest.mark.asyncio(loop_scope="session")

_SECRET = "expected-73915"
# The answer is a text that the program cannot know. It looks for one of that form wherever it can reach, and prints it.
_LOOK = """
import re
def find(seen):
    for text in re.findall("expect" + r"ed-\\d+", seen): print(text)
"""
_ANSWER = {"inputs": ["x"], "outputs": [_SECRET]}

CASES = [
    Case(row=1, tries="sys.exit before any output", program="import sys\nsys.exit(0)", verdict=WA),
    Case(row=1, tries="os._exit before any output", program="import os\nos._exit(0)", verdict=WA),
    Case(row=1, tries="SystemExit before any output", program="raise SystemExit", verdict=WA),
    Case(row=2, tries="leaves without flushing", program="import os\nprint(8)\nos._exit(0)", verdict=WA),
    Case(
        row=3,
        tries="never ends a destructor",
        program="class D:\n  def __del__(self):\n    while True: pass\nd = D()\nprint(8)",
        verdict=TLE,
        tests=QUICK,
    ),
    Case(
        row=3,
        tries="sleeps in a destructor",
        program="import time\nclass D:\n  def __del__(self): time.sleep(99)\nd = D()\nprint(8)",
        verdict=(ILE, TLE),
    ),
    Case(row=3, tries="prints and then fails", program="print(8)\nraise SystemExit(1)", verdict=RE),
    Case(row=3, tries="prints and then raises", program="print(8)\n1 / 0", verdict=RE),
    Case(
        row=7,
        tries="walks the frames for the answer",
        program=_LOOK
        + "import sys\nframe = sys._getframe()\n"
        + "while frame: find(repr(frame.f_globals) + repr(frame.f_locals)); frame = frame.f_back",
        verdict=WA,
        tests=_ANSWER,
    ),
    Case(
        row=7,
        tries="walks a traceback for the answer",
        program=_LOOK
        + "try: 1 / 0\nexcept ZeroDivisionError as error:\n"
        + "  frame = error.__traceback__.tb_frame\n"
        + "  while frame: find(repr(frame.f_globals) + repr(frame.f_locals)); frame = frame.f_back",
        verdict=WA,
        tests=_ANSWER,
    ),
    Case(
        row=8,
        tries="searches all objects for the answer",
        program=_LOOK
        + "import gc\nfor o in gc.get_objects():\n"
        + "  for r in gc.get_referents(o):\n    if isinstance(r, (str, bytes, bytearray)): find(repr(r))",
        verdict=WA,
        tests=_ANSWER,
    ),
    Case(
        row=8,
        tries="searches its memory for the answer",
        program=_LOOK
        + "import ctypes\nheap = id(object()) & ~0xfffff\n"
        + "data = ctypes.string_at(heap, 0x40000)\nfind(data.decode('latin-1'))",
        verdict=(WA, RE),
        tests=_ANSWER,
    ),
    Case(
        row=9,
        tries="replaces what a harness might use",
        program="import builtins, json\njson.dumps = lambda *a, **k: '8'\njson.JSONEncoder.encode = json.dumps\n"
        "builtins.print = builtins.repr = lambda *a, **k: '8'\nbuiltins.__import__ = None\nprint(8)",
        verdict=WA,
    ),
    Case(
        row=10,
        tries="appends to a list of results",
        program="import sys, os\nfor m in list(sys.modules.values()):\n"
        "  for n in ('result', 'results', 'verdicts', 'passed', 'in_outs'):\n"
        "    found = getattr(m, n, None)\n    if isinstance(found, list): found.append(True)\nos._exit(0)",
        verdict=WA,
    ),
    Case(
        row=11,
        tries="writes a verdict to every descriptor",
        program="import os\nfor d in range(1024):\n"
        '  try: os.write(d, b\'{"verdict": "AC", "passed": true} value 8\')\n  except OSError: pass',
        verdict=WA,
    ),
    Case(row=12, tries="prints verdicts", program="print('PASSED AC 1.0 {\"score\": 1}')", verdict=WA),
    Case(row=12, tries="prints terminal codes", program="print('9\\x1b[1D8\\x1b[0m')", verdict=WA),
    Case(
        row=12,
        tries="prints verdicts on stderr",
        program="import sys\nprint('AC', file=sys.stderr)\nprint(9)",
        verdict=WA,
    ),
    Case(row=13, tries="defines its own check", program="def check(*a): pass\ndef assert_equal(*a): pass", verdict=WA),
    Case(row=13, tries="decorates what may follow", program="print(8)\n@lambda f: f", verdict=CE),
    Case(
        row=14,
        tries="plants modules that start by themselves",
        program="for n in ('sitecustomize.py', 'usercustomize.py', 'conftest.py', 'x.pth'):\n"
        "  open('/tmp/prime-escape-' + n, 'w').write('print(8)'); open(n, 'w').write('print(8)')",
        # It may write there, but nothing ever starts from there.
        verdict=WA,
    ),
    Case(
        row=15,
        tries="prints another answer at its end",
        program="import atexit\natexit.register(print, 9)\nprint(8)",
        verdict=WA,
    ),
    Case(
        row=15,
        tries="turns failure into success",
        program="import sys, os\nsys.excepthook = lambda *a: os._exit(0)\nprint(8)\n1 / 0",
        verdict=WA,
    ),
    Case(
        row=15,
        tries="breaks the end of threads",
        program="import threading\nthreading._shutdown = lambda: 1 / 0\nprint(9)",
        verdict=WA,
    ),
    Case(row=20, tries="reads past the end", program="input()\ninput()", verdict=RE),
    Case(
        row=20,
        tries="reads past the end in other ways",
        program="import os, sys\nsys.stdin.read()\nprint(sys.stdin.read(), os.read(0, 9), sys.stdin.readline())",
        verdict=WA,
    ),
    Case(row=41, tries="aborts", program="import os\nos.abort()", verdict=RE, tests={"cpu_seconds": 20}),
    Case(
        row=41,
        tries="reads a null pointer",
        program="import ctypes\nctypes.string_at(0)",
        verdict=RE,
        tests={"cpu_seconds": 20},
    ),
    Case(
        row=41,
        tries="overflows the C stack",
        program="import sys\nsys.setrecursionlimit(10**8)\nclass A:\n  def __init__(self, a): self.a = a\n"
        "  def __repr__(self): return repr(self.a)\na = 0\nfor _ in range(10**6): a = A(a)\nrepr(a)",
        # It fills its stack and a million objects before it falls, which takes a busy machine a while.
        verdict=(RE, MLE),
        tests={"cpu_seconds": 20},
    ),
    Case(row=43, tries="closes its output", program="import os\nos.close(1)\nprint(8)", verdict=RE),
    Case(row=43, tries="closes all its pipes", program="import os\nos.closerange(0, 64)\nprint(8)", verdict=RE),
    Case(row=43, tries="puts its input over its output", program="import os\nos.dup2(0, 1)\nprint(8)", verdict=RE),
    Case(
        row=43,
        tries="prints into nothing",
        program="import os\nos.dup2(os.open('/dev/null', os.O_WRONLY), 1)\nprint(8)",
        verdict=WA,
    ),
    Case(row=44, tries="uses up descriptors", program="import os\nwhile True: os.pipe()", verdict=RE),
    Case(
        row=57,
        tries="looks for a grader's marks",
        program="import os, sys\nmarks = [sys.argv, sys.orig_argv, sys.flags.interactive, os.environ.get('GRADER')]\n"
        "print(8 if 'verifier' in repr(marks) or 'grade' in repr(list(sys.modules)) else 9)",
        verdict=WA,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
async def test_what_a_program_does_to_its_own_process_gains_nothing(judge: Judge, case: Case) -> None:
    await judge.expect(case)


async def test_a_crash_costs_its_own_test_only(judge: Judge) -> None:
    tests: dict[str, object] = {"inputs": ["1", "2", "3"], "outputs": ["1", "2", "3"]}
    found = await judge.grade("import os\nn = input()\nif n == '2': os.abort()\nprint(n)", tests)
    assert [record.verdict for record in found.tests] == [AC, RE, AC]
    assert [record.signal for record in found.tests] == [0, 6, 0]
    assert found.reason == "runtime_error:1"


async def test_answers_known_by_heart_earn_their_own_tests_only(judge: Judge) -> None:
    tests: dict[str, object] = {"inputs": ["1 2", "3 4", "5 6", "7 8"], "outputs": ["3", "7", "11", "15"]}
    found = await judge.grade("print({'1 2': 3, '3 4': 7}.get(input(), 0))", tests)
    assert [record.verdict for record in found.tests] == [AC, AC, WA, WA]
    assert (found.score, found.reason) == (0.5, "wrong_output:2")
