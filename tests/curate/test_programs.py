"""Reference programs in a real sandbox: whose own solution fails, what a stub passes, and what needs a checker."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from jobs.curate.draft import Draft
from jobs.curate.programs import Programs, says_several_are_right, stubs_for
from jobs.curate.settings import CodeSettings
from jobs.grading import BoundedVerifier
from prime.adapters.telemetry import Meters
from prime.errors import PeerUnavailable
from prime.types import GradeItem, Verdict, VerdictStatus
from services.verifier.main import open_verifier
from services.verifier.sandbox.zygotes import Tier
from services.verifier.settings import VerifierSettings
from tests.curate.corpora import DOUBLE, TextVerifier, code_draft, math_draft

SUITE = {"inputs": ["1", "5", "7"], "outputs": ["2", "10", "14"]}
CPP = "#include <iostream>\nint main() { int n; std::cin >> n; std::cout << 2 * n; }"


def judge(*drafts: Draft, settings: CodeSettings | None = None) -> list[Draft]:
    async def work() -> list[Draft]:
        async with open_verifier(VerifierSettings(min_tier=Tier.B), Meters()) as parts:
            return await Programs(settings or CodeSettings(), parts.grader).apply(drafts)

    return asyncio.run(work())


def test_what_programs_show() -> None:
    drafts = [
        code_draft("Double.", SUITE, [DOUBLE]),
        code_draft("Double.", SUITE, ["print(3 * int(input()))"]),
        code_draft("Double.", SUITE, ["print 2 * input()", DOUBLE]),
        code_draft("Double.", SUITE, [DOUBLE, "print(0)"]),
        code_draft("Say one.", {"inputs": ["1", "2"], "outputs": ["1", "1"]}, ["print(1)"]),
        code_draft("Nothing is known.", SUITE),
        code_draft("Always one.", {"inputs": ["1", "2"], "outputs": ["1", "1"]}),
        code_draft("Twice.", {"inputs": [[1], [2]], "outputs": [2, 4], "fn_name": "f"}, ["def f(n): return 2 * n"]),
        code_draft("None.", {"inputs": [[1], [2]], "outputs": [4, 4], "fn_name": "f"}, ["def f(n): return 4"]),
        code_draft("Print any of them.", SUITE, [DOUBLE]),
        math_draft("Prove nothing.", "1"),
    ]
    found = judge(*drafts)
    assert [draft.dropped for draft in found] == [
        "",
        "own solution fails",
        "",
        "needs a checker",
        "solved by a stub",
        "",
        "solved by a stub",
        "",
        "solved by a stub",
        "needs a checker",
        "",
    ]
    assert found[0].notes["programs"] == {
        "tests": 3,
        "needs_checker": "",
        "solutions": 1,
        "passed": 1,
        "reasons": found[0].notes["programs"]["reasons"],
    }
    assert (found[2].notes["programs"]["solutions"], found[2].notes["programs"]["passed"]) == (2, 1)
    assert found[3].notes["programs"]["needs_checker"] == "accepted solutions disagree"
    assert found[5].notes["programs"]["solution"] == "none"
    assert found[10] == drafts[10]


def test_a_solution_in_cpp_shows_as_much_and_the_answer_stays_python() -> None:
    draft = code_draft("Double.", SUITE)
    (found,) = judge(replace(draft, solutions=(f"```cpp\n{CPP}\n```",)))
    assert (found.dropped, found.answer) == ("", draft.answer)


def test_what_needs_a_checker_may_be_kept_with_its_mark() -> None:
    (found,) = judge(code_draft("Print any of them.", SUITE, [DOUBLE]), settings=CodeSettings(needs_checker="keep"))
    assert (found.dropped, found.notes["programs"]["needs_checker"]) == ("", "its text says so")


def test_nothing_is_run_where_the_settings_say_so() -> None:
    stage = Programs(CodeSettings(run=False), TextVerifier())
    (found,) = asyncio.run(stage.apply([code_draft("Double.", SUITE, ["broken"])]))
    assert (found.dropped, found.notes["programs"]) == ("", {"tests": 3, "needs_checker": ""})


def test_a_verifier_that_failed_is_no_program_that_failed() -> None:
    class Broken(TextVerifier):
        async def grade(self, items: Sequence[GradeItem]) -> list[Verdict]:
            return [
                Verdict(status=VerdictStatus.INFRA_ERROR, score=None, reason="sandbox_failed", milliseconds=0.0)
                for _ in items
            ]

    with pytest.raises(PeerUnavailable, match="the verifier failed on taco: rows"):
        asyncio.run(Programs(CodeSettings(), BoundedVerifier(Broken())).apply([code_draft("Double.", SUITE, [DOUBLE])]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("If there are multiple solutions, print any of them.", True),
        ("If there exist several answers, output any.", True),
        ("Print any valid answer.", True),
        ("You may output any one of the solutions.", True),
        ("Multiple answers are accepted.", True),
        ("Print the answer. It is guaranteed that there is any solution at all.", False),
        ("If there are several test cases, solve each.", False),
        ("Print the number of ways.", False),
    ],
)
def test_statements_that_allow_several_outputs(text: str, expected: bool) -> None:
    assert says_several_are_right(text) is expected


def test_stubs_do_nothing_or_give_the_most_frequent_output() -> None:
    assert stubs_for({"inputs": [1, 2, 3], "outputs": ["b", "a", "b"]})[1] == "```python\nprint('b', end='')\n```"
    assert "return None" in stubs_for({"inputs": [1], "outputs": [4], "fn_name": "f"})[0]
