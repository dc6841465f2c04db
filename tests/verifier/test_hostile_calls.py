"""Functions that lie about what they return, and assertions that are tampered with."""

import pytest

from services.verifier.programs.checkers import same_value
from tests.verifier.judge import AC, CALL, CE, MLE, OLE, QUICK, RE, TLE, WA, Case, Judge, names

pytestmark = pytest.mark.asyncio(loop_scope="session")

CALLS = [
    Case(
        row=4,
        tries="returns an object equal to everything",
        program="class Yes:\n  def __eq__(self, other): return True\ndef solve(a, b): return Yes()",
        verdict=RE,
    ),
    Case(
        row=5,
        tries="returns an integer equal to everything",
        program="class Yes(int):\n  def __eq__(self, other): return True\ndef solve(a, b): return Yes(1)",
        verdict=RE,
    ),
    Case(
        row=5,
        tries="returns a text equal to everything",
        program="class Yes(str):\n  def __eq__(self, other): return True\ndef solve(a, b): return Yes('8')",
        verdict=RE,
    ),
    Case(
        row=6,
        tries="returns a list that lies about its items",
        program="class Yes(list):\n  def __iter__(self): return iter([8])\ndef solve(a, b): return Yes()",
        verdict=RE,
    ),
    Case(
        row=6,
        tries="returns a dictionary that lies about its items",
        program="class Yes(dict):\n  def items(self): return [('a', 8)]\ndef solve(a, b): return Yes()",
        verdict=RE,
    ),
    Case(
        row=9,
        tries="replaces the encoder",
        program="import json\njson.JSONEncoder.encode = lambda self, o: '8'\njson.dumps = json.encoder = None\n"
        "def solve(a, b): return 9",
        verdict=WA,
    ),
    Case(
        row=9,
        tries="replaces what values are checked with",
        program="import builtins\nbuiltins.type = lambda v: int\nbuiltins.isinstance = lambda *a: True\n"
        "class Yes:\n  def __eq__(self, other): return True\ndef solve(a, b): return Yes()",
        verdict=RE,
    ),
    Case(
        row=10,
        tries="leaves from within the function",
        program="import os\ndef solve(a, b): os._exit(0)",
        verdict=RE,
    ),
    Case(row=10, tries="leaves before the function", program="import sys\nsys.exit(0)", verdict=RE),
    Case(
        row=11,
        tries="puts a second value on the descriptor",
        program="import os\ndef solve(a, b):\n  os.write(3, b'value 8')\n  return 8",
        verdict=RE,
    ),
    Case(
        row=11,
        tries="puts a verdict on every descriptor",
        program="import os\ndef solve(a, b):\n  for d in range(64):\n"
        "    try: os.write(d, b'passed')\n    except OSError: pass\n  os._exit(0)",
        verdict=RE,
    ),
    Case(
        row=53,
        tries="nests its value deep",
        program="def solve(a, b):\n  v = []\n  for _ in range(10**5): v = [v]\n  return v",
        verdict=RE,
    ),
    Case(
        row=53,
        tries="writes a deep value by hand",
        program="import os\ndef solve(a, b):\n  os.write(3, b'value ' + b'[' * 30000)\n  os._exit(0)",
        verdict=RE,
    ),
    Case(
        row=53,
        tries="writes bytes that are no text",
        program="import os\ndef solve(a, b):\n  os.write(3, b'value \\xff\\xfe8')\n  os._exit(0)",
        verdict=RE,
    ),
    Case(
        row=53,
        tries="writes a pickle",
        program="import os, pickle\ndef solve(a, b):\n  os.write(3, b'value ' + pickle.dumps(8))\n  os._exit(0)",
        verdict=RE,
    ),
    Case(row=53, tries="returns a long integer", program="def solve(a, b): return 10**50000", verdict=WA),
    Case(row=53, tries="returns no number", program="def solve(a, b): return float('nan')", verdict=WA),
    Case(row=53, tries="returns infinity", program="def solve(a, b): return float('inf')", verdict=WA),
    Case(row=53, tries="returns a set", program="def solve(a, b): return {8}", verdict=RE),
    Case(row=53, tries="returns odd keys", program="def solve(a, b): return {(1, 2): 8}", verdict=RE),
    Case(
        row=54,
        tries="returns a cycle",
        program="def solve(a, b):\n  v = []\n  v.append(v)\n  return v",
        verdict=RE,
    ),
    Case(row=54, tries="returns an endless text", program="def solve(a, b): return 'x' * 2**30", verdict=(MLE, RE)),
    Case(row=54, tries="returns a long text", program="def solve(a, b): return 'x' * (9 * 2**20)", verdict=(OLE, MLE)),
    Case(
        row=54,
        tries="returns without end",
        program="def solve(a, b):\n  while True: pass",
        verdict=TLE,
        tests=QUICK,
    ),
    Case(
        row=54,
        tries="returns itself many times over",
        program="def solve(a, b):\n  v = [0] * 10\n  for _ in range(30): v = [v] * 10\n  return v",
        verdict=(MLE, TLE),
        tests=QUICK,
    ),
    Case(
        row=55,
        tries="prints while it works",
        program="print('loading')\ndef solve(a, b):\n  print('value 9', a, b)\n  return a + b",
        verdict=AC,
    ),
    Case(row=0, tries="raises", program="def solve(a, b): raise ValueError", verdict=RE),
    Case(row=0, tries="has another name", program="def other(a, b): return 8", verdict=RE),
    Case(row=0, tries="takes other arguments", program="def solve(a): return 8", verdict=RE),
]


@pytest.mark.parametrize("case", CALLS, ids=names(CALLS))
async def test_a_function_is_judged_by_the_plain_value_that_it_returns(judge: Judge, case: Case) -> None:
    tests = {**CALL, **case.tests}
    await judge.expect(Case(row=case.row, tries=case.tries, program=case.program, verdict=case.verdict, tests=tests))


async def test_what_a_function_is_given_says_nothing_about_what_is_expected(judge: Judge) -> None:
    look = (
        "import gc\ndef solve(a, b):\n  return [o for o in gc.get_objects() if isinstance(o, dict) and 'outputs' in o]"
    )
    found = await judge.grade(look, {**CALL, "outputs": [[]]})
    assert found.tests[0].verdict is AC


ASSERTIONS = [
    Case(row=13, tries="leaves before the assertions", program="import sys\nsys.exit(0)", verdict=RE),
    Case(row=13, tries="leaves from within", program="import os\ndef solve(a, b): os._exit(0)", verdict=RE),
    Case(row=13, tries="prints success", program="print('passed')\ndef solve(a, b): return 9", verdict=RE),
    Case(row=13, tries="decorates what follows", program="def solve(a, b): return 9\n@lambda f: f", verdict=CE),
    Case(row=13, tries="ends in an open text", program='def solve(a, b): return 9\n"""', verdict=CE),
    Case(row=13, tries="defines its own check", program="def check(*a): pass\nsolve = lambda a, b: 9", verdict=RE),
    Case(
        row=14,
        tries="replaces what assertions raise",
        program="import builtins\nclass AssertionError(Exception): pass\nbuiltins.AssertionError = AssertionError\n"
        "def solve(a, b): return 9",
        verdict=RE,
    ),
    Case(
        row=14,
        tries="replaces unittest",
        program="import sys, types\nsys.modules['unittest'] = types.ModuleType('unittest')\ndef solve(a, b): return 9",
        verdict=RE,
    ),
    Case(
        row=14,
        tries="swallows what assertions raise",
        program="import sys\nsys.excepthook = lambda *a: None\ndef solve(a, b): return 9",
        verdict=RE,
    ),
]


@pytest.mark.parametrize("case", ASSERTIONS, ids=names(ASSERTIONS))
async def test_assertions_are_a_unit_of_their_own_that_must_be_reached_and_hold(judge: Judge, case: Case) -> None:
    tests: dict[str, object] = {"assertions": ["assert solve(3, 5) == 8"]}
    await judge.expect(Case(row=case.row, tries=case.tries, program=case.program, verdict=case.verdict, tests=tests))


async def test_a_verdict_by_assertions_is_labelled(judge: Judge) -> None:
    found = await judge.grade("def solve(a, b): return a + b", {"assertions": ["assert solve(3, 5) == 8"]})
    assert (found.score, found.method) == (1.0, "code:assert")


@pytest.mark.parametrize(
    "returned", [b"[" * 100_000, b"9" * 50_000, b"NaN", b'{"a":' * 300 + b"1" + b"}" * 300, b"\xff"]
)
async def test_the_decoder_of_values_survives_anything(returned: bytes) -> None:
    assert same_value(returned, 8) in (False, None)
