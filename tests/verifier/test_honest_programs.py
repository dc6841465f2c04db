"""Programs that do nothing wrong, and that graders often refuse. All must pass, in both tiers."""

from typing import Any

import pytest

from tests.verifier.judge import AC, MLE, TLE, WA, Judge

pytestmark = pytest.mark.asyncio(loop_scope="session")

_SUM = "print(sum(map(int, {read}.split())))"
SCRIPTS = {
    "input": _SUM.format(read="input()"),
    "sys.stdin.read": "import sys\n" + _SUM.format(read="sys.stdin.read()"),
    "sys.stdin.buffer.read": "import sys\n" + _SUM.format(read="sys.stdin.buffer.read()"),
    "sys.stdin.buffer.readline": "import sys\n" + _SUM.format(read="sys.stdin.buffer.readline()"),
    "iteration over sys.stdin": "import sys\nfor line in sys.stdin: " + _SUM.format(read="line"),
    "iteration over sys.stdin.buffer": "import sys\nfor line in sys.stdin.buffer: " + _SUM.format(read="line"),
    "readline as input": "import sys\ninput = sys.stdin.readline\n" + _SUM.format(read="input()"),
    "iter of input": "print(sum(map(int, next(iter(input, '')).split())))",
    "os.read": "import os\n" + _SUM.format(read="os.read(0, 100)"),
    "os.fstat and os.read": "import os\nos.fstat(0).st_size\n" + _SUM.format(read="os.read(0, 2**20)"),
    "open(0)": _SUM.format(read="open(0).read()"),
    "open('/dev/stdin')": _SUM.format(read="open('/dev/stdin').read()"),
    "a path to /dev/stdin": "import pathlib\n" + _SUM.format(read="pathlib.Path('/dev/stdin').read_text()"),
    "open('/dev/stdout')": "out = open('/dev/stdout', 'w')\nout.write('8')\nout.close()",
    "open(0, 'rb')": _SUM.format(read="open(0, 'rb').read()"),
    "io.BytesIO over os.read": "import io, os\ninput = io.BytesIO(os.read(0, 10**6)).readline\n"
    + _SUM.format(read="input()"),
    "io.TextIOWrapper": "import io, sys\nf = io.TextIOWrapper(sys.stdin.buffer, encoding='utf-8')\n"
    + _SUM.format(read="f.read()"),
    "fileinput": "import fileinput\nfor line in fileinput.input(): " + _SUM.format(read="line"),
    "select before reading": "import select, sys\nassert select.select([sys.stdin], [], [])[0]\n"
    + _SUM.format(read="input()"),
    "sys.stdout.buffer.write": "import sys\ninput()\nsys.stdout.buffer.write(b'8')",
    "os.write": "import os\nos.write(1, b'8')",
    "print with flush": "print(8, flush=True)",
    "print to a replaced sys.stdout": "import io, sys\nout = sys.stdout\nsys.stdout = io.StringIO()\nprint(8)\n"
    "out.write(sys.stdout.getvalue())",
    "a replaced sys.stdout that is left alone": "import io, sys\n"
    "sys.stdout = io.TextIOWrapper(io.FileIO(1, 'w', closefd=False))\n"
    "print(8)",
    "a writer that is never closed": "import os\nout = os.fdopen(1, 'w')\nout.write('8')",
    "a writer of bytes that is never closed": "class Keep: out = open(1, 'wb', closefd=False)\nKeep.out.write(b'8')",
    "the fast reader and writer of many": """
import os, sys
from io import BytesIO, IOBase
class FastIO(IOBase):
    newlines = 0
    def __init__(self, file):
        self._fd = file.fileno()
        self.buffer = BytesIO()
        self.writable = "x" in file.mode or "r" not in file.mode
        self.write = self.buffer.write if self.writable else None
    def readline(self):
        while self.newlines == 0:
            b = os.read(self._fd, max(os.fstat(self._fd).st_size, 8192))
            self.newlines = b.count(b"\\n") + (not b)
            ptr = self.buffer.tell()
            self.buffer.seek(0, 2), self.buffer.write(b), self.buffer.seek(ptr)
        self.newlines -= 1
        return self.buffer.readline()
    def flush(self):
        if self.writable:
            os.write(self._fd, self.buffer.getvalue())
            self.buffer.truncate(0), self.buffer.seek(0)
class IOWrapper(IOBase):
    def __init__(self, file):
        self.buffer = FastIO(file)
        self.flush = self.buffer.flush
        self.writable = self.buffer.writable
        self.write = lambda s: self.buffer.write(s.encode("ascii"))
        self.readline = lambda: self.buffer.readline().decode("ascii")
sys.stdin, sys.stdout = IOWrapper(sys.stdin), IOWrapper(sys.stdout)
input = lambda: sys.stdin.readline().rstrip("\\r\\n")
print(sum(map(int, input().split())))
""",
    "open(1, 'w')": "f = open(1, 'w')\nf.write('8')\nf.close()",
    "no newline at the end": "import sys\nsys.stdout.write('8')",
    "blanks at the end": "print('8  ')\nprint()\nprint()",
    "Windows line ends": "import sys\nsys.stdout.write('8\\r\\n')",
    "a top-level global": "total = 0\ndef add(n):\n  global total\n  total += n\nadd(3); add(5)\nprint(total)",
    "a main guard": "def main(): print(8)\nif __name__ == '__main__': main()",
    "a main guard in other quotes": 'def main():\n  print(8)\nif "__main__" == __name__:\n  main()',
    "a main guard in brackets": "if (__name__) in ('__main__',): print(8)",
    "exit at the end": "print(8)\nexit()",
    "exit(0) at the end": "print(8)\nexit(0)",
    "quit at the end": "print(8)\nquit()",
    "sys.exit at the end": "import sys\nprint(8)\nsys.exit()",
    "sys.exit in a function": "import sys\ndef main():\n  print(8)\n  sys.exit(0)\n  print(9)\nmain()",
    "SystemExit at the end": "print(8)\nraise SystemExit(0)",
    "os._exit after a flush": "import os\nprint(8, flush=True)\nos._exit(0)",
    "an early end by exception": "class Done(Exception): pass\ntry:\n  print(8)\n  raise Done\nexcept Done: pass",
    "a caught exception": "try:\n  1 / 0\nexcept ZeroDivisionError:\n  print(8)",
    "end of input as the end": "n = 0\ntry:\n"
    "  while True: n += sum(map(int, input().split()))\nexcept EOFError: print(n)",
    "a destructor": "class D:\n  def __del__(self): print(self.v)\nd = D()\nd.v = 8",
    "a destructor in a cycle": "class D:\n  def __del__(self): print(self.v)\nd = D()\nd.v, d.d = 8, d",
    "a destructor after an exit": "class D:\n  def __del__(self): print(8)\nd = D()\nraise SystemExit",
    "the end of a generator": "def g():\n  try: yield\n  finally: print(r)\nr = 8\nx = g()\nnext(x)",
    "a detached stream": "import sys\nout = sys.stdout.detach()\nout.write(b'8\\n')",
    "an atexit handler": "import atexit\natexit.register(print, 8)",
    "four threads": "import threading\nout = []\n"
    "ts = [threading.Thread(target=out.append, args=(2,)) for _ in range(4)]\n"
    "[t.start() for t in ts]; [t.join() for t in ts]\nprint(sum(out))",
    "a thread that outlives the main one": "import threading, time\n"
    "threading.Thread(target=lambda: (time.sleep(0.05), print(8))).start()",
    "a thread with a large stack": "import sys, threading\nsys.setrecursionlimit(10**6)\n"
    "threading.stack_size(256 * 2**20)\ndef f(n): return 8 if n == 0 else f(n - 1)\n"
    "t = threading.Thread(target=lambda: print(f(50000)))\nt.start(); t.join()",
    "a thread with a stack of 2**27": "import sys, threading\nsys.setrecursionlimit(10**7)\n"
    "threading.stack_size(2**27)\n"
    "def main(): print(sum(map(int, input().split())))\nt = threading.Thread(target=main); t.start(); t.join()",
    "a pool of threads": "from concurrent.futures import ThreadPoolExecutor as P\n"
    "with P(8) as pool: print(sum(pool.map(int, input().split())))",
    "deep recursion": "import sys\nsys.setrecursionlimit(10**6)\n"
    "def f(n): return 8 if n == 0 else f(n - 1)\nprint(f(100000))",
    "deep recursion through a cache": "import sys, functools\nsys.setrecursionlimit(10**6)\n"
    "@functools.lru_cache(None)\n"
    "def f(n): return 8 if n == 0 else f(n - 1)\nprint(f(20000))",
    "very deep recursion through a cache": "import sys, functools\nsys.setrecursionlimit(10**7)\n@functools.cache\n"
    "def f(n): return 8 if n == 0 else f(n - 1)\nprint(f(150000))",
    "a raised stack limit": "import resource\n"
    "resource.setrlimit(resource.RLIMIT_STACK, (2**28, resource.RLIM_INFINITY))\n"
    "print(8)",
    "an unlimited stack": "import resource, sys\n"
    "resource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\nprint(8)",
    "math star import": "from math import *\nprint(int(sqrt(64)))",
    "names shadowed": "from math import *\nlist = sum = max = 8\nprint(list)",
    "decimals": "from decimal import Decimal as D, getcontext\ngetcontext().prec = 50\nprint(D(3) + D(5))",
    "fractions": "from fractions import Fraction\nprint(Fraction(16, 2))",
    "seeded random": "import random\nrandom.seed(1)\nprint(8 if random.random() == 0.13436424411240122 else 9)",
    "modules beyond the usual": "import difflib, textwrap, calendar, secrets\n"
    "import uuid, hashlib, zlib, pprint, numbers\nprint(8)",
    "unused imports": "import multiprocessing, signal, resource, subprocess\n"
    "import asyncio, socket, tempfile, pickle\nprint(8)",
    "typing and dataclasses": "from typing import *\n"
    "from dataclasses import dataclass\n@dataclass\nclass A:\n  n: int = 8\n"
    "print(A().n)",
    "pickled and copied classes": "import pickle, copy\n"
    "class A: n = 8\nprint(copy.deepcopy(pickle.loads(pickle.dumps(A()))).n)",
    "environment reads": "import os\nprint(8 if os.environ.get('ONLINE_JUDGE') is None else 0)",
    "a local debug switch": "import os, sys\nif os.path.exists('input.txt'): sys.stdin = open('input.txt')\n"
    + _SUM.format(read="input()"),
    "os.devnull": "import os, sys\nsys.stderr = open(os.devnull, 'w')\nprint(8)",
    "a signal handler": "import signal\nsignal.signal(signal.SIGINT, lambda *a: None)\nsignal.alarm(60)\nprint(8)",
    "time and a pause": "import time\nt = time.perf_counter()\n"
    "time.sleep(0.01)\nprint(8 if time.perf_counter() > t else 9)",
    "a garbage collector switch": "import gc\ngc.disable()\nprint(8)\ngc.collect()",
    "a long integer": "print(8 if len(str(10**10000)) == 10001 else 0)",
    "a long integer limit raised": "import sys\nsys.set_int_max_str_digits(10**6)\nprint(8)",
    "PyPy idioms": "try:\n  import pypyjit\n  pypyjit.set_param('max_unroll_recursion=-1')\nexcept ImportError: pass\n"
    "try:\n  from __pypy__.builders import StringBuilder\nexcept ImportError: StringBuilder = None\nprint(8)",
    "an order of sets": "print(8 if ''.join(sorted({'a', 'b'})) == 'ab' else 9)",
    "dictionary order": "print(list({3: 1, 8: 2})[1])",
    "complex numbers": "print(int(abs(complex(0, 8))))",
    "exec and eval": "exec('n = 3')\nprint(eval('n + 5'))",
    "compile of its own": "exec(compile('print(8)', 'x', 'exec'))",
    "a class of its own name": "class Solution:\n  def main(self): print(8)\nSolution().main()",
    "a temporary name": "_ = __import__('sys').stdin.readline()\nprint(8)",
    "warnings": "import warnings\nwarnings.warn('old')\nprint(8)",
    "output on stderr": "import sys\nprint('debug ' * 1000, file=sys.stderr)\nprint(8)",
    "unicode output": "print('8\\u00a0'.strip())",
}


@pytest.mark.parametrize("name", SCRIPTS)
async def test_an_honest_script_passes(judge: Judge, name: str) -> None:
    found = await judge.grade(SCRIPTS[name])
    assert (found.score, found.reason) == (1.0, "all_tests"), await judge.run(SCRIPTS[name])


async def test_input_then_sys_stdin_read_passes(judge: Judge) -> None:
    program = "import sys\nn = int(input())\nprint(n + sum(map(int, sys.stdin.read().split())))"
    assert (await judge.grade(program, {"inputs": ["3\n2\n3\n"], "outputs": ["8"]})).score == 1.0


async def test_windows_line_ends_in_tests_make_no_difference(judge: Judge) -> None:
    tests: dict[str, object] = {"inputs": ["3\r\n5\r\n"], "outputs": ["3\r\n5 \r\n\r\n"]}
    assert (await judge.grade("import sys\nfor line in sys.stdin: print(int(line))", tests)).score == 1.0


async def test_a_list_of_lines_is_an_input(judge: Judge) -> None:
    tests: dict[str, object] = {"inputs": [["2", "3 5"]], "outputs": [["8", "2"]]}
    assert (await judge.grade("n = input()\nprint(sum(map(int, input().split())))\nprint(n)", tests)).score == 1.0


async def test_a_million_lines_of_input_and_five_megabytes_of_output_pass(judge: Judge) -> None:
    program = "import sys\ndata = sys.stdin.buffer.read().split()\nprint(len(data))\nprint('x' * 5 * 10**6)"
    tests: dict[str, object] = {"inputs": ["123\n" * 10**6], "outputs": ["1000000\n" + "x" * 5 * 10**6]}
    assert (await judge.grade(program, tests)).score == 1.0


async def test_input_that_is_never_read_does_no_harm(judge: Judge) -> None:
    assert (await judge.grade("print(8)", {"inputs": ["123\n" * 10**6], "outputs": ["8"]})).score == 1.0


CALLS: dict[str, tuple[str, list[Any], Any]] = {
    "bare function": ("def solve(a, b): return a + b", [3, 5], 8),
    "lambda": ("solve = lambda a, b: a + b", [3, 5], 8),
    "class Solution": ("class Solution:\n  def solve(self, a: List[int]) -> int: return sum(a)", [[3, 5]], 8),
    "class Solution with state": (
        "class Solution:\n  def __init__(self): self.n = 5\n  def solve(self, a): return a + self.n",
        [3],
        8,
    ),
    "static method": ("class Solution:\n  @staticmethod\n  def solve(a): return a", [8], 8),
    "helpers beside it": ("def help(a): return a + 5\ndef solve(a): return help(a)", [3], 8),
    "module-level state": ("seen = []\ndef solve(a):\n  seen.append(a)\n  return seen", [8], [8]),
    "a main guard is left out": ("def solve(a): return a\nif __name__ == '__main__': input()", [8], 8),
    "prints on the way": ("def solve(a):\n  print('debug', a)\n  return a", [8], 8),
    "tuple for a list": ("def solve(a): return (a, (a,))", [1], [1, [1]]),
    "preset names": (
        "def solve(a): return sorted(Counter(a).values()) + [gcd(4, 6), math.floor(2.5), len(deque()), inf > 1]",
        ["aab"],
        [1, 2, 2, 2, 0, True],
    ),
    "preset decorators": ("@lru_cache(None)\ndef solve(a: Optional[int]) -> int: return a", [8], 8),
    "modular power": ("def solve(a): return pow(a, 3, 5)", [2], 3),
    "own name over a preset": ("def gcd(a, b): return 8\ndef solve(a): return gcd(a, a)", [1], 8),
    "integer keys": ("def solve(a): return {a: True}", [1], {"1": True}),
    "float within tolerance": ("def solve(a): return a / 3", [1], 0.3333333),
    "truth for one": ("def solve(a): return a > 0", [1], 1),
    "text": ("def solve(a): return a * 2", ["ab"], "abab"),
    "letters of other scripts": ("def solve(a): return a[::-1]", ["日本"], "本日"),
    "digits as text": ("def solve(a): return a", ["12"], "12"),
    "nothing inside a list": ("def solve(a): return [None, a]", [1], [None, 1]),
    "JSON text expected": ("def solve(a): return [a]", [1], "[1]"),
    "expected in a list of one": ("def solve(a): return a", [8], [8]),
    "deep recursion": (
        "import sys\nsys.setrecursionlimit(10**6)\ndef solve(n): return 0 if n == 0 else 1 + solve(n - 1)",
        [50000],
        50000,
    ),
    "arguments changed in place": ("def solve(a):\n  a.sort()\n  return a", [[2, 1]], [1, 2]),
    "defaultdict for a dictionary made plain": ("def solve(a): return dict(Counter(a))", ["aa"], {"a": 2}),
}


@pytest.mark.parametrize("name", CALLS)
async def test_an_honest_function_passes(judge: Judge, name: str) -> None:
    program, arguments, expected = CALLS[name]
    found = await judge.grade(program, {"fn_name": "solve", "inputs": [arguments], "outputs": [expected]})
    assert (found.score, found.reason, found.method) == (1.0, "all_tests", "code:call")


async def test_arguments_may_come_as_one_json_value_per_line(judge: Judge) -> None:
    tests: dict[str, object] = {"fn_name": "solve", "inputs": ['[3, 5]\n"x"'], "outputs": [8]}
    assert (await judge.grade("def solve(a, b): return sum(a)", tests)).score == 1.0


async def test_every_call_has_an_instance_of_its_own(judge: Judge) -> None:
    program = "class Solution:\n  seen = []\n  def solve(self, a):\n    self.seen.append(a)\n    return self.seen"
    assert (await judge.grade(program, {"fn_name": "solve", "inputs": [[1], [2]], "outputs": [[1], [2]]})).score == 1.0


async def test_assertions_that_hold_pass_and_each_counts(judge: Judge) -> None:
    tests: dict[str, object] = {
        "assertions": ["assert f(1) == 2", "assert f(2) == 9", "import math\nassert f(3) == math.ceil(3.5)"]
    }
    found = await judge.grade("def f(a): return a + 1", tests)
    assert (found.score, found.reason, found.method) == (2 / 3, "runtime_error:1", "code:assert")


@pytest.mark.parametrize(
    ("comparison", "printed", "right"),
    [
        ("lines", "print('2 1\\n3')", False),
        ("unordered_lines", "print('3\\n1 2')", True),
        ("unordered_lines", "print('3\\n2 1')", False),
        ("unordered_lines", "print('1 2\\n3\\n3')", False),
        ("unordered_tokens", "print('3 2 1')", True),
        ("unordered_tokens", "print('3 2 1 1')", False),
    ],
)
async def test_order_matters_unless_the_problem_says_otherwise(
    judge: Judge, comparison: str, printed: str, right: bool
) -> None:
    found = await judge.grade(printed, {"inputs": [""], "outputs": ["1 2\n3"], "comparison": comparison})
    assert (found.score == 1.0) is right


@pytest.mark.parametrize(("tolerance", "verdict"), [(None, WA), (1e-3, AC)])
async def test_a_problem_may_bring_its_own_tolerance(judge: Judge, tolerance: float | None, verdict: object) -> None:
    tests: dict[str, object] = {"inputs": [""], "outputs": ["0.3333"]}
    if tolerance:
        tests["tolerance"] = tolerance
    assert (await judge.grade("print(1 / 3)", tests)).tests[0].verdict is verdict


async def test_a_problem_may_bring_its_own_processor_time(judge: Judge) -> None:
    burn = "import time\nwhile time.process_time() < 2.3: pass\nprint(8)"
    tests: dict[str, object] = {"inputs": [""], "outputs": ["8"]}
    assert (await judge.grade(burn, {**tests, "cpu_seconds": 10})).tests[0].verdict is AC
    assert (await judge.grade(burn, {**tests, "cpu_seconds": 0.3})).tests[0].verdict is TLE


async def test_a_problem_may_bring_its_own_memory(judge: Judge) -> None:
    tests: dict[str, object] = {"inputs": [""], "outputs": ["8"]}
    take = "a = bytearray(700 * 2**20)\nprint(8)"
    assert (await judge.grade(take, {**tests, "memory_mib": 1024})).tests[0].verdict is AC
    assert (await judge.grade(take, tests)).tests[0].verdict is MLE
    assert (await judge.grade("a = bytearray(200 * 2**20)\nprint(8)", {**tests, "memory_mib": 64})).tests[
        0
    ].verdict is MLE


async def test_all_tests_count_and_each_has_a_record(judge: Judge) -> None:
    tests: dict[str, object] = {"inputs": [str(n) for n in range(25)], "outputs": [str(n % 20) for n in range(25)]}
    found = await judge.grade("print(input())", tests)
    assert (found.score, found.reason) == (0.8, "wrong_output:20")
    assert [record.verdict for record in found.tests] == [AC] * 20 + [WA] * 5
    assert all(record.cpu_ms > 0 and record.wall_ms > 0 and record.peak_mib > 1 for record in found.tests)
    assert [record.output_bytes for record in found.tests] == [len(str(n)) + 1 for n in range(25)]


async def test_a_binary_score_stops_at_the_first_failure_and_keeps_the_records(judge: Judge) -> None:
    tests: dict[str, object] = {"inputs": ["1", "2", "3", "4"], "outputs": ["1", "2", "9", "4"]}
    found = await judge.grade("print(input())", tests, binary=True)
    assert (found.score, found.reason) == (0.0, "wrong_output:2")
    assert [record.verdict for record in found.tests] == [AC, AC, WA]
    assert (await judge.grade("print(input())", {**tests, "outputs": tests["inputs"]}, binary=True)).score == 1.0


async def test_a_response_without_a_program_fails_without_a_run(judge: Judge) -> None:
    found = await judge.grade("   ")
    assert (found.score, found.reason, found.tests) == (0.0, "no_code", ())
