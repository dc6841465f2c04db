"""What one test came to: compares what came out of the sandbox with what was expected. Called by `grader.py`."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from prime.types import TestRecord, TestVerdict
from services.verifier.programs.checkers import same_output, same_value
from services.verifier.programs.code_tests import CodeTests, Style
from services.verifier.sandbox.executions import Execution, Outcome

# Comparing more than this is left to a thread, so that the service goes on answering.
_LARGE_OUTPUT = 256 * 1024
_VERDICTS = {
    Outcome.RUNTIME_ERROR: TestVerdict.RE,
    Outcome.CPU_LIMIT: TestVerdict.TLE,
    Outcome.WALL_LIMIT: TestVerdict.ILE,
    Outcome.MEMORY_LIMIT: TestVerdict.MLE,
    Outcome.OUTPUT_LIMIT: TestVerdict.OLE,
    Outcome.UNSUPPORTED_RESULT: TestVerdict.RE,
    Outcome.COMPILE_ERROR: TestVerdict.CE,
    Outcome.POLICY: TestVerdict.SE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One test: `Judged(record=TestRecord(verdict=TestVerdict.AC, ...))`."""

    record: TestRecord
    printed: bytes | None = None
    """What is left for the checker to judge."""
    left_alone: bool = False
    """Passed by an argument that is what was expected, but was so before the call."""
    was_changed: bool = False
    """Passed by an argument that the call changed to what was expected."""
    idle_s: float = 0.0
    """Seconds in which the program neither ran nor wanted to."""

    @property
    def passed(self) -> bool:
        """Whether nothing was wrong with it."""
        return self.record.verdict is TestVerdict.AC


async def judge(tests: CodeTests, index: int, execution: Execution) -> Judged:
    """What test `index` came to."""
    if execution.outcome is not Outcome.OK:
        return Judged(record=record_of(execution, _VERDICTS[execution.outcome]))
    if tests.checker is not None:
        return Judged(record=record_of(execution, TestVerdict.WA), printed=execution.stdout)
    expected = tests.outputs[index]
    expected_size = len(expected) if isinstance(expected, str | list) else 0
    if len(execution.stdout) + len(execution.value) + expected_size > _LARGE_OUTPUT:
        return await asyncio.to_thread(_compare, tests, index, execution)
    return _compare(tests, index, execution)


def without_idlers(tests: Sequence[Judged]) -> list[Judged]:
    """The same, where no argument was ever changed, without what was passed by one: that function did nothing."""
    if any(test.was_changed for test in tests):
        return list(tests)
    return [
        replace(test, record=replace(test.record, verdict=TestVerdict.WA)) if test.left_alone else test
        for test in tests
    ]


def record_of(execution: Execution, verdict: TestVerdict) -> TestRecord:
    """The record of a test that ended like this."""
    return TestRecord(
        verdict=verdict,
        cpu_ms=execution.cpu_ms,
        wall_ms=execution.wall_ms,
        peak_mib=execution.peak_mib,
        output_bytes=len(execution.stdout),
        signal=max(0, -execution.exit_code),
    )


def _compare(tests: CodeTests, index: int, execution: Execution) -> Judged:
    right: bool | None = True
    if tests.style is Style.STDIN:
        right = same_output(execution.stdout, tests.outputs[index], tests.comparison, tests.tolerance)
    elif tests.style is Style.CALL:
        return _compare_value(tests, index, execution)
    # Assertions that did not hold ended their process with an error.
    return Judged(record=record_of(execution, _verdict(right)))


def _compare_value(tests: CodeTests, index: int, execution: Execution) -> Judged:
    """By what was returned or, where nothing was, by what the first argument has become."""
    value, _, argument = execution.value.partition(b"\n")
    right = same_value(value, tests.outputs[index], tests.comparison, tests.tolerance)
    if right is not False or not argument:
        return Judged(record=record_of(execution, _verdict(right)))
    right = same_value(argument, tests.outputs[index], tests.comparison, tests.tolerance)
    changed = same_value(argument, _first(tests.inputs[index])) is False
    return Judged(
        record=record_of(execution, _verdict(right)),
        left_alone=bool(right) and not changed,
        was_changed=bool(right) and changed,
    )


def _first(arguments: Any) -> Any:
    values = list(arguments.values() if isinstance(arguments, dict) else arguments)
    # As JSON gives it back, so that a text is not taken for the JSON of something.
    return json.loads(json.dumps(values[0])) if values else None


def _verdict(right: bool | None) -> TestVerdict:
    # None is a value that is none.
    return TestVerdict.RE if right is None else TestVerdict.AC if right else TestVerdict.WA
