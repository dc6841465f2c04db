"""Libraries that programs may import: those of the setting that are installed, read-only, and nothing beside them."""

import importlib.util
import sys

import pytest

from services.verifier.sandbox.executions import Outcome, Task
from services.verifier.sandbox.folders import find_libraries
from services.verifier.sandbox.sandbox import Sandbox
from services.verifier.sandbox.zygotes import Tier
from tests.verifier.judge import LIMITS, Judge

pytestmark = pytest.mark.asyncio(loop_scope="session")

_MISSING = [name for name in ("numpy", "sortedcontainers") if importlib.util.find_spec(name) is None]
needs_libraries = pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {_MISSING}")

SCRIPTS = {
    "numpy": "import numpy as np\na,b=np.array(input().split(),dtype=int)\nprint(int(a+b))",
    "numpy scalars": "import numpy as np\nprint(np.array(input().split(), np.int64).sum())",
    "numpy from the stream": "import sys\nimport numpy as np\nprint(np.loadtxt(sys.stdin, dtype=np.int64).sum())",
    "numpy from the file": "import numpy as np\nprint(np.loadtxt('/dev/stdin', dtype=int).sum())",
    "numpy from the buffer": "import sys\nimport numpy as np\n"
    "print(np.array(sys.stdin.buffer.read().split(), np.int64).sum())",
    "numpy from text": "import numpy as np\nprint(np.fromstring(input(), dtype=np.int64, sep=' ').sum())",
    "parts of numpy": "import numpy.linalg as la\nfrom numpy import array, matmul\n"
    "from numpy.random import default_rng\nfrom numpy.fft import fft, ifft\ndefault_rng(1).random()\n"
    "print(round(la.det(array([[8.0, 0], [0, 1]]))))",
    "numpy under another name": "np = __import__('numpy')\nprint(np.arange(8).size)",
    "numpy by importlib": "import importlib\nprint(importlib.import_module('num' + 'py').arange(8).size)",
    "numpy saved and loaded": "import numpy as np\nnp.save('x.npy', np.array([3, 5]))\nprint(np.load('x.npy').sum())",
    "numpy in threads": "import numpy as np\nfrom concurrent.futures import ThreadPoolExecutor as P\n"
    "with P(4) as p: print(int(sum(p.map(lambda n: np.ones((n, n)).trace(), (3, 5)))))",
    "numpy with a large product": "import numpy as np\na = np.ones((500, 500))\n"
    "print(8 if (a @ a)[0, 0] == 500 else 9)",
    "a sorted list": "from sortedcontainers import SortedList\nprint(sum(SortedList(map(int, input().split()))))",
    "a sorted dictionary": "from sortedcontainers import SortedDict\nprint(SortedDict({8: 1, 9: 2}).peekitem(0)[0])",
    "a sorted set": "import sortedcontainers as sc\nprint(sc.SortedSet([9, 8])[0])",
    "a library that may be missing": "try: import scipy\nexcept ImportError: scipy = None\n"
    "print(sum(map(int, input().split())))",
}


@needs_libraries
@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_program_with_a_library_passes(judge: Judge, name: str) -> None:
    found = await judge.grade(SCRIPTS[name])
    assert (found.score, found.reason) == (1.0, "all_tests"), await judge.run(SCRIPTS[name], Task(stdin=b"3 5\n"))
    await judge.is_as_before()


@needs_libraries
async def test_a_method_may_import_a_library(judge: Judge) -> None:
    program = """
class Solution:
    def f(self, a):
        from sortedcontainers import SortedList
        return SortedList(a)[0]
"""
    tests: dict[str, object] = {"inputs": [[[2, 1]]], "outputs": [1], "fn_name": "f"}
    assert (await judge.grade(program, tests)).score == 1.0


@needs_libraries
async def test_random_numbers_of_a_library_differ_from_test_to_test(judge: Judge) -> None:
    async with judge.sandbox.program(b"import numpy as np\nprint(np.random.random())") as program:
        drawn = [(await program.run(Task(), LIMITS)).stdout for _ in range(3)]
    assert len(set(drawn)) == 3


@needs_libraries
async def test_a_library_costs_the_tests_nothing_that_share_it(judge: Judge) -> None:
    """It is loaded once for a program; a test finds it there."""
    async with judge.sandbox.program(b"import sys\nloaded = 'numpy' in sys.modules\nprint(loaded)") as program:
        assert (await program.run(Task(), LIMITS)).stdout == b"True\n"
    async with judge.sandbox.program(
        b"import sys\nprint(len(sys.modules) > 0, 'num' + 'py' in sys.modules)"
    ) as program:
        assert (await program.run(Task(), LIMITS)).stdout == b"True False\n"


@needs_libraries
async def test_a_test_cannot_change_a_library_for_the_next(judge: Judge) -> None:
    source = b"import numpy\nprint(numpy.array([1]) is None)\nnumpy.array = lambda *_: None"
    async with judge.sandbox.program(source) as program:
        for _ in range(2):
            assert (await program.run(Task(), LIMITS)).stdout == b"False\n"


@needs_libraries
async def test_what_lies_beside_a_library_is_neither_imported_nor_read(judge: Judge) -> None:
    program = """
import numpy, os
found = []
for name in ("pytest", "psutil", "pydantic", "services", "prime"):
    try: __import__(name)
    except ImportError: continue
    found.append(name)
above = os.path.dirname(os.path.dirname(numpy.__file__))
for act in (lambda: os.listdir(above), lambda: open(numpy.__file__, "a"), lambda: open(above + "/pytest/__init__.py"),
            lambda: open(above + "/psutil/__init__.py"), lambda: os.unlink(numpy.__file__)):
    try: act()
    except OSError: continue
    found.append("read or written")
print(found)
"""
    assert (await judge.run(program)).stdout == b"[]\n"


@pytest.mark.parametrize("tier", [Tier.A, Tier.B])
async def test_without_the_setting_there_is_none(tier: Tier) -> None:
    sandbox = Sandbox(1, tier, libraries=())
    await sandbox.start()
    try:
        assert sandbox.libraries == ()
        for name in (b"numpy", b"sortedcontainers"):
            async with sandbox.program(b"import " + name) as program:
                execution = await program.run(Task(), LIMITS)
            assert execution.outcome is Outcome.RUNTIME_ERROR
            assert b"ModuleNotFoundError" in execution.stderr_tail
    finally:
        sandbox.close()


async def test_one_that_is_not_installed_is_left_out() -> None:
    found = find_libraries(("no_such_library", "pytest"))
    assert list(found.places) == ["pytest"]


async def test_finding_a_library_does_not_import_it() -> None:
    before = "sortedcontainers" in sys.modules
    find_libraries(("sortedcontainers",))
    assert ("sortedcontainers" in sys.modules) is before
