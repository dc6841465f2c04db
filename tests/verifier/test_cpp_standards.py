"""C++ in the standard that its label names, or in the first that compiles it. Tier A only."""

import pytest

from prime.types import TestVerdict
from services.verifier.programs.code_tests import Language
from tests.verifier.judge import AC, CE, Judge

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Each prints 8 in its standard and the later ones, and is no program in the earlier ones, or the other way round.
_OLD = '#include <cstdio>\nint main() { bool requires = true; std::printf("%d", requires ? 8 : 0); }'
_RANGES = (
    "#include <algorithm>\n#include <cstdio>\n#include <ranges>\n#include <vector>\n"
    'int main() { std::vector<int> v{8, 1}; std::ranges::sort(v); std::printf("%d", v[1]); }'
)
_NEWEST = (
    "#include <cstdio>\n#include <utility>\nenum class A { x = 8 };\n"
    'int main() { std::printf("%d", std::to_underlying(A::x)); }'
)


@pytest.mark.parametrize(
    ("label", "program", "verdict"),
    [
        ("cpp", _OLD, AC),
        ("cpp", _RANGES, AC),
        ("cpp", _NEWEST, AC),
        ("c++17", _OLD, AC),
        ("cpp20", _RANGES, AC),
        ("C++20", _RANGES, AC),
        ("c++20", _OLD, CE),
        ("cpp20", _NEWEST, CE),
        ("c++23", _NEWEST, AC),
        ("cpp", "int main( {", CE),
    ],
)
async def test_a_program_is_compiled_in_its_standard(
    judge_a: Judge, label: str, program: str, verdict: TestVerdict
) -> None:
    found = await judge_a.grade(program, {"inputs": [""], "outputs": ["8"], "language": "cpp"}, language=label)
    assert found.tests[0].verdict is verdict


async def test_what_is_compiled_is_kept_by_source_and_standard(judge_a: Judge) -> None:
    source = b"int main() { return __cplusplus > 202000; }"
    kinds = ("", "20", "23", "20", "")
    made = [await judge_a.compiler.compile(Language.CPP, source, standard) for standard in kinds]
    assert made[0].content is made[4].content
    assert made[1].content is made[3].content
    assert len({program.content for program in made}) >= 2
