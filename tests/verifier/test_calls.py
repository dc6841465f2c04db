"""What a called function is, what it is given and what it may return. In both directions, in both tiers."""

from typing import Any

import pytest

from tests.verifier.judge import AC, RE, WA, Judge

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def passes(judge: Judge, program: str, name: str, arguments: Any, expected: Any, **more: Any) -> bool:
    found = await judge.grade(program, {"fn_name": name, "inputs": [arguments], "outputs": [expected], **more})
    return found.score == 1.0


# ---------------------------------------------------------------- which function

_SEARCH = "class Solution:\n  def search(self, nums, t): return {body}"
DEFINED: dict[str, tuple[str, str, Any, Any]] = {
    "a method with a preset name": (
        "class Solution:\n  def merge(self, a): return sorted(a)",
        "merge",
        [[2, 1]],
        [1, 2],
    ),
    "a function with a preset name": ("def gcd(a, b): return 99", "gcd", [4, 6], 99),
    "a function with a name of Python's": ("def sum(a): return 99", "sum", [[1]], 99),
    "a method beside a helper of its name": (
        "def search(n, t, i): return n.index(t)\n" + _SEARCH.format(body="search(nums, t, 0)"),
        "search",
        [[4, 5], 5],
        1,
    ),
    "a method before a helper of its name": (
        _SEARCH.format(body="search(nums, t, 0)") + "\ndef search(n, t, i): return n.index(t)",
        "search",
        [[4, 5], 5],
        1,
    ),
    "a method that calls the preset of its name": (
        "import heapq\nclass Solution:\n  def merge(self, a, b): return list(merge(a, b))",
        "merge",
        [[1, 3], [2]],
        [1, 2, 3],
    ),
    "a helper with the name of a preset": (
        "def reduce(a): return 7\nclass Solution:\n  def f(self, a): return reduce(a)",
        "f",
        [1],
        7,
    ),
    "an imported function": ("from math import factorial", "factorial", [5], 120),
    "an assigned function": ("import math\nfactorial = math.factorial", "factorial", [5], 120),
    "a function within a guard": ("if __name__ == '__main__':\n  def f(a): return a", "f", [5], 5),
    "a function before reading in a guard": (
        "if __name__ == '__main__':\n  def f(a): return a\n  print(f(int(input())))",
        "f",
        [5],
        5,
    ),
    "an inherited method": ("class Base:\n  def f(self, a): return a\nclass Solution(Base): pass", "f", [5], 5),
    "a function beside a class without it": ("class Solution: pass\ndef f(a): return a", "f", [5], 5),
    "a class of another name beside it": ("class Node: pass\ndef f(a): return a", "f", [5], 5),
    "a callable object": ("class F:\n  def __call__(self, a): return a\nf = F()", "f", [5], 5),
    "a partial function": ("def g(a, b): return a + b\nf = partial(g, 1)", "f", [5], 6),
}


@pytest.mark.parametrize("name", DEFINED)
async def test_what_the_program_defines_is_called(judge: Judge, name: str) -> None:
    assert await passes(judge, *DEFINED[name])


UNDEFINED: dict[str, tuple[str, str, Any, Any]] = {
    "factorial": ("x = 1", "factorial", [5], 120),
    "a preset of LeetCode": ("x = 1", "xor", [1, 3], 2),
    "a preset that is merged": ("x = 1", "merge", [[1], [2]], [1, 2]),
    "a name of Python's": ("x = 1", "sum", [[1, 2]], 3),
    "a preset beside a class without it": ("class Solution: pass", "gcd", [4, 6], 2),
    "a preset beside a method of another name": ("class Solution:\n  def f(self): return 1", "gcd", [4, 6], 2),
    "a method of every object": ("class Solution: pass", "lcm", [4, 6], 12),
    "an import of the module alone": ("import math", "factorial", [5], 120),
    "a value of that name": ("factorial = 120", "factorial", [5], 120),
    "a local function": ("def g():\n  def f(a): return a", "f", [5], 5),
}


@pytest.mark.parametrize("name", UNDEFINED)
async def test_what_the_program_does_not_define_is_not_called(judge: Judge, name: str) -> None:
    assert not await passes(judge, *UNDEFINED[name])


# ---------------------------------------------------------------- what it finds

PRESET = {
    "xor": "reduce(xor, [2, 2, 7])",
    "copy.deepcopy": "copy.deepcopy([7])[0]",
    "deepcopy": "deepcopy([7])[0]",
    "operator.add": "operator.add(3, 4)",
    "itemgetter": "itemgetter(0)([7])",
    "datetime": "datetime.date(2020, 1, 7).day",
    "timedelta": "timedelta(days=7).days",
    "bisect.bisect_left": "bisect.bisect_left([1, 2], 3) + 5",
    "bisect_left": "bisect_left([1, 2], 3) + 5",
    "heapq.heappop": "heapq.heappop([7])",
    "heappop": "heappop([7])",
    "collections.Counter": "collections.Counter('a' * 7)['a']",
    "Counter": "Counter('a' * 7)['a']",
    "defaultdict": "defaultdict(lambda: 7)[0]",
    "math.inf": "7 if math.inf > 1 else 0",
    "inf": "7 if inf > 1 else 0",
    "ceil": "ceil(6.5)",
    "a modular power": "pow(7, 1, 10)",
    "re.findall": "int(re.findall('[0-9]', 'a7')[0])",
    "string.ascii_lowercase": "string.ascii_lowercase.index('h')",
    "ascii_lowercase": "ascii_lowercase.index('h')",
    "random.choice": "random.choice([7])",
    "statistics.mean": "int(statistics.mean([7, 7]))",
    "accumulate": "list(accumulate([3, 4]))[-1]",
    "cache": "cache(lambda: 7)()",
    "cmp_to_key": "sorted([7], key=cmp_to_key(lambda a, b: 0))[0]",
    "json.loads": "json.loads('7')",
    "sys.maxsize": "7 if sys.maxsize > 1 else 0",
    "dataclass": "dataclass(type('A', (), {'__annotations__': {'n': int}}))(7).n",
    "Optional": "7 if Optional[int] else 0",
    "ListNode": "ListNode(7).val",
    "TreeNode": "TreeNode(7, TreeNode(1)).val",
    "np": "int(np.array([3, 4]).sum())",
    "numpy": "int(numpy.array([3, 4]).sum())",
    "Queue": "7 + Queue().qsize()",
    "PriorityQueue": "7 + PriorityQueue().qsize()",
    "Fraction": "int(Fraction(7, 2) * 2)",
    "Decimal": "int(Decimal('3.5') * 2)",
    "os.path": "7 if os.path.basename('a/b') == 'b' else 0",
    "threading": "7 if threading.Lock() else 0",
    "perf_counter": "7 if perf_counter() > 0 and time.time() > 0 else 0",
    "getrecursionlimit": "7 if getrecursionlimit() > 1000 and argv else 0",
    "Enum": "Enum('E', {'A': 7}).A.value",
    "sortedcontainers": "sortedcontainers.SortedList([8, 7])[0]",
    "sys.stdin": "7 if sys.stdin is stdin else 0",
}


@pytest.mark.parametrize("name", PRESET)
async def test_what_the_public_graders_import_is_there(judge: Judge, name: str) -> None:
    program = f"class Solution:\n  def f(self): return {PRESET[name]}"
    assert await passes(judge, program, "f", [], 7)


WORKS: dict[str, tuple[str, Any, Any]] = {
    "recursion": (
        "class Solution:\n  def f(self, n):\n    def g(k): return 0 if k == 0 else 1 + g(k - 1)\n    return g(n)",
        [20000],
        20000,
    ),
    "recursion through a cache": (
        "@lru_cache(None)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)",
        [20000],
        20000,
    ),
    "a dataclass with deferred annotations": (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass Node:\n"
        "  v: int\n  n: Node = None\ndef f(a): return Node(a).v",
        [1],
        1,
    ),
    "type hints of its own classes": (
        "import typing\nclass A: pass\ndef g(a: 'A') -> 'List[int]': pass\n"
        "def f(): return sorted(typing.get_type_hints(g))",
        [],
        ["a", "return"],
    ),
    "a pickle of its own class": (
        "import pickle\nclass A: n = 7\ndef f(): return pickle.loads(pickle.dumps(A())).n",
        [],
        7,
    ),
    "a named tuple with types": ("class P(NamedTuple):\n  x: int\ndef f(a): return P(a).x", [7], 7),
    "an enumeration": ("from enum import Enum\nclass E(Enum):\n  A = 7\ndef f(): return E(7).value", [], 7),
    "an import of itself": ("def g(): return 7\ndef f():\n  import solution\n  return solution.g()", [], 7),
    "its own module": ("import sys\ndef g(): return 7\ndef f(): return sys.modules[__name__].g()", [], 7),
    "a builtin that it replaces": ("def len(a): return 7\ndef f(a): return len(a)", [[1]], 7),
    "globals": ("n = 7\ndef f(): return globals()['n']", [], 7),
}


@pytest.mark.parametrize("name", WORKS)
async def test_a_program_is_a_module_like_any_other(judge: Judge, name: str) -> None:
    program, arguments, expected = WORKS[name]
    assert await passes(judge, program, "f", arguments, expected)


# ---------------------------------------------------------------- what comes out

RETURNED: dict[str, tuple[str, Any]] = {
    "a defaultdict": ("d = defaultdict(int)\n  d['a'] += 2\n  return d", {"a": 2}),
    "a Counter": ("return Counter('aab')", {"a": 2, "b": 1}),
    "an OrderedDict": ("return OrderedDict(a=1)", {"a": 1}),
    "a deque": ("return deque([1, 2])", [1, 2]),
    "a named tuple": ("return namedtuple('P', 'x y')(1, 2)", [1, 2]),
    "a named tuple with the names of a dictionary": ("return namedtuple('P', 'keys items')(1, 2)", [1, 2]),
    "a list of Counters": ("return [Counter('a')]", [{"a": 1}]),
    "a dictionary of deques": ("return {'a': deque([1])}", {"a": [1]}),
    "integer keys": ("return {1: 'a', -2: 'b'}", {"1": "a", "-2": "b"}),
    "a list of its own that adds a method": ("return type('L', (list,), {'top': lambda s: s[-1]})([1, 2])", [1, 2]),
    "a generator": ("return (n for n in (1, 2))", [1, 2]),
    "a map": ("return map(int, '12')", [1, 2]),
    "a range": ("return range(1, 3)", [1, 2]),
    "keys": ("return {1: 0, 2: 0}.keys()", [1, 2]),
    **{
        f"an iterator: {source}": (f"a = [1, 2, 3]\n  return {source}", expected)
        for source, expected in {
            "iter(a)": [1, 2, 3],
            "iter(tuple(a))": [1, 2, 3],
            "iter({1: 0})": [1],
            "iter('ab')": ["a", "b"],
            "iter([1, 2].pop, 1)": [2],
            "reversed(a)": [3, 2, 1],
            "reversed(tuple(a))": [3, 2, 1],
            "reversed(range(2))": [1, 0],
            "reversed({1: 0, 2: 0})": [2, 1],
            "enumerate('a')": [[0, "a"]],
            "filter(None, [0, 1])": [1],
            "chain(a, a)": [1, 2, 3, 1, 2, 3],
            "chain.from_iterable([a])": [1, 2, 3],
            "islice(count(), 2)": [0, 1],
            "accumulate(a)": [1, 3, 6],
            "permutations(a, 1)": [[1], [2], [3]],
            "combinations(a, 2)": [[1, 2], [1, 3], [2, 3]],
            "product(a[:1], a)": [[1, 1], [1, 2], [1, 3]],
            "zip_longest(a, [1])": [[1, 1], [2, None], [3, None]],
            "takewhile(lambda x: x < 3, a)": [1, 2],
            "starmap(pow, [(2, 3)])": [8],
            "pairwise(a)": [[1, 2], [2, 3]],
            "repeat(1, 2)": [1, 1],
            "groupby([1, 1, 2])": [[1, [1, 1]], [2, [2]]],
            "{1: 2}.items()": [[1, 2]],
            "OrderedDict(a=1).items()": [["a", 1]],
            "Counter('a').values()": [1],
            "{'a': map(str, a)}": {"a": ["1", "2", "3"]},
        }.items()
    },
    "an array": ("return array.array('i', [1, 2])", [1, 2]),
    "a bytearray": ("return bytearray([1, 2])", [1, 2]),
    "a view of memory": ("return memoryview(bytes([1, 2]))", [1, 2]),
    "a UserList": ("return UserList([1, 2])", [1, 2]),
    "a UserDict": ("return UserDict(a=1)", {"a": 1}),
    "a ChainMap": ("return ChainMap({'a': 1}, {'a': 2, 'b': 3})", {"a": 1, "b": 3}),
    "a sorted list": ("return SortedList([2, 1])", [1, 2]),
    "a sorted dictionary": ("return SortedDict({2: 'b', 1: 'a'})", {"1": "a", "2": "b"}),
    "an IntEnum": ("from enum import IntEnum\n  return IntEnum('E', 'A B').B", 2),
    "an Enum of texts": ("from enum import Enum\n  return Enum('E', {'A': 'x'}, type=str).A", "x"),
    "an integer of its own class": ("return [type('I', (int,), {'__add__': lambda a, b: 0})(8)]", [8]),
    "truths, floats and nothing for keys": ("return {True: 1, 1.5: 2, None: 3}", {"true": 1, "1.5": 2, "null": 3}),
    "numbers of numpy for keys": ("import numpy\n  return {numpy.int64(1): numpy.float64(2)}", {"1": 2}),
    "an endless decimal": ("return decimal.Decimal('Infinity')", float("inf")),
    "a decimal": ("return decimal.Decimal('0.5')", 0.5),
    "a fraction": ("return fractions.Fraction(4, 2)", 2),
    "infinity": ("return float('inf')", float("inf")),
    "negative infinity": ("return -inf", float("-inf")),
    "no number": ("return float('nan')", float("nan")),
    "infinity in a list": ("return [1, inf]", [1, float("inf")]),
    "infinity as text": ("return inf", "Infinity"),
    "a float for an integer": ("return 3 * 1.0000000001", 3),
    "a whole float for an integer": ("return 6 / 2", 3),
    "a sum of floats for an integer": ("return sum([0.1] * 10) * 3", 3),
    "an integer for a float": ("return 3", 3.0),
    "a linked list": ("return ListNode(1, ListNode(2))", [1, 2]),
    "a tree": ("return TreeNode(1, None, TreeNode(2, TreeNode(3)))", [1, None, 2, 3]),
    "a list of linked lists": ("return [ListNode(1), None]", [[1], None]),
}


@pytest.mark.parametrize("name", RETURNED)
async def test_a_value_of_the_library_is_the_plain_one(judge: Judge, name: str) -> None:
    body, expected = RETURNED[name]
    assert await passes(judge, f"def f():\n  {body}", "f", [], expected)


WRONG: dict[str, tuple[str, Any]] = {
    "another count": ("return Counter('aab')", {"a": 2, "b": 2}),
    "a key too many": ("return defaultdict(int, a=2, c=0)", {"a": 2}),
    "an order of a deque": ("return deque([2, 1])", [1, 2]),
    "a set": ("return {1, 2}", [1, 2]),
    "a text": ("return '8'", 8),
    "infinity of the other sign": ("return -inf", float("inf")),
    "a large number for infinity": ("return 1e308", float("inf")),
    "infinity for a number": ("return inf", 1.0),
    "no number for infinity": ("return nan", float("inf")),
    "infinity for no number": ("return inf", float("nan")),
    "a float that is off": ("return 3.00001", 3),
    "a float beside a large integer": ("return 1000000001.0", 1000000000),
    "a float for an integer that it cannot hold": ("return 1e17", 10**17),
    "a rounded integer": ("return float(2**53 + 1)", 2**53 + 1),
    "nothing for an integer": ("pass", 3),
    "nothing for nothing in a list": ("pass", [None, None]),
    "a shorter linked list": ("return ListNode(1)", [1, 2]),
    "a mirrored tree": ("return TreeNode(1, TreeNode(2))", [1, None, 2]),
    "a linked list without end": ("n = ListNode(1)\n  n.next = n\n  return n", [1]),
    "an iterator without end": ("return count()", [0]),
    "a repetition without end": ("return repeat(0)", [0]),
    "a cycle": ("return cycle([0])", [0]),
    "an enumeration without end": ("return enumerate(count())", [[0, 0]]),
    "a text that says that it is another": ("return type('S', (str,), {'__str__': lambda s: '8'})('9')", "8"),
    "an integer that says that it is another": (
        "return type('I', (int,), {n: lambda *s: 8 for n in ('__int__', '__index__', '__float__')})(9)",
        8,
    ),
    "a float that says that it is another": ("return type('F', (float,), {'__float__': lambda s: 8.0})(9)", 8),
    "an array that lies about its items": (
        "return type('A', (array.array,), {'tolist': lambda s: [8]})('i', [9])",
        [8],
    ),
    "a UserList that lies about its items": (
        "return type('U', (UserList,), {'__iter__': lambda s: iter([8])})([9])",
        [8],
    ),
    "a class with the name of a sorted list": (
        "return type('SortedList', (), {'__iter__': lambda s: iter([8])})()",
        [8],
    ),
    "a class of its own with a method for items": ("return type('C', (), {'__iter__': lambda s: iter([8])})()", [8]),
    "an order of an iterator": ("return reversed([1, 2])", [1, 2]),
    "a list that lies about its items": (
        "return type('L', (list,), {'__iter__': lambda s: iter([8])})()",
        [8],
    ),
    "a dictionary that lies about its items": (
        "return type('D', (dict,), {'items': lambda s: [('a', 8)]})()",
        {"a": 8},
    ),
    "a Counter that lies about its items": (
        "return type('C', (Counter,), {'items': lambda s: [('a', 8)]})()",
        {"a": 8},
    ),
    "a list that is equal to everything": ("return type('L', (list,), {'__eq__': lambda s, o: True})()", [8]),
    "an integer that is equal to everything": ("return type('I', (int,), {'__eq__': lambda s, o: True})(9)", 8),
    "an object that is equal to everything": ("return type('E', (), {'__eq__': lambda s, o: True})()", 8),
}


@pytest.mark.parametrize("name", WRONG)
async def test_another_value_fails(judge: Judge, name: str) -> None:
    body, expected = WRONG[name]
    assert not await passes(judge, f"def f():\n  {body}", "f", [], expected)


# ---------------------------------------------------------------- what goes in

GIVEN: dict[str, tuple[str, Any, Any]] = {
    "integer keys": ("def f(d): return d[1]", [{"1": 5}], 5),
    "negative integer keys": ("def f(d): return d[-1]", [{"-1": 5, "0": 1}], 5),
    "integer keys within": ("def f(a): return a[0][1]", [[{"1": 5}]], 5),
    "digits that are texts": ("def f(d): return d['1']", [{"1": 5}], 5),
    "digits that are texts within": ("def f(d): return sorted(d)[0] + 'x'", [{"1": 5}], "1x"),
    "texts and digits": ("def f(d): return d['1'] + d['a']", [{"1": 5, "a": 1}], 6),
    "digits with a zero before": ("def f(d): return d['01']", [{"01": 5}], 5),
    "by name only": ("def f(*, a, b): return a - b", {"b": 1, "a": 4}, 3),
    "some by name only": ("def f(a, *, b): return a - b", {"b": 1, "a": 4}, 3),
    "by any name": ("def f(**given): return given['a'] - given['b']", {"b": 1, "a": 4}, 3),
    "by name, of a partial function": (
        "from functools import partial\ndef g(k, a): return k * a\nf = partial(g, 3)",
        {"a": 4},
        12,
    ),
    "by name, as the text of an object": ("def f(a, b): return a - b", '{"b": 1, "a": 4}', 3),
    "an object as text": ("def f(a, k=1): return a['b'] + k", '{"b": 1, "a": 4}', 2),
    "by name": ("def f(k, nums): return nums[k]", {"nums": [1, 2], "k": 1}, 2),
    "by name, of a method": ("class Solution:\n  def f(self, k, nums): return nums[k]", {"nums": [1, 2], "k": 1}, 2),
    "by name in other letters": ("def f(arr, n): return arr[n - 1]", {"N": 2, "Arr": [1, 2]}, 2),
    "by name, with more than is taken": ("def f(arr): return arr[-1]", {"N": 2, "arr": [1, 2]}, 2),
    "by names that are not the function's": ("def f(x, y): return x - y", {"a": 3, "b": 2}, 1),
    "as geeksforgeeks writes it": (
        "class Solution:\n  def f(self, arr, n): return sum(arr[:n])",
        "N = 2\narr[] = {1, 2, 3}",
        3,
    ),
    "as LeetCode writes it": ("def f(nums, target): return nums.index(target)", "nums = [2,7], target = 7", 1),
    "a linked list": (
        "class Solution:\n  def f(self, head: Optional[ListNode]) -> int: return head.next.val",
        [[1, 2]],
        2,
    ),
    "a linked list by the documentation": (
        "class Solution(object):\n  def f(self, head):\n    '''\n    :type head: ListNode\n    :rtype: int\n    '''\n"
        "    return head.next.val",
        [[1, 2]],
        2,
    ),
    "a linked list of its own class": (
        "class ListNode:\n  def __init__(self, val=0, next=None): self.val, self.next = val, next\n"
        "class Solution:\n  def f(self, head: 'ListNode'): return type(head) is ListNode",
        [[1]],
        True,
    ),
    "a linked list there and back": (
        "class Solution:\n  def f(self, head: Optional[ListNode]) -> Optional[ListNode]:\n    prev = None\n"
        "    while head: head.next, prev, head = prev, head, head.next\n    return prev",
        [[1, 2, 3]],
        [3, 2, 1],
    ),
    "no linked list there and back": ("def f(head: Optional[ListNode]) -> Optional[ListNode]: return head", [[]], []),
    "linked lists": (
        "class Solution:\n  def f(self, lists: List[Optional[ListNode]]) -> int: return sum(a.val for a in lists if a)",
        [[[1, 4], [2], []]],
        3,
    ),
    "a tree": (
        "class Solution:\n  def f(self, root: Optional[TreeNode]) -> int:\n"
        "    return 0 if not root else 1 + max(self.f(root.left), self.f(root.right))",
        [[3, 9, 20, None, None, 15, 7]],
        3,
    ),
    "a tree there and back": (
        "class Solution:\n  def f(self, root: Optional[TreeNode]) -> Optional[TreeNode]:\n"
        "    if root: root.left, root.right = self.f(root.right), self.f(root.left)\n    return root",
        [[1, 2, None, 3]],
        [1, None, 2, None, 3],
    ),
    "a tree in text": ("def f(root: 'TreeNode | None'): return root.right.val", "[1,null,2]", 2),
    "a list changed in place": ("def f(a): a.sort()", [[2, 1]], [1, 2]),
    "a list changed in place by a method": (
        "class Solution:\n  def f(self, a: List[int], k: int) -> None:\n    a[:] = a[k:] + a[:k]",
        [[1, 2, 3], 1],
        [2, 3, 1],
    ),
    "a matrix changed in place": ("def f(m):\n  for row in m: row.reverse()", [[[1, 2], [3, 4]]], [[2, 1], [4, 3]]),
    "a linked list changed in place": (
        "def f(head: Optional[ListNode]) -> None: head.next = head.next.next",
        [[1, 2, 3]],
        [1, 3],
    ),
    "a tree changed in place": ("def f(root: Optional[TreeNode]) -> None: root.left = None", [[1, 2, 3]], [1, None, 3]),
}


@pytest.mark.parametrize("name", GIVEN)
async def test_an_argument_is_what_the_function_takes(judge: Judge, name: str) -> None:
    program, arguments, expected = GIVEN[name]
    assert await passes(judge, program, "f", arguments, expected)


MISSED: dict[str, tuple[str, Any, Any]] = {
    "a wrong value of integer keys": ("def f(d): return d[1]", [{"1": 5}], 6),
    "a list left as it is": ("def f(a): pass", [[1, 2]], [1, 2]),
    "a number left as it is": ("def f(a): pass", [5], 5),
    "a list changed to another": ("def f(a): a.append(1)", [[2, 1]], [1, 2]),
    "the second argument changed": ("def f(a, b): b.sort()", [[3], [2, 1]], [1, 2]),
    "a list changed, but something else returned": ("def f(a):\n  a.sort()\n  return 0", [[2, 1]], [1, 2]),
    "names that the function does not take": ("def f(x): return x", {"a": 3, "b": 2}, 3),
}


@pytest.mark.parametrize("name", MISSED)
async def test_what_is_not_what_was_expected_fails(judge: Judge, name: str) -> None:
    program, arguments, expected = MISSED[name]
    assert not await passes(judge, program, "f", arguments, expected)


async def test_a_function_that_works_in_place_may_find_its_work_done(judge: Judge) -> None:
    tests: dict[str, object] = {"fn_name": "f", "inputs": [[[1, 2]], [[2, 1]]], "outputs": [[1, 2], [1, 2]]}
    assert (await judge.grade("def f(a): a.sort()", tests)).score == 1.0
    assert (await judge.grade("def f(a): pass", tests)).score == 0.0


async def test_a_test_that_expects_nothing_is_left_out(judge: Judge) -> None:
    tests: dict[str, object] = {"fn_name": "f", "inputs": [[1], [-1]], "outputs": [1, None]}
    found = await judge.grade("def f(a): return None if a < 0 else a", tests)
    assert (found.score, len(found.tests)) == (1.0, 1)
    assert (await judge.grade("def f(a): pass", tests)).score == 0.0


# ---------------------------------------------------------------- comparison

COMPARED: list[tuple[str, Any, dict[str, Any], bool]] = [
    ("1 / 3", 0.3333, {"tolerance": 1e-3}, True),
    ("[1 / 3, {'a': 2 / 3}]", [0.333, {"a": 0.667}], {"tolerance": 1e-2}, True),
    ("1 / 3", 0.34, {"tolerance": 1e-3}, False),
    ("1 / 3", 0.3333, {}, False),
    ("101", 100, {"tolerance": 0.5}, False),
    ("[2, 1]", [1, 2], {"comparison": "unordered_tokens"}, True),
    ("[2, 1]", [1, 2], {"comparison": "unordered_lines"}, True),
    ("[2, 1]", [1, 2], {"comparison": "lines"}, False),
    ("[2, 1]", "[1, 2]", {"comparison": "unordered_lines"}, True),
    ("{2, 1}", [1, 2], {"comparison": "unordered_lines"}, True),
    ("[1, 1, 2]", [1, 2, 2], {"comparison": "unordered_tokens"}, False),
    ("[1, 2, 3]", [1, 2], {"comparison": "unordered_tokens"}, False),
    ("[['b', 'a'], ['c']]", [["c"], ["a", "b"]], {"comparison": "unordered_tokens"}, True),
    ("[['b', 'a'], ['c']]", [["c"], ["a", "b"]], {"comparison": "unordered_lines"}, False),
    ("[['a', 'b'], ['c']]", [["c"], ["a", "b"]], {"comparison": "unordered_lines"}, True),
    ("[[1, 2], [3]]", [[1], [2, 3]], {"comparison": "unordered_tokens"}, False),
    ("[0.5, 1 / 3]", [0.333, 0.5], {"comparison": "unordered_lines", "tolerance": 1e-2}, True),
]


@pytest.mark.parametrize(("value", "expected", "more", "right"), COMPARED)
async def test_what_a_problem_says_about_comparing_acts(
    judge_b: Judge, value: str, expected: Any, more: dict[str, Any], right: bool
) -> None:
    assert await passes(judge_b, f"def f(): return {value}", "f", [], expected, **more) is right


async def test_what_is_no_value_is_an_error_and_what_is_another_is_wrong(judge_b: Judge) -> None:
    for body, verdict in (("return 8", AC), ("return 9", WA), ("return object()", RE), ("1 / 0", RE)):
        found = await judge_b.grade(f"def f(): {body}", {"fn_name": "f", "inputs": [[]], "outputs": [8]})
        assert found.tests[0].verdict is verdict
