"""Programs that try to get out or to cheat, and honest ones that graders often refuse. One grader, real children."""

import asyncio
import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from prime.adapters.telemetry import Meters
from prime.errors import InvalidInput, Overloaded, SandboxError
from prime.types import GradeItem, Verdict, VerdictStatus
from services.verifier import canaries, jail
from services.verifier.grade import Grader
from services.verifier.mathematics import MathPool
from services.verifier.sandbox import Call, Execution, Limits, Outcome, Sandbox
from services.verifier.settings import VerifierSettings

SETTINGS = VerifierSettings(workers=2, cpu_seconds=1, wall_seconds=4.0, output_kib=1024, max_queue=8)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    built = Sandbox(SETTINGS.workers)
    yield built
    built.close()


@pytest.fixture
def grader(sandbox: Sandbox) -> Grader:
    return Grader(SETTINGS, sandbox, MathPool(1, 5.0), Meters())


def item(program: str, tests: Mapping[str, object]) -> GradeItem:
    return GradeItem(
        item_id="program",
        data_source="taco",
        ability="code",
        response=f"Here it is:\n```python\n{program}\n```\n",
        ground_truth=json.dumps(tests),
    )


async def grade_script(grader: Grader, program: str, given: str = "3 5\n", expected: str = "8\n") -> Verdict:
    return (await grader.grade([item(program, {"inputs": [given], "outputs": [expected]})]))[0]


async def grade_call(grader: Grader, program: str, arguments: list[object], expected: object) -> Verdict:
    tests = {"fn_name": "solve", "inputs": [arguments], "outputs": [expected]}
    return (await grader.grade([item(program, tests)]))[0]


def strays() -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline", "ppid"])
        # Ours, or orphaned; not those of another run on this machine.
        if process.info["ppid"] in (os.getpid(), 1)
        and any(part.endswith("verifier/runner.py") for part in process.info["cmdline"] or ())
    ]


# Each prints the right answer if, and only if, what it tries succeeds; none may pass.
HOSTILE = {
    "leaves before printing": ("import sys; sys.exit(0)", "wrong_output"),
    "leaves without flushing": ("import os\nprint(8)\nos._exit(0)", "wrong_output"),
    "prints and then fails": ("print(8); raise SystemExit(1)", "runtime_error"),
    "prints verdicts": ("print('PASSED AC 1.0')", "wrong_output"),
    "forks": ("import os\nos.fork()\nprint(8)", "runtime_error"),
    "forks through libc": ("import ctypes\nif ctypes.CDLL(None).fork() >= 0: print(8)", "wrong_output"),
    "starts a program": ("import subprocess\nsubprocess.run(['/bin/true'])\nprint(8)", "runtime_error"),
    "uses the shell": ("import os\nif os.system('true') == 0: print(8)", "wrong_output"),
    "replaces itself": ("import os\nos.execv('/bin/echo', ['echo', '8'])", "runtime_error"),
    "opens a TCP socket": ("import socket\nsocket.create_connection(('127.0.0.1', 22))\nprint(8)", "runtime_error"),
    "opens a UDP socket": ("import socket\nsocket.socket(type=socket.SOCK_DGRAM)\nprint(8)", "runtime_error"),
    "opens a UNIX socket": ("import socket\nsocket.socket(socket.AF_UNIX)\nprint(8)", "runtime_error"),
    "opens a netlink socket": ("import socket\nsocket.socket(16, 3)\nprint(8)", "runtime_error"),
    "kills its parent": ("import os\nos.kill(os.getppid(), 9)\nprint(8)", "runtime_error"),
    "kills its group": ("import os\nos.kill(0, 9)\nprint(8)", "runtime_error"),
    "kills everybody": ("import os\nos.kill(-1, 9)\nprint(8)", "runtime_error"),
    "aborts": ("import os\nos.abort()", "runtime_error"),
    "reads a null pointer": ("import ctypes\nctypes.string_at(0)", "runtime_error"),
    "loops": ("while True: pass", "cpu_limit"),
    "loops behind ignored signals": (
        "import signal\nfor s in (24, 14, 15): signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
        "cpu_limit",
    ),
    "loops in C": ("sum(range(10**12))", "cpu_limit"),
    "sleeps": ("import time\ntime.sleep(1000)", "wall_limit"),
    "stops itself": ("import os\nos.kill(os.getpid(), 19)", "wall_limit"),
    "takes memory": ("a = bytearray(2**31)", "memory_limit"),
    "takes memory bit by bit": ("a = []\nwhile True: a.append(bytearray(2**24))", "memory_limit"),
    "takes memory beside the heap": ("import os\nos.memfd_create('x')\nprint(8)", "runtime_error"),
    "floods stdout": ("while True: print('x' * 10000)", "output_limit"),
    "floods stderr": ("import sys\nwhile True: print('x' * 10000, file=sys.stderr)", "output_limit"),
    "writes a file": ("open('/tmp/prime-escape', 'w').write('x')\nprint(8)", "runtime_error"),
    "writes shared memory": ("open('/dev/shm/prime-escape', 'w')\nprint(8)", "runtime_error"),
    "makes a folder": ("import os\nos.mkdir('/tmp/prime-escape')\nprint(8)", "runtime_error"),
    "changes a file's mode": ("import os\nos.chmod('/tmp', 0o777)\nprint(8)", "runtime_error"),
    "reads passwords": ("open('/etc/passwd').read()\nprint(8)", "runtime_error"),
    "lists the root": ("import os\nos.listdir('/')\nprint(8)", "runtime_error"),
    "reads a process's environment": ("open('/proc/1/environ', 'rb').read()\nprint(8)", "runtime_error"),
    "reads the service's memory": ("import os\nopen(f'/proc/{os.getppid()}/mem', 'rb')\nprint(8)", "runtime_error"),
    "finds a token in its environment": ("import os\nif 'PRIME_TOKEN' in os.environ: print(8)", "wrong_output"),
    "traces its parent": (
        "import ctypes, os\nif ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0: print(8)",
        "wrong_output",
    ),
    "reads its parent's memory": (
        "import ctypes, os\nif ctypes.CDLL(None).syscall(310, os.getppid(), 0, 0, 0, 0, 0) == 0: print(8)",
        "wrong_output",
    ),
    "makes a user namespace": (
        "import ctypes\nif ctypes.CDLL(None).unshare(0x10000000) == 0: print(8)",
        "wrong_output",
    ),
    "uses the keyring": ("import ctypes\nif ctypes.CDLL(None).syscall(250, 0, -3, 0) >= 0: print(8)", "wrong_output"),
    "uses io_uring": ("import ctypes\nif ctypes.CDLL(None).syscall(425, 8, 0) >= 0: print(8)", "wrong_output"),
    "loads a BPF program": ("import ctypes\nif ctypes.CDLL(None).syscall(321, 0, 0, 0) >= 0: print(8)", "wrong_output"),
    "calls the x32 kernel": ("import ctypes\nctypes.CDLL(None).syscall(0x40000000 + 39)\nprint(8)", "policy"),
    "raises its limits": (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))\nprint(8)",
        "runtime_error",
    ),
    "lowers its own time": (
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (0, 0))\nprint(8)",
        "runtime_error",
    ),
    "becomes root": ("import os\nos.setuid(0)\nprint(8)", "runtime_error"),
    "starts threads without end": (
        "import threading, time\nthreading.stack_size(65536)\n"
        "for _ in range(500): threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\nprint(8)",
        "runtime_error",
    ),
    "uses up descriptors": ("import os\nwhile True: os.pipe()", "runtime_error"),
    "closes its pipes": (
        "import os\nfor d in range(3, 64):\n try: os.write(d, b'value 8')\n except OSError: pass",
        "wrong_output",
    ),
    "walks the frames for the answer": (
        "import sys\nframe = sys._getframe()\nseen = ''\n"
        "while frame: seen += repr(frame.f_globals) + repr(frame.f_locals); frame = frame.f_back\n"
        "if 'out' + 'puts' in seen or 'expec' + 'ted' in seen: print(8)",
        "wrong_output",
    ),
    "searches memory for the answer": (
        "import gc\nif any(isinstance(o, dict) and 'outputs' in o for o in gc.get_objects()): print(8)",
        "wrong_output",
    ),
    "reads past the end": ("input(); input()", "runtime_error"),
    "nests too deep to compile": ("(" * 100_000, "runtime_error"),
    "folds constants at compile time": ("x = ((1 << 10**10) << 10**10)", "memory_limit"),
    "holds null bytes": ("print(8)\0", "runtime_error"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_program_gains_nothing_and_leaves_nothing(grader: Grader, name: str) -> None:
    program, reason = HOSTILE[name]
    verdict = await grade_script(grader, program)
    assert verdict.status is VerdictStatus.FAILED
    assert verdict.reason == f"{reason}:0"
    assert verdict.score == 0.0
    assert strays() == []
    assert not Path("/tmp/prime-escape").exists()
    assert not Path("/dev/shm/prime-escape").exists()


HOSTILE_CALLS = {
    "object equal to everything": (
        "class Yes:\n  def __eq__(self, other): return True\ndef solve(a): return Yes()",
        "unsupported_result",
    ),
    "integer equal to everything": (
        "class Yes(int):\n  def __eq__(self, other): return True\ndef solve(a): return Yes(1)",
        "unsupported_result",
    ),
    "list that lies about its items": (
        "class Yes(list):\n  def __iter__(self): return iter([8])\ndef solve(a): return Yes()",
        "unsupported_result",
    ),
    "dictionary with odd keys": ("def solve(a): return {(1, 2): 3}", "unsupported_result"),
    "cycle": ("def solve(a):\n  b = []; b.append(b); return b", "unsupported_result"),
    "not a number": ("def solve(a): return float('nan')", "wrong_output"),
    "text without end": ("def solve(a): return 'x' * 2**22", "output_limit"),
    "leaves before returning": ("import os\ndef solve(a): os._exit(0)", "runtime_error"),
    "raises": ("def solve(a): raise ValueError", "runtime_error"),
    "no such function": ("def other(a): return 8", "runtime_error"),
    "patched encoder": (
        "import json\njson.JSONEncoder.encode = lambda self, o: 'PASSED'\ndef solve(a): return 8.5",
        "wrong_output",
    ),
    "two values on the pipe": (
        "import os\ndef solve(a):\n  for d in range(3, 64):\n    try: os.write(d, b'value 8')\n"
        "    except OSError: pass\n  return 8",
        "unsupported_result",
    ),
}


@pytest.mark.parametrize("name", HOSTILE_CALLS)
async def test_a_hostile_function_gains_nothing(grader: Grader, name: str) -> None:
    program, reason = HOSTILE_CALLS[name]
    verdict = await grade_call(grader, program, [3], 8)
    assert (verdict.status, verdict.reason) == (VerdictStatus.FAILED, f"{reason}:0")


_SUM = "print(sum(map(int, {read}.split())))"
HONEST = {
    "input": _SUM.format(read="input()"),
    "sys.stdin.read": "import sys\n" + _SUM.format(read="sys.stdin.read()"),
    "sys.stdin.buffer.readline": "import sys\n" + _SUM.format(read="sys.stdin.buffer.readline()"),
    "iteration over stdin": "import sys\nfor line in sys.stdin: " + _SUM.format(read="line"),
    "os.read": "import os\n" + _SUM.format(read="os.read(0, 100)"),
    "open(0)": _SUM.format(read="open(0).read()"),
    "open('/dev/stdin')": _SUM.format(read="open('/dev/stdin').read()"),
    "sys.stdout.buffer.write": "import sys\ninput()\nsys.stdout.buffer.write(b'8')",
    "no newline at the end": "import sys\nsys.stdout.write('8')",
    "blanks at the end": "print('8  ')\nprint()",
    "a top-level global": "total = 0\ndef add(n):\n  global total\n  total += n\nadd(3); add(5)\nprint(total)",
    "a main guard": "def main(): print(8)\nif __name__ == '__main__': main()",
    "exit at the end": "print(8)\nexit()",
    "sys.exit at the end": "import sys\nprint(8)\nsys.exit()",
    "four threads": (
        "import threading\nout = []\nts = [threading.Thread(target=out.append, args=(2,)) for _ in range(4)]\n"
        "[t.start() for t in ts]; [t.join() for t in ts]\nprint(sum(out))"
    ),
    "a thread with a large stack": (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(256 * 2**20)\n"
        "def f(n): return 8 if n == 0 else f(n - 1)\n"
        "t = threading.Thread(target=lambda: print(f(50000)))\nt.start(); t.join()"
    ),
    "deep recursion through a cache": (
        "import sys, functools\nsys.setrecursionlimit(10**6)\n@functools.lru_cache(None)\n"
        "def f(n): return 8 if n == 0 else f(n - 1)\nprint(f(20000))"
    ),
    "a raised stack limit": (
        "import resource\nresource.setrlimit(resource.RLIMIT_STACK, (2**28, resource.RLIM_INFINITY))\nprint(8)"
    ),
    "math star import": "from math import *\nprint(int(sqrt(64)))",
    "decimals and fractions": "from decimal import Decimal as D\nfrom fractions import Fraction\nprint(D(3) + D(5))",
    "seeded random": "import random\nrandom.seed(1)\nrandom.random()\nprint(8)",
    "unused multiprocessing": "import multiprocessing, signal, resource, subprocess\nprint(8)",
    "environment reads": "import os\nprint(8 if os.environ.get('LOCAL') is None else 0)",
    "os.devnull": "import os, sys\nsys.stderr = open(os.devnull, 'w')\nprint(8)",
    "a long integer": "print(8 if len(str(10**10000)) == 10001 else 0)",
    "carriage returns in the program": "n = 8\r\nprint(n)\r",
    "a caught exception": "try:\n  1 / 0\nexcept ZeroDivisionError:\n  print(8)",
}


@pytest.mark.parametrize("name", HONEST)
async def test_an_honest_program_passes(grader: Grader, name: str) -> None:
    verdict = await grade_script(grader, HONEST[name])
    assert (verdict.status, verdict.reason, verdict.score) == (VerdictStatus.PASSED, "all_tests", 1.0)


async def test_a_large_input_and_a_large_output_pass(sandbox: Sandbox, grader: Grader) -> None:
    given = "1\n" * 200_000
    source = "import sys\ndata = sys.stdin.read().split()\nprint(len(data))\nprint('x' * 900_000)"
    assert (await grade_script(grader, source, given, "200000\n" + "x" * 900_000)).score == 1.0


HONEST_CALLS: dict[str, tuple[str, list[object], object]] = {
    "bare function": ("def solve(a, b): return a + b", [3, 5], 8),
    "class Solution": ("class Solution:\n  def solve(self, a: List[int]) -> int: return sum(a)", [[3, 5]], 8),
    "prints on the way": ("def solve(a):\n  print('debug', a)\n  return a", [8], 8),
    "tuple for a list": ("def solve(a): return (a, a)", [1], [1, 1]),
    "preset names": (
        "def solve(a): return sorted(Counter(a).values()) + [gcd(4, 6), math.floor(2.5)]",
        ["aab"],
        [1, 2, 2, 2],
    ),
    "modular power": ("def solve(a): return pow(a, 3, 5)", [2], 3),
    "own name over a preset": ("def gcd(a, b): return 8\ndef solve(a): return gcd(a, a)", [1], 8),
    "integer keys": ("def solve(a): return {a: True}", [1], {"1": True}),
    "float within tolerance": ("def solve(a): return a / 3", [1], 0.3333333),
    "text": ("def solve(a): return a * 2", ["ab"], "abab"),
    "digits as text": ("def solve(a): return a", ["12"], "12"),
    "JSON text expected": ("def solve(a): return [a]", [1], "[1]"),
    "expected in a list of one": ("def solve(a): return a", [8], [8]),
}


@pytest.mark.parametrize("name", HONEST_CALLS)
async def test_an_honest_function_passes(grader: Grader, name: str) -> None:
    program, arguments, expected = HONEST_CALLS[name]
    verdict = await grade_call(grader, program, arguments, expected)
    assert (verdict.status, verdict.reason) == (VerdictStatus.PASSED, "all_tests")


async def test_the_score_is_the_share_of_tests_passed_and_the_reason_names_the_first_that_failed(
    grader: Grader,
) -> None:
    tests = {"inputs": ["1\n", "2\n", "3\n", "4\n"], "outputs": ["1\n", "2\n", "3\n", "5\n"]}
    (verdict,) = await grader.grade([item("print(input())", tests)])
    assert (verdict.status, verdict.score, verdict.reason) == (VerdictStatus.FAILED, 0.75, "wrong_output:3")


async def test_a_program_that_uses_up_its_time_over_all_tests_keeps_what_it_passed(sandbox: Sandbox) -> None:
    settings = SETTINGS.model_copy(update={"program_seconds": 0.01})
    grader = Grader(settings, sandbox, MathPool(1, 5.0), Meters())
    tests = {"inputs": ["8"] * 4, "outputs": ["8"] * 4}
    (verdict,) = await grader.grade([item("print(input())", tests)])
    assert (verdict.status, verdict.score, verdict.reason) == (VerdictStatus.FAILED, 0.25, "program_limit:1")


def test_the_settings_are_these() -> None:
    assert sorted(VerifierSettings.model_fields) == [
        "cpu_seconds",
        "grace_seconds",
        "listen",
        "math_seconds",
        "max_queue",
        "max_tests",
        "memory_mib",
        "ops_listen",
        "output_kib",
        "program_seconds",
        "wall_seconds",
        "workers",
    ]


async def test_a_response_without_a_complete_program_fails(grader: Grader) -> None:
    for response in ("print(8)", "```python\nprint(8)", "```cpp\nint main;\n```", "<think>\n```python\nprint(8)\n```"):
        asked = GradeItem(
            item_id="x",
            data_source="apps",
            ability="code",
            response=response,
            ground_truth=json.dumps({"inputs": [""], "outputs": ["8"]}),
        )
        (verdict,) = await grader.grade([asked])
        assert (verdict.status, verdict.reason) == (VerdictStatus.FAILED, "no_code")


MALFORMED = {
    "no JSON": "{",
    "a list": "[]",
    "no outputs": '{"inputs": ["1"]}',
    "unequal lists": '{"inputs": ["1", "2"], "outputs": ["1"]}',
    "no test": '{"inputs": [], "outputs": []}',
    "null output": '{"inputs": ["1"], "outputs": [null]}',
    "null output of a call": '{"fn_name": "f", "inputs": [[1]], "outputs": [null]}',
    "arguments that are no list": '{"fn_name": "f", "inputs": [1], "outputs": [1]}',
    "a function name that is none": '{"fn_name": "f()", "inputs": [[1]], "outputs": [1]}',
    "number as input": '{"inputs": [1], "outputs": ["1"]}',
    "too many tests": json.dumps({"inputs": ["1"] * 201, "outputs": ["1"] * 201}),
    "too deep": '{"inputs": ["1"], "outputs": ' + "[" * 5000 + "]" * 5000 + "}",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_an_unusable_ground_truth_is_refused_and_never_a_zero(grader: Grader, name: str) -> None:
    asked = GradeItem(
        item_id="torn", data_source="apps", ability="code", response="```\nprint(1)\n```", ground_truth=MALFORMED[name]
    )
    with pytest.raises(InvalidInput, match="item 'torn'"):
        await grader.grade([asked])


async def test_an_item_without_a_grader_is_refused_by_name(grader: Grader) -> None:
    asked = GradeItem(item_id="x", data_source="poems", ability="writing", response="", ground_truth="1")
    with pytest.raises(InvalidInput, match=r"poems.*writing"):
        await grader.grade([asked])


async def test_a_full_queue_turns_calls_away_and_takes_them_again_later(grader: Grader) -> None:
    slow = item("import time; time.sleep(0.3)", {"inputs": [""], "outputs": [""]})
    first = asyncio.ensure_future(grader.grade([slow] * 8))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await grader.grade([slow])
    assert [verdict.score for verdict in await first] == [1.0] * 8
    assert len(await grader.grade([slow])) == 1
    with pytest.raises(InvalidInput, match="split the call"):
        await grader.grade([slow] * 9)


async def test_many_children_at_once_do_not_disturb_each_other(grader: Grader) -> None:
    mixed = [
        item(source, {"inputs": ["3 5"], "outputs": ["8"]})
        for source in ("print(8)", "a = bytearray(2**31)", "import os; os.kill(-1, 9)", HONEST["four threads"]) * 2
    ]
    verdicts = await grader.grade(mixed)
    assert [verdict.score for verdict in verdicts] == [1.0, 0.0, 0.0, 1.0] * 2
    assert strays() == []


async def test_a_killed_child_says_nothing_about_the_program(sandbox: Sandbox, grader: Grader) -> None:
    running = asyncio.ensure_future(grade_script(grader, "import time; time.sleep(60)"))
    killed = 0
    while not running.done():
        for process in strays():
            # Locked up already, so that it counts as killed under way; the grader tries twice.
            process.kill()
            killed += 1
        await asyncio.sleep(0.05)
    verdict = await running
    assert killed >= 2
    assert (verdict.status, verdict.score, verdict.reason) == (VerdictStatus.UNDECIDED, None, "sandbox_failed")
    assert (await grade_script(grader, "print(8)")).score == 1.0


async def test_programs_do_not_see_what_others_left_behind(sandbox: Sandbox) -> None:
    limits = Limits(cpu_seconds=1, wall_seconds=4.0, memory_mib=512, output_kib=64)
    await sandbox.run(b"import heapq, builtins\nbuiltins.mark = heapq.mark = 1", b"", limits)
    execution = await sandbox.run(
        b"import heapq, builtins\nprint(hasattr(builtins, 'mark'), hasattr(heapq, 'mark'))", b"", limits
    )
    assert (execution.outcome, execution.stdout) == (Outcome.OK, b"False False\n")


class LeakySandbox(Sandbox):
    """A sandbox in which one canary gets out."""

    async def run(self, program: bytes, stdin: bytes, limits: Limits, call: Call | None = None) -> Execution:
        execution = await super().run(program, stdin, limits, call)
        return dataclasses.replace(execution, stdout=b"escaped\n") if b"socket" in program else execution


class StrictSandbox(Sandbox):
    """A sandbox that holds everything back, honest work too."""

    async def run(self, program: bytes, stdin: bytes, limits: Limits, call: Call | None = None) -> Execution:
        return await super().run(b"raise OSError", stdin, limits, call)


@pytest.mark.parametrize(("kind", "said"), [(LeakySandbox, "socket.*seccomp"), (StrictSandbox, "honest")])
async def test_the_service_does_not_start_on_a_sandbox_that_leaks_or_holds_everything(
    kind: type[Sandbox], said: str
) -> None:
    broken, pool = kind(2), MathPool(1, 20.0)
    with pytest.raises(SandboxError, match=said):
        await canaries.check(broken, pool)
    broken.close()
    pool.close()


JAIL_REFUSALS = {
    "a second thread": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(5,), daemon=True).start()\nidentity = 65534",
        "more than one thread",
    ),
    "root as the user to become": ("identity = 0", "unprivileged|capabilities"),
    "a kernel without Landlock": ("jail._LANDLOCK_MINIMUM = 99\nidentity = 65534", "landlock: ABI 99 is needed"),
    "a foreign machine": ("jail._MACHINE = 'riscv64'\nidentity = 65534", "no table of system calls"),
}


@pytest.mark.parametrize("name", JAIL_REFUSALS)
def test_the_jail_refuses_where_a_layer_is_missing(name: str) -> None:
    preparation, said = JAIL_REFUSALS[name]
    program = (
        f"import sys; sys.path.insert(0, {str(Path(jail.__file__).parent)!r}); import jail\n{preparation}\n"
        "try: print(jail.enter(identity=identity, cpu_seconds=1, memory_mib=512, threads=4))\n"
        "except jail.JailError as error: print('refused:', error)\n"
    )
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=False)
    assert re.search(said, done.stdout), done


async def test_the_canaries_prove_the_sandbox_and_name_its_layers(sandbox: Sandbox) -> None:
    pool = MathPool(1, 20.0)
    layers = await canaries.check(sandbox, pool)
    pool.close()
    assert {layer.partition(":")[0] for layer in layers} >= set(canaries.REQUIRED_LAYERS)
