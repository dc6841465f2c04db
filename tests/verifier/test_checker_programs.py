"""Programs that judge output of which several are right, after testlib's protocol. Some are hostile."""

from collections.abc import Mapping

import pytest

from prime.errors import InvalidInput
from prime.types import TestVerdict
from services.verifier.programs.code_tests import Language
from services.verifier.programs.compiler import Compiler
from services.verifier.programs.grader import ProgramFinding, ProgramGrader
from tests.verifier.judge import AC, LIMITS, QUICK, RE, WA, Judge, item_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

_TESTS: dict[str, object] = {"inputs": ["8\n"], "outputs": ["3 5\n"]}
# Two numbers with the sum that was asked for.
_SUM = """
import sys
given, printed, answer = [open(name).read().split() for name in sys.argv[1:]]
assert int(answer[0]) + int(answer[1]) == int(given[0])
sys.exit(0 if len(printed) == 2 and int(printed[0]) + int(printed[1]) == int(given[0]) else 1)
"""
_SUM_CPP = """
#include <fstream>
int main(int n, char** names) {
    std::ifstream given(names[1]), printed(names[2]), answer(names[3]);
    long sum, a, b;
    given >> sum;
    if (n != 4 || !answer) return 3;
    if (!(printed >> a >> b)) return 2;
    return a + b == sum ? 0 : 1;
}
"""


async def ask(
    judge: Judge, program: str, source: str, language: str = "python", more: Mapping[str, object] | None = None
) -> ProgramFinding:
    tests = {**_TESTS, "checker": {"language": language, "source": source}, **(more or {})}
    found = await judge.grade(program, tests)
    await judge.is_as_before()
    return found


@pytest.mark.parametrize(("language", "source"), [("python", _SUM), ("cpp", _SUM_CPP)])
@pytest.mark.parametrize(
    ("program", "verdict"),
    [("print(3, 5)", AC), ("print(1)\nprint(7)", AC), ("print(1, 6)", WA), ("print()", WA), ("1 / 0", RE)],
)
async def test_a_checker_judges(judge_a: Judge, language: str, source: str, program: str, verdict: TestVerdict) -> None:
    found = await ask(judge_a, program, source, language)
    assert [record.verdict for record in found.tests] == [verdict]
    assert found.method == "code:checker"
    assert found.score == float(verdict is AC)


async def test_a_checker_judges_every_test_and_only_what_was_printed(judge_a: Judge) -> None:
    program = "n = int(input())\nif n == 3: 1 / 0\nprint(n - 1, 1 if n != 2 else 5)"
    tests = {"inputs": ["1", "2", "3", "4"], "outputs": ["0 1", "1 1", "2 1", "3 1"]}
    found = await ask(judge_a, program, _SUM, more=tests)
    assert [record.verdict for record in found.tests] == [AC, WA, RE, AC]
    assert (found.score, found.reason) == (0.5, "wrong_output:1")


@pytest.mark.parametrize(("code", "verdict"), [(0, AC), (1, WA), (2, WA)], ids=["right", "wrong", "badly presented"])
async def test_exit_codes_are_those_of_testlib(judge_a: Judge, code: int, verdict: TestVerdict) -> None:
    found = await ask(judge_a, "print(1)", f"import sys\nsys.exit({code})")
    assert found.tests[0].verdict is verdict


BROKEN = {
    "finds fault with the problem": "import sys\nsys.exit(3)",
    "gives points": "import sys\nsys.exit(7)",
    "has an exit code of its own": "import sys\nsys.exit(42)",
    "raises": "1 / 0",
    "is no program": "def",
    "aborts": "import os\nos.abort()",
    "takes all memory": "bytearray(2**31)",
    "forks": "import os\nos.fork()",
    "signals everybody": "import os\nos.kill(-1, 9)",
    "writes into its box": "open('input.txt', 'w')",
    "makes a file in its box": "open('new.txt', 'w')",
    "reads the machine": "open('/etc/passwd')",
    "claims success and fails": "print('ok', flush=True)\nimport os\nos._exit(9)",
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("program", ["print(3, 5)", "print('garbage')"])
async def test_a_broken_checker_decides_nothing(judge_a: Judge, name: str, program: str) -> None:
    found = await ask(judge_a, program, BROKEN[name])
    assert found.score is None
    assert found.reason.startswith("checker_error:")


@pytest.mark.parametrize("source", ["while True: pass", "import time\ntime.sleep(99)", "while True: print('x' * 9999)"])
async def test_a_checker_without_end_decides_nothing(judge_a: Judge, source: str) -> None:
    found = await ask(judge_a, "print(3, 5)", source, more=QUICK)
    assert found.score is None
    assert found.reason.startswith("checker_error:")


async def test_a_checker_that_does_not_compile_decides_nothing(judge_a: Judge) -> None:
    found = await ask(judge_a, "print(3, 5)", "int main( {", "cpp")
    assert (found.score, found.reason[:22]) == (None, "checker_error:compile ")


@pytest.mark.parametrize("program", ["print('garbage')", "print(3)\nprint('x' * 100)", "print('3 \\0')"])
async def test_output_that_breaks_a_good_checker_is_wrong(judge_a: Judge, program: str) -> None:
    source = _SUM.replace("len(printed) == 2 and ", "")
    found = await ask(judge_a, program, source)
    assert (found.score, found.reason) == (0.0, "wrong_output:0")


# Fails in a way of its own over `weird`, and judges everything else.
_FAILS_OVER = """
import os, sys
printed, answer = [open(name).read().split() for name in sys.argv[2:]]
if printed == ['weird']: {failure}
sys.exit(0 if printed == answer else 1)
"""
FAILURES = [
    *("sys.exit(3)", "sys.exit(7)", "sys.exit(4)", "sys.exit(8)", "sys.exit(42)", "1 / 0", "os.abort()"),
    *("\n    while True: pass", "import time; time.sleep(99)", "bytearray(2**31)"),
]


@pytest.mark.parametrize("failure", FAILURES)
async def test_no_output_keeps_a_working_checker_from_its_verdict(judge_a: Judge, failure: str) -> None:
    source = _FAILS_OVER.replace("{failure}", failure)
    for program, score in (("print('weird')", 0.0), ("print('other')", 0.0), ("print(3, 5)", 1.0)):
        found = await ask(judge_a, program, source, more=QUICK)
        assert (found.score, found.reason) == (score, "all_tests" if score else "wrong_output:0")


async def test_a_checker_without_a_reference_has_a_word_on_it_all_the_same(judge_a: Judge) -> None:
    source = _FAILS_OVER.replace("{failure}", "sys.exit(3)").replace("printed == answer", "printed == ['3']")
    for program, score in (("print('weird')", 0.0), ("print(3)", 1.0)):
        found = await ask(judge_a, program, source, more={"outputs": [""]})
        assert found.score == score


async def test_a_checker_that_fails_over_the_reference_fails_for_every_output_that_it_fails_over(
    judge_a: Judge,
) -> None:
    source = "import sys\nsys.exit(3 if len(open(sys.argv[2]).read()) > 1 else 1)"
    for program in ("print('weird')", "print(3, 5)"):
        assert (await ask(judge_a, program, source)).score is None


async def test_a_checker_is_compiled_once(judge_a: Judge) -> None:
    source = (_SUM_CPP + "// once").encode()
    first = await judge_a.compiler.compile(Language.CPP, source)
    await ask(judge_a, "print(3, 5)", source.decode(), "cpp")
    again = await judge_a.compiler.compile(Language.CPP, source)
    assert again.content is first.content


_TESTLIB_CHECKER = """
#include "testlib.h"
int main() { return right() ? 0 : 1; }
"""
_HEADER = b'#pragma once\n#include <cstdio>\ninline bool right() { return std::fopen("output.txt", "r"); }\n'


async def test_a_checker_that_needs_testlib_is_refused_without_it_and_compiled_with_it(judge_a: Judge) -> None:
    tests: dict[str, object] = {**_TESTS, "checker": {"language": "cpp", "source": _TESTLIB_CHECKER}}
    item = item_of("print(1)", tests)
    with pytest.raises(InvalidInput, match=r"testlib_path"):
        judge_a.grader().parse(item)
    compiler = Compiler(judge_a.sandbox, _HEADER)
    grader = ProgramGrader(judge_a.sandbox, compiler, LIMITS, max_tests=10, program_seconds=60)
    assert (await grader.grade(grader.parse(item))).score == 1.0


async def test_a_checker_sees_nothing_of_the_program_and_the_program_nothing_of_it(judge_a: Judge) -> None:
    look = "import os, sys\nsys.exit(0 if sorted(os.listdir()) == ['answer.txt', 'input.txt', 'output.txt'] else 1)"
    program = "import os\nprint(os.path.exists('/tmp/answer.txt'), os.path.exists('answer.txt'))"
    tests = {**_TESTS, "checker": {"language": "python", "source": look}}
    assert (await judge_a.grade(program, tests)).score == 1.0
    tests = {**_TESTS, "checker": {"language": "python", "source": "print(open('output.txt').read())\n1 / 0"}}
    assert (await judge_a.grade(program, {**_TESTS, "outputs": ["False False"]})).score == 1.0


async def test_tier_b_has_neither_checkers_nor_compilers(judge_b: Judge) -> None:
    grader = judge_b.grader()
    checked = {**_TESTS, "checker": {"language": "python", "source": _SUM}}
    with pytest.raises(InvalidInput, match="tier A"):
        grader.parse(item_of("print(1)", checked))
    with pytest.raises(InvalidInput, match="tier A"):
        grader.parse(item_of("int main() {}", {**_TESTS, "language": Language.CPP}, language="cpp"))
