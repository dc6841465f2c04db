"""The grader over real sandboxes: dispatch, per-item faults, cache, repeats, budgets, lanes, faults of our own."""

import asyncio
import contextlib
import json
import os
import re
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from prime.adapters.telemetry import Meters
from prime.errors import InvalidInput, NotReady, Overloaded
from prime.types import GradeItem, Verdict, VerdictStatus
from services.verifier.main import Parts, open_verifier
from services.verifier.settings import VerifierSettings

SETTINGS = VerifierSettings(workers=2, cpu_seconds=2, max_queue=128)
ADD = {"inputs": ["3 5\n"], "outputs": ["8\n"]}


@pytest.fixture(scope="module")
def meters() -> Meters:
    return Meters()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def verifier(meters: Meters) -> AsyncIterator[Parts]:
    async with open_verifier(SETTINGS, meters) as parts:
        yield parts


pytestmark = pytest.mark.asyncio(loop_scope="module")


def code(program: str, tests: object = None, **more: object) -> GradeItem:
    truth = tests if isinstance(tests, str) else json.dumps(ADD if tests is None else tests)
    response = f"```python\n{program}\n```"
    fields = {"item_id": "p", "data_source": "taco", "ability": "code", "response": response, "ground_truth": truth}
    return GradeItem(**(fields | more))  # type: ignore[arg-type]


def math(answer: str, gold: str, **more: object) -> GradeItem:
    fields = {"item_id": "m", "data_source": "numina", "ability": "math", "response": f"\\boxed{{{answer}}}"}
    return GradeItem(**(fields | {"ground_truth": gold} | more))  # type: ignore[arg-type]


def brief(verdict: Verdict) -> tuple[str, float | None, str]:
    return (verdict.status.value, verdict.score, verdict.reason)


# ---------------------------------------------------------------- dispatch and faults of the request


async def test_the_grader_is_chosen_by_kind_then_source_then_ability(verifier: Parts) -> None:
    items = [
        code("print(8)", kind="math", ground_truth="8", response="\\boxed{8}"),
        code("print(8)", ability="?"),
        code("print(8)", data_source="mine"),
        code("#6", kind="exact", response="#6", ground_truth="6"),
    ]
    verdicts = await verifier.grader.grade(items)
    assert [verdict.method for verdict in verdicts] == ["math", "code:stdin", "code:stdin", "exact"]
    assert all(verdict.status is VerdictStatus.PASSED for verdict in verdicts)


INVALID = {
    "an unknown kind": (code("print(8)", kind="poem"), "kind 'poem' is not known"),
    "no grader": (math("8", "8", data_source="poems", ability="writing"), "poems.*writing"),
    "no JSON": (code("print(8)", ground_truth="{"), "no usable JSON"),
    "no test": (code("print(8)", {"inputs": [], "outputs": []}), "no test"),
    "a hundred thousand tests": (
        code("print(8)", {"inputs": ["1"] * 100_000, "outputs": ["1"] * 100_000}),
        "max_tests",
    ),
    "lists of unequal length": (code("print(8)", {"inputs": ["1", "2"], "outputs": ["1"]}), "2 inputs but 1 outputs"),
    "a null expectation": (code("print(8)", {"inputs": ["1"], "outputs": [None]}), "output 0 is null"),
    "a negative limit": (code("print(8)", {**ADD, "cpu_seconds": -1}), "cpu_seconds must be"),
    "an endless limit": (code("print(8)", {**ADD, "cpu_seconds": 1e9}), "cpu_seconds must be"),
    "negative memory": (code("print(8)", {**ADD, "memory_mib": -5}), "memory_mib must be"),
    "an argument too long for a number": (
        code("print(8)", '{"fn_name": "f", "inputs": [[1' + "0" * 4100 + ']], "outputs": [1]}'),
        "input 0 holds an integer too long",
    ),
    "an unknown key": (code("print(8)", {**ADD, "timeout": 5}), "unknown key 'timeout'"),
    "too large an input": (code("print(8)", ground_truth=" " * (64 * 1024 * 1024 + 1)), "the limit is"),
    "mathematics options on code": (code("print(8)", options=("two_decimals",)), "options"),
    "an unknown option": (math("8", "8", options=("anything_goes",)), "anything_goes"),
    "an empty gold": (math("8", ""), "holds no number"),
    "a gold of punctuation": (math("8", "$$ ... $$"), "holds no number"),
    "a gold that is no mathematics": (math("x+1", "\\frac{1}{"), "do not close"),
    "an empty chain": (math("8", " ", data_source="chain"), "the ground truth is empty"),
}


ROOM = json.dumps({"environment": "sokoban", "task": "#@$ .#", "max_turns": 3})


def episode(*actions: str, ground_truth: str = ROOM, response: str = "") -> GradeItem:
    return GradeItem(
        item_id="e",
        data_source="levels",
        ability="environment",
        response=response or json.dumps(actions),
        ground_truth=ground_truth,
    )


async def test_an_episode_is_played_again_and_not_taken_at_its_word(verifier: Parts) -> None:
    verdicts = await verifier.grader.grade(
        [
            episode("right", "right"),
            episode("left", "right", "I say right"),
            episode("right", "left", "solved!", "right"),
            episode(),
            episode(response="right right"),
            episode(response='["right", 1]'),
            episode("right", ground_truth=ROOM.replace("sokoban", "chess")),
            episode("right", ground_truth="#@$.#"),
        ]
    )
    assert [brief(verdict)[:2] for verdict in verdicts] == [
        ("passed", 1.0),
        ("passed", 1.0),
        ("failed", 0.0),
        ("failed", 0.0),
        ("invalid_request", None),
        ("invalid_request", None),
        ("invalid_request", None),
        ("invalid_request", None),
    ]
    assert verdicts[0].method == "environment"
    assert "JSON list" in verdicts[4].reason
    assert "chess" in verdicts[6].reason


@pytest.mark.parametrize("name", INVALID)
async def test_what_cannot_be_graded_costs_itself_alone_and_says_why(verifier: Parts, name: str) -> None:
    item, said = INVALID[name]
    good, bad, other = await verifier.grader.grade([math("5", "5"), item, math("6", "5")])
    assert brief(good) == ("passed", 1.0, "exact")
    assert brief(other) == ("failed", 0.0, "mismatch")
    assert (bad.status, bad.score) == (VerdictStatus.INVALID_REQUEST, None)
    assert re.search(said, bad.reason), bad.reason


async def test_the_share_of_tests_passed_counts_unless_the_item_asks_for_all_or_nothing(verifier: Parts) -> None:
    tests = {"inputs": ["1", "2", "3", "4"], "outputs": ["1", "0", "3", "4"]}
    share, binary = await verifier.grader.grade(
        [code("print(input())", tests), code("print(input())", tests, binary=True)]
    )
    assert brief(share) == ("failed", 0.75, "wrong_output:1")
    assert brief(binary) == ("failed", 0.0, "wrong_output:1")
    assert (len(share.tests), len(binary.tests)) == (4, 2)


async def test_all_or_nothing_waits_for_the_checker_before_it_calls_a_test_failed(verifier: Parts) -> None:
    accepts_all = {"language": "python", "source": "import sys; sys.exit(0)"}
    refuses_two = {"language": "python", "source": "import sys; sys.exit(open('output.txt').read().strip() == '2')"}
    tests = {"inputs": ["1", "2", "3"], "outputs": ["?", "?", "?"]}
    found = await verifier.grader.grade(
        [
            code("print(input())", {**tests, "checker": accepts_all}, binary=True),
            code("print(input())", {**tests, "checker": refuses_two}, binary=True),
        ]
    )
    assert [brief(verdict) for verdict in found] == [("passed", 1.0, "all_tests"), ("failed", 0.0, "wrong_output:1")]


NEVER_COSTS_THE_CALL = {
    "a circled digit": math("\u2460!", "x+1"),
    "a circled power": math("\u2461^2", "5"),
    "a maximum with an imaginary part": math("\\max(i,1)", "x+1"),
    "a chain without end": math("=".join("x" * 900), "x+1"),
    "two sets that differ everywhere": math(
        ",".join(f"a+{n}" for n in range(150)), ",".join(f"b+{n}" for n in range(150))
    ),
    "half a character in a test": code(
        "print(8)", '{"inputs": ["\\ud800"], "outputs": ["8"], "checker": {"language": "python", "source": "exit(0)"}}'
    ),
}


@pytest.mark.parametrize("name", NEVER_COSTS_THE_CALL)
async def test_no_answer_costs_the_others_of_its_call(verifier: Parts, name: str) -> None:
    good, odd, other = await verifier.grader.grade([math("5", "5"), NEVER_COSTS_THE_CALL[name], code("print(8)")])
    assert (good.score, other.score) == (1.0, 1.0)
    assert odd.status in (VerdictStatus.FAILED, VerdictStatus.UNDECIDED, VerdictStatus.PASSED), odd
    assert odd.status is not VerdictStatus.PASSED or name == "half a character in a test"


# ---------------------------------------------------------------- cache and repeats


async def test_options_of_the_settings_hold_for_every_problem() -> None:
    settings = SETTINGS.model_copy(update={"math_options": ("brackets_count", "two_decimals")})
    items = [math("(1,2,3)", "1,2,3"), math("3.14", "\\pi"), math("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "(1,2)")]
    async with open_verifier(settings, Meters()) as parts:
        verdicts = await parts.grader.grade(items)
    assert [verdict.score for verdict in verdicts] == [0.0, 1.0, 0.0]


async def test_an_unknown_option_in_the_settings_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown mathematics options 'loosely'"):
        VerifierSettings(math_options=("loosely",))


async def test_an_answer_asked_again_is_found_in_the_cache_and_says_so(verifier: Parts) -> None:
    item = code("print(2 ** 3)")
    (first,) = await verifier.grader.grade([item])
    (again,) = await verifier.grader.grade([item])
    assert (first.cached, again.cached) == (False, True)
    assert brief(first) == brief(again)
    assert first.tests == again.tests


async def test_what_hangs_on_time_is_not_cached(verifier: Parts) -> None:
    item = code("while True: pass", {**ADD, "cpu_seconds": 0.2})
    for _ in range(2):
        (verdict,) = await verifier.grader.grade([item])
        assert brief(verdict) == ("failed", 0.0, "cpu_limit:0")
        assert not verdict.cached


async def test_a_repeated_call_joins_the_first_and_is_not_graded_twice(verifier: Parts, meters: Meters) -> None:
    def graded() -> float:
        labels = {"grader": "code", "status": "passed", "reason": "all_tests", "tier": "A"}
        return meters.registry.get_sample_value("prime_verdicts_total", labels) or 0.0

    before = graded()
    items = [code("import time; time.sleep(0.3); print(8)")]
    first = asyncio.ensure_future(verifier.grader.grade(items, idempotency_key="once"))
    await asyncio.sleep(0.05)
    first.cancel()  # its caller went away, and comes back
    with contextlib.suppress(asyncio.CancelledError):
        await first
    both = [verifier.grader.grade(items, idempotency_key="once") for _ in range(2)]
    answers = [*await asyncio.gather(*both), await verifier.grader.grade(items, idempotency_key="once")]
    assert answers[0] == answers[1] == answers[2]
    assert graded() == before + 1


async def test_a_key_that_came_with_other_items_is_refused(verifier: Parts) -> None:
    await verifier.grader.grade([math("5", "5")], idempotency_key="mine")
    with pytest.raises(InvalidInput, match="'mine' came before"):
        await verifier.grader.grade([math("6", "5")], idempotency_key="mine")


# ---------------------------------------------------------------- bounds


async def test_what_is_not_graded_within_the_budget_is_undecided_and_the_rest_is_kept(verifier: Parts) -> None:
    slow = [code(f"import time; time.sleep(5); print({number})") for number in range(4)]
    verdicts = await verifier.grader.grade([code("print(4 + 4)"), *slow, math("5", "5")], budget_seconds=0.7)
    assert brief(verdicts[0]) == ("passed", 1.0, "all_tests")
    assert [brief(verdict) for verdict in verdicts[1:5]] == [("undecided", None, "budget")] * 4
    assert brief(verdicts[5]) == ("passed", 1.0, "exact")
    with pytest.raises(InvalidInput, match="budget_seconds"):
        await verifier.grader.grade([], budget_seconds=-1)


async def test_a_full_queue_turns_calls_away_and_takes_them_again_later(verifier: Parts) -> None:
    slow = [code(f"import time; time.sleep(0.02); print(8) #{number}") for number in range(128)]
    first = asyncio.ensure_future(verifier.grader.grade(slow))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await verifier.grader.grade([math("5", "5")])
    assert [verdict.score for verdict in await first] == [1.0] * 128
    assert len(await verifier.grader.grade([math("5", "5")])) == 1
    with pytest.raises(InvalidInput, match="split the call"):
        await verifier.grader.grade(slow + slow)


async def test_mathematics_does_not_wait_behind_code(verifier: Parts) -> None:
    programs = asyncio.ensure_future(
        verifier.grader.grade([code(f"import time; time.sleep(0.5); print(8) #{number}") for number in range(12)])
    )
    await asyncio.sleep(0.1)
    questions = [math(f"(x+{n})^2", f"x^2+{2 * n}x+{n * n}") for n in range(2, 22)]
    assert all(verdict.score == 1.0 for verdict in await verifier.grader.grade(questions))
    assert not programs.done()
    assert all(verdict.score == 1.0 for verdict in await programs)


async def test_a_cancelled_call_stops_its_programs(verifier: Parts) -> None:
    running = asyncio.ensure_future(verifier.grader.grade([code("import time; time.sleep(60) # cancelled")] * 2))
    await asyncio.sleep(0.3)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    # Both places are free again, or this would wait for the limit of a minute.
    verdicts = await verifier.grader.grade([code("print(8) # after")] * 2)
    assert [verdict.score for verdict in verdicts] == [1.0, 1.0]


# ---------------------------------------------------------------- faults of our own


async def test_a_zygote_killed_under_a_hundred_programs_costs_none_of_them(verifier: Parts) -> None:
    jobs = [code(f"import time; time.sleep(0.01); print(8) # killed {number}") for number in range(100)]
    running = asyncio.ensure_future(verifier.grader.grade(jobs))
    await asyncio.sleep(0.3)
    os.kill(verifier.sandbox.pids[0], signal.SIGKILL)
    assert [brief(verdict) for verdict in await running] == [("passed", 1.0, "all_tests")] * 100


async def test_a_program_whose_zygote_is_killed_again_and_again_is_an_infra_error_and_never_a_zero(
    verifier: Parts,
) -> None:
    running = asyncio.ensure_future(verifier.grader.grade([code("import time; time.sleep(60) # again")]))
    while not running.done():
        await asyncio.sleep(0.2)
        for pid in verifier.sandbox.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    (verdict,) = await running
    assert brief(verdict) == ("infra_error", None, "sandbox_failed")
    (after,) = await verifier.grader.grade([code("print(8) # healed")])
    assert brief(after) == ("passed", 1.0, "all_tests")


async def test_a_mathematics_worker_that_is_killed_is_replaced_and_its_question_asked_again(verifier: Parts) -> None:
    await verifier.grader.grade([math("(y+1)^2", "y^2+2y+1")])
    for pid in verifier.pool.pids:
        os.kill(pid, signal.SIGKILL)
    (verdict,) = await verifier.grader.grade([math("(y+2)^2", "y^2+4y+4")])
    assert brief(verdict) == ("passed", 1.0, "symbolic")


async def test_nothing_is_graded_while_the_sandbox_does_not_hold(verifier: Parts) -> None:
    verifier.canaries.healthy = False
    try:
        with pytest.raises(NotReady, match="did not hold"):
            await verifier.grader.grade([math("5", "5")])
    finally:
        verifier.canaries.healthy = True


async def test_info_tells_tier_isolation_and_when_the_sandbox_was_last_proven(verifier: Parts) -> None:
    info = await verifier.grader.info()
    assert (info.tier, info.workers, info.graders) == ("A", 2, ("exact", "math", "code", "environment"))
    assert {"pidns", "landlock", "seccomp", "no_new_privs"} <= set(info.isolation)
    assert 0 < info.canary_age_seconds < 3600
