"""Assertions are held in a process where the program has never been. In both directions, in both tiers."""

import pytest

from prime.errors import InvalidInput
from services.verifier.programs.assertions import read_assertions
from tests.verifier.judge import ILE, QUICK, RE, TLE, Judge, item_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

_CHECK = "def check(candidate):\n    assert candidate(3, 5) == 8\n    assert candidate([1], [2]) == [1, 2]\n"
_STACK = """
class Stack:
    def __init__(self, items=()): self.items = list(items)
    def push(self, item):
        self.items.append(item)
        return self
    def pop(self):
        if not self.items: raise Empty('empty')
        return self.items.pop()
    def __len__(self): return len(self.items)
    def __iter__(self): return iter(self.items)
    def __getitem__(self, i): return self.items[i]
    def __contains__(self, item): return item in self.items
    def __eq__(self, other): return isinstance(other, Stack) and self.items == other.items
    def __add__(self, other): return Stack(self.items + other.items)
    def __str__(self): return f'Stack({self.items})'
    def __enter__(self): return self
    def __exit__(self, *_): self.items.clear()
    @property
    def top(self): return self.items[-1]
class Empty(IndexError): pass
def make(*items): return Stack(items)
"""
_ADD = "def add(a, b): return a + b"

HOLDS: dict[str, tuple[str, str]] = {
    "a value": (_ADD, "assert add(3, 5) == 8"),
    "a truth": ("def f(a): return a > 0", "assert f(1) is True\nassert not f(0)\nassert f(2) == True"),
    "a message": (_ADD, "assert add(3, 5) == 8, 'sum'"),
    "a tuple": ("def f(a): return (a, [a])", "assert f(1) == (1, [1])\nassert type(f(1)) is tuple"),
    "a set": ("def f(a): return set(a)", "assert f([1, 1]) == {1}"),
    "a set of a list": ("def f(a): return a * 2", "assert set(f([1])) == set([1])"),
    "a sorted list": ("def f(a): return a[::-1]", "assert sorted(f([1, 2])) == [1, 2]"),
    "a dictionary with tuples for keys": ("def f(): return {(1, 2): 3}", "assert f() == {(1, 2): 3}"),
    "a Counter": ("from collections import Counter\ndef f(a): return Counter(a)", "assert f('aa') == {'a': 2}"),
    "bytes and complex numbers": ("def f(): return b'a', 1j", "assert f() == (b'a', 1j)"),
    "a range": ("def f(): return range(3)", "assert list(f()) == [0, 1, 2]\nassert f() == range(3)"),
    "a generator": ("def f():\n  yield from (1, 2)", "assert list(f()) == [1, 2]\nassert next(f()) == 1"),
    "a long integer": ("def f(): return 10**5000", "assert f() == 10**5000"),
    "None among others": ("def f(a): return a.get('x')", "assert f({}) is None\nassert f({'x': 1}) == 1"),
    "a tolerance": ("def f(a): return a / 3", "assert abs(f(1) - 0.3333) < 1e-3"),
    "math.isclose": ("def f(a): return a / 3", "import math\nassert math.isclose(f(1), 1 / 3)"),
    "math.isclose without an import": ("import math\ndef f(a): return a / 3", "assert math.isclose(f(1), 1 / 3)"),
    "a type": ("def f(a): return str(a)", "assert isinstance(f(1), str)"),
    "a loop": (_ADD, "for a in range(50):\n  assert add(a, 1) == a + 1"),
    "a random loop": (
        _ADD,
        "import random\nfor _ in range(9):\n  n = random.randint(0, 9)\n  assert add(n, 1) == n + 1",
    ),
    "a function of the test": (_ADD, "def double(n): return add(n, n)\nassert double(2) == 4"),
    "named arguments": (_ADD, "assert add(b=3, a=5) == 8"),
    "a constant of the program": ("LIMIT = 8\ndef f(): return LIMIT", "assert f() == LIMIT"),
    "HumanEval's check": (_ADD, _CHECK + "check(add)"),
    "an argument changed in place": (
        "def f(a, d): a.sort(); d['x'] = 1",
        "a, d = [2, 1], {}\nf(a, d)\nassert a == [1, 2]\nassert d == {'x': 1}",
    ),
    "an argument that is left alone": ("def f(a): return sorted(a)", "a = [2, 1]\nf(a)\nassert a == [2, 1]"),
    "an exception": (
        "def f(a):\n  if a < 0: raise ValueError('negative')\n  return a",
        "try:\n  f(-1)\n  assert False\nexcept ValueError as e:\n  assert str(e) == 'negative'\nassert f(1) == 1",
    ),
    "an exception of its own": (
        _STACK,
        "try:\n  Stack().pop()\n  assert False\nexcept Empty: pass\n"
        "try:\n  Stack().pop()\n  assert False\nexcept IndexError: pass",
    ),
    "a function for an argument": (
        "def f(g, a): return [g(x) for x in a]",
        "assert f(lambda x: x * 2, [1, 2]) == [2, 4]",
    ),
    "its own function for an argument": (
        "def g(x): return x * 2\ndef f(h, a): return h(a)",
        "assert f(g, 2) == 4\nassert f(lambda x: g(x) + 1, 2) == 5",
    ),
    "a function that is returned": ("def f(n):\n  return lambda x: x + n", "assert f(1)(2) == 3"),
    "an iterator for an argument": ("def f(a): return list(a)", "assert f(iter([1, 2])) == [1, 2]"),
    "a class": (_STACK, "s = Stack()\ns.push(1).push(2)\nassert s.pop() == 2\nassert len(s) == 1\nassert s.top == 1"),
    "what a class defines": (
        _STACK,
        "s = Stack([1, 2])\nassert list(s) == [1, 2] and s[0] == 1 and 2 in s and 3 not in s\n"
        "assert str(s) == 'Stack([1, 2])'\nassert s == Stack([1, 2]) and s != Stack()\n"
        "assert s + Stack([3]) == Stack([1, 2, 3])\nassert isinstance(s, Stack) and not isinstance(1, Stack)\n"
        "assert hasattr(s, 'top') and not hasattr(s, 'bottom')",
    ),
    "a class as a context": (_STACK, "with Stack([1]) as s:\n  assert len(s) == 1\nassert len(s) == 0"),
    "an attribute that is set": (_STACK, "s = Stack()\ns.items = [4]\nassert s.pop() == 4"),
    "LeetCode's class": (
        "class Solution:\n  def two(self, nums, target): return [0, 1]",
        "assert Solution().two([1, 2], 3) == [0, 1]",
    ),
    "LeetCode's class through a check": (
        "class Solution:\n  def two(self, nums, target): return [0, 1]",
        "def check(candidate):\n  assert candidate(nums=[1, 2], target=3) == [0, 1]\ncheck(Solution().two)",
    ),
    "a name of Python's own": ("def sum(a, b): return a + b", "assert sum(3, 5) == 8"),
    "a name of Python's own within others": ("def sum(a, b): return a + b", "assert abs(sum(3, 5) - 8) < 1e-9"),
    "a tree of its own": (
        "def insert(t, v): return sorted([*(t or []), v])\ndef search(t, v): return v in t",
        "t = insert(None, 5)\nassert search(t, 5)\nassert not search(t, 6)",
    ),
    "a class with the name of a flag": (
        "class A:\n  def __init__(self, x): self.x = x\ndef total(a): return sum(i.x for i in a)",
        "assert total([A(1), A(2)]) == 3",
    ),
    "two functions with preset names": (
        "def count(s, c): return s.count(c)\ndef index(s, c): return s.find(c)",
        "assert count('aab', 'a') == 2 and index('aab', 'z') == -1",
    ),
    "a helper with a preset name": ("def mean(a): return 1\ndef f(a): return 1", "assert f(1) == 1 and mean(2) == 1"),
    "a helper around the one that is asked": (
        "def compress(s): return s[0] + str(len(s))\ndef repeat(s): return s[0] * int(s[1:])",
        "assert repeat(compress('aaa')) == 'aaa'",
    ),
    "a library's name that the program imports": (
        "from collections import Counter\nfrom math import factorial\ndef f(a): return a",
        "assert Counter(f('aab')).most_common(1) == [('a', 2)] and f(factorial(3)) == 6",
    ),
    "a name of a star": ("def f(a): return a", "from math import *\nassert f(factorial(3)) == floor(6.5)"),
    "a type in a test's own function": (
        "def f(a): return a",
        "def g(x: List[int]) -> Any: return f(x)\nassert g(1) == 1",
    ),
    "numbers of numpy": (
        "import numpy as np\ndef f(a): return np.mean(a), np.all(np.array(a) > 0)",
        "mean, positive = f([1, 2])\nassert mean == 1.5 and positive is True and round(mean) == 2",
    ),
    "an array of numpy as a list": (
        "import numpy as np\ndef f(a): return np.array(a) * 2",
        "assert f([1, 2]) == [2, 4]",
    ),
    "an array of numpy that makes a list itself": (
        "import numpy as np\ndef f(a): return np.array(a) * 2",
        "assert f([1, 2]).tolist() == [2, 4] and f([1]).shape == (1,)",
    ),
    "an array of numpy": (
        "import numpy as np\ndef f(a): return np.array(a) * 2",
        "import numpy as np\nassert np.array_equal(f([1, 2]), [2, 4])\nassert f([1.5]).dtype == float",
    ),
    "an array of numpy that is handed over": (
        "def f(a): return a.sum() + a[0]",
        "import numpy as np\nassert f(np.array([[1, 2], [3, 4]]))[1] == 12",
    ),
    "a date": (
        "import datetime\ndef f(d): return d + datetime.timedelta(days=1)",
        "import datetime\nassert f(datetime.date(2020, 1, 31)) == datetime.date(2020, 2, 1)",
    ),
    "a time with its zone": (
        "def f(t): return t.replace(hour=5), t - t",
        "from datetime import *\nt = datetime(2020, 1, 1, tzinfo=timezone.utc)\n"
        "assert f(t) == (datetime(2020, 1, 1, 5, tzinfo=timezone.utc), timedelta(0))",
    ),
    "iterators that are handed over": (
        "def f(it): return list(it)",
        "assert f(enumerate('a')) == [(0, 'a')]\nassert f({1: 2}.values()) == [2]\n"
        "assert f(reversed([1, 2])) == [2, 1]",
    ),
    "isclose": ("def f(): return 1 / 3", "assert isclose(f(), 0.3333333333333)"),
    "a preset name": ("def gcd(a, b): return 99", "assert gcd(4, 6) == 99"),
    "a preset name given to a check": ("def search(a, b): return a + b", _CHECK + "check(search)"),
    "KodCode's tests": (
        _ADD,
        "from solution import add\ndef test_a():\n  assert add(1, 2) == 3\ndef test_b():\n  assert add(9, 9) > 9",
    ),
    "an import of the program": (_ADD, "import solution\nassert solution.add(1, 2) == 3"),
    "output on the way": ("def add(a, b):\n  print('passed')\n  return a + b", "assert add(3, 5) == 8"),
    "a hash of an object": (_STACK.replace("__eq__", "same"), "s = Stack()\nassert {s: 1}[s] == 1"),
}


@pytest.mark.parametrize("name", HOLDS)
async def test_assertions_that_hold_pass(judge: Judge, name: str) -> None:
    program, source = HOLDS[name]
    found = await judge.grade(program, {"assertions": [source]})
    assert (found.score, found.method) == (1.0, "code:assert")


_SAME = "class E:\n  def __eq__(s, o): return True\n"
FAILS: dict[str, tuple[str, str]] = {
    "another value": ("def add(a, b): return 9", "assert add(3, 5) == 8"),
    "no function": ("x = 1", "assert add(3, 5) == 8"),
    "a preset beside what it defines": ("def solve(a): return 1", "assert solve(1) == 1\nassert factorial(5) == 120"),
    "a preset of operators beside it": ("def add(a, b): return a + b", "assert add(1, 2) == 3\nassert mul(2, 3) == 6"),
    "a number of numpy that is equal to everything": (
        "import numpy as np\nclass Y(np.float64):\n  def __eq__(self, other): return True\ndef f(): return Y(9)",
        "assert f() == 8.0",
    ),
    "an array that says that it is another": (
        "import numpy as np\nclass Y(np.ndarray):\n  def tolist(self): return [8]\n"
        "def f(): return np.array([9]).view(Y)",
        "import numpy as np\nassert np.array_equal(f(), [8])",
    ),
    "another array": (
        "import numpy as np\ndef f(): return np.array([9])",
        "import numpy as np\nassert (f() == np.array([8])).all()",
    ),
    "another date": (
        "import datetime\nclass D(datetime.date):\n  def __eq__(self, o): return True\ndef f(): return D(2020, 1, 1)",
        "import datetime\nassert f() == datetime.date(2020, 1, 2)",
    ),
    "a preset around it": ("def f(a): return a", "assert factorial(f(3)) == 6"),
    "a preset in its place": ("x = 1", "assert gcd(4, 6) == 2"),
    "a list for a tuple": ("def f(): return [1]", "assert f() == (1,)"),
    "an exception": ("def add(a, b): raise AssertionError", "assert add(3, 5) == 8"),
    "an exception that is swallowed": ("def f(): raise KeyError", "try:\n  f()\nexcept ValueError: pass"),
    "no exception": ("def f(): pass", "try:\n  f()\n  raise TypeError\nexcept ValueError: pass"),
    "one of KodCode's tests": (
        "def add(a, b): return 3",
        "def test_a(): assert add(1, 2) == 3\ndef test_b(): assert add(2, 2) == 4",
    ),
    "an object equal to everything": (_SAME + "def add(a, b): return E()", "assert add(3, 5) == 8"),
    "an object equal to everything, the other way round": (
        _SAME + "def add(a, b): return E()",
        "assert 8 == add(3, 5)",
    ),
    "a list of objects equal to everything": (_SAME + "def f(): return [E()]", "assert f() == [8]"),
    "an integer equal to everything": (
        "class E(int):\n  def __eq__(s, o): return True\ndef add(a, b): return E(9)",
        "assert add(3, 5) == 8",
    ),
    "a list equal to everything": (
        "class E(list):\n  def __eq__(s, o): return True\ndef f(): return E()",
        "assert f() == [8]",
    ),
    "a class for a function": (
        "class add:\n  def __init__(s, a, b): pass\n  def __eq__(s, o): return True",
        "assert add(3, 5) == 8",
    ),
    "an object that is in everything": (
        _SAME + "  __hash__ = lambda s: hash(8)\ndef f(): return E()",
        "assert f() in {8, 9}",
    ),
    "an object that is in a list": (_SAME + "def f(): return E()", "assert f() in [8, 9]"),
    "an object that contains everything": (
        "class E:\n  def __contains__(s, o): return True\ndef f(): return E()",
        "assert 8 in f()",
    ),
    "an object that is never unequal": (
        _SAME + "  def __ne__(s, o): return False\ndef f(): return E()",
        "assert not f() != 8",
    ),
    "an object that is above everything": (
        "class E:\n  def __gt__(s, o): return True\ndef f(): return E()",
        "assert f() > 8",
    ),
    "an object that is below everything": (
        "class E:\n  def __gt__(s, o): return True\ndef f(): return E()",
        "assert 8 < f()",
    ),
    "an object that is near everything": (
        "class E:\n  def __sub__(s, o): return s\n  def __abs__(s): return s\n  def __lt__(s, o): return True\n"
        "def f(): return E()",
        "assert abs(f() - 2.5) < 1e-6",
    ),
    "an object whose difference is nothing": (
        "class E:\n  def __sub__(s, o): return 0\ndef f(): return E()",
        "assert abs(f() - 2.5) < 1e-6",
    ),
    "an object of a class whose difference is nothing": (
        "class Area:\n  def __init__(s, a): pass\n  def __sub__(s, o): return 0\n  def __eq__(s, o): return True",
        "assert abs(Area(2) - 2.5) < 1e-6",
    ),
    "an object of a class that is equal to everything": (
        "class Area:\n  def __init__(s, a): pass\n  def __eq__(s, o): return True",
        "assert Area(2) == 2.5",
    ),
    "two objects equal to everything": (_SAME + "def f(n): return E()", "assert f(1) == f(2)"),
    "a replaced abs": ("def abs(x): return 0\ndef f(): return 9", "assert abs(f() - 2.5) < 1e-6"),
    "a replaced set": ("def set(x): return 0\ndef f(): return [9]", "assert set(f()) == set([8])"),
    "a replaced isclose": ("def isclose(*a): return True\ndef f(): return 9", "assert isclose(f(), 2.5)"),
    "a replaced math": ("class math:\n  isclose = lambda *a: True\ndef f(): return 9", "assert math.isclose(f(), 2.5)"),
    "a replaced numpy": ("class np:\n  allclose = lambda *a: True\ndef f(): return 9", "assert np.allclose(f(), 2.5)"),
    "a replaced check": ("def check(*a): pass\ndef add(a, b): return 9", _CHECK + "check(add)"),
    "an early end": ("import os\nos._exit(0)", "assert add(3, 5) == 8"),
    "an early end within": ("import os\ndef add(a, b): os._exit(0)", "assert add(3, 5) == 8"),
    "an early end that a test does not mind": (
        "import os\ndef add(a, b): os._exit(0)",
        "try:\n  add(3, 5)\nexcept BaseException: pass",
    ),
    "SystemExit": ("def add(a, b): raise SystemExit(0)", "assert add(3, 5) == 8"),
    "a token from a descriptor": ("import os\nos.write(3, os.read(4, 64))\nos._exit(0)", "assert add(3, 5) == 8"),
    "a claim on every descriptor": (
        "import os\nfor d in range(64):\n  try: os.write(d, b'passed')\n  except OSError: pass\nos._exit(0)",
        "assert add(3, 5) == 8",
    ),
    "an answer before the question": (
        "import os, struct\nfor _ in range(9):\n  m = b'{\"value\": 9}'\n  os.write(4, struct.pack('!I', len(m)) + m)\n"
        "def add(a, b): return 9",
        "assert add(3, 5) == 8",
    ),
    "garbage for an answer": ("import os\nos.write(4, b'x' * 99)\ndef add(a, b): return 8", "assert add(3, 5) == 8"),
    "a long answer": ("import os\nos.write(4, b'\\xff' * 99)\ndef add(a, b): return 8", "assert add(3, 5) == 8"),
    "an exception that is none": (
        'import os, struct\nm = b\'{"raise": ["SystemExit", "", null, ""]}\'\n'
        "os.write(4, struct.pack('!I', len(m)) + m)\ndef add(a, b): return 8",
        "assert add(3, 5) == 8",
    ),
    "a look at the question": (
        "import gc, sys\ndef add(a, b):\n"
        "  return 8 if any('== 8' in o for o in gc.get_objects() if isinstance(o, str)) else 9",
        "assert add(3, 5) == 8",
    ),
    "a deep value": ("def f():\n  v = []\n  for _ in range(10**5): v = [v]\n  return v", "assert f() == []"),
    "a value without end": ("def f():\n  v = []\n  v.append(v)\n  return v", "assert f() == []"),
}


@pytest.mark.parametrize("name", FAILS)
async def test_assertions_that_do_not_hold_fail(judge: Judge, name: str) -> None:
    program, source = FAILS[name]
    found = await judge.grade(program, {"assertions": [source]})
    assert (found.score, found.tests[0].verdict) == (0.0, RE)
    await judge.is_as_before()


async def test_a_program_without_end_is_stopped(judge: Judge) -> None:
    found = await judge.grade("def f():\n  while True: pass", {"assertions": ["assert f() == 1"], **QUICK})
    assert found.tests[0].verdict in (TLE, ILE)  # whichever clock is first on a busy machine


async def test_the_function_of_a_problem_is_known_as_candidate(judge: Judge) -> None:
    for source in (_CHECK, "assert candidate(3, 5) == 8", "assert add(3, 5) == 8 == candidate(5, 3)"):
        tests: dict[str, object] = {"assertions": [source], "fn_name": "add"}
        assert (await judge.grade(_ADD, tests)).score == 1.0
        assert (await judge.grade("def add(a, b): return 9", tests)).score == 0.0


async def test_a_program_finds_nothing_of_earlier_assertions(judge: Judge) -> None:
    look = (
        "import gc\ndef f(a):\n  found = [o for o in gc.get_objects() if isinstance(o, dict) and 'source' in o]\n"
        "  return len(found)"
    )
    found = await judge.grade(look, {"assertions": ["assert f(1) == 0", "assert f('secret') == 0"]})
    assert found.score == 1.0


async def test_every_assertion_has_a_process_of_its_own(judge: Judge) -> None:
    program = "seen = []\ndef f(a):\n  seen.append(a)\n  return seen"
    found = await judge.grade(program, {"assertions": ["f(0)\nassert f(1) == [0, 1]", "assert f(2) == [2]"]})
    assert found.score == 1.0


REFUSED = {
    "nothing asked": (["assert True"], "asks nothing"),
    "only constants": (["assert 1 + 1 == 2"], "always holds|asks nothing"),
    "no Python": (["assert f(1) ="], "is no Python"),
    "a test that nothing calls": (["def helper():\n  assert f(1) == 2"], "always holds"),
    "None everywhere": (["assert f(1) is None", "assert f(2) == None"], "expect None"),
    "a check without a function": (["def check(candidate):\n  assert candidate(1) == 2"], "asks nothing"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_assertions_that_always_hold_are_refused(name: str) -> None:
    texts, said = REFUSED[name]
    with pytest.raises(InvalidInput, match=said):
        read_assertions(texts, "")


async def test_a_refused_assertion_costs_no_process(judge_b: Judge) -> None:
    with pytest.raises(InvalidInput, match="asks nothing"):
        judge_b.grader().parse(item_of(_ADD, {"assertions": ["pass"]}))
