"""Grades one program: compiles it where its language asks for that, runs every test, judges what came out.

All tests count. What the right output is stays here; the sandbox sees a program and an input. Called by `grade.py`.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, TypeVar

import structlog

from prime.errors import InvalidInput, SandboxError
from prime.types import GradeItem, TestRecord, TestVerdict
from services.verifier.programs.assertions import Assertion
from services.verifier.programs.blocks import Found, find_program
from services.verifier.programs.checking import STOPPED, CheckerFailure, ask_checker
from services.verifier.programs.code_tests import Checker, CodeTests, Language, Style, parse_code_tests
from services.verifier.programs.compiler import CompileFailure, Compiler, Executable
from services.verifier.programs.judging import Judged, judge, record_of, without_idlers
from services.verifier.sandbox.executions import INTERPRETER_MIB, Execution, Limits, Outcome, Program, Task
from services.verifier.sandbox.isolation.wire import MOST_CHANNELS
from services.verifier.sandbox.sandbox import Sandbox
from services.verifier.sandbox.zygotes import Tier

# Of the time that a program may idle, the share that one test may.
_IDLE_SHARE = 0.5
# A program that ends this little above its limit gets a second chance: the machine may have been slow.
_BORDERLINE = 1.2
# Assertions held by one pair of supervisors; each may have to be repeated.
_AT_A_TIME = MOST_CHANNELS // 2
_log = structlog.get_logger()

ResultT = TypeVar("ResultT")

_TIMED = (TestVerdict.TLE, TestVerdict.ILE)
_WORDS = {
    TestVerdict.WA: "wrong_output",
    TestVerdict.RE: "runtime_error",
    TestVerdict.TLE: "cpu_limit",
    TestVerdict.ILE: "wall_limit",
    TestVerdict.MLE: "memory_limit",
    TestVerdict.OLE: "output_limit",
    TestVerdict.CE: "compile_error",
    TestVerdict.SE: "policy",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramJob:
    """A program and its tests, checked and ready to run; without a program when the response holds none."""

    language: Language
    source: bytes
    standard: str
    """Of C++, where the program names one."""
    tests: CodeTests
    binary: bool
    """Stop at the first failed test; the score is 0 or 1."""

    @property
    def method(self) -> str:
        """How it is judged: `code:stdin`, `code:call`, `code:assert` or `code:checker`."""
        return "code:checker" if self.tests.checker else f"code:{self.tests.style.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramFinding:
    """What grading found: `ProgramFinding(score=0.5, reason="wrong_output:1", method="code:stdin", ...)`."""

    score: float | None
    """Share of the tests passed; None when the checker program itself failed."""
    reason: str
    """`all_tests`, or what happened at the first failed test and its index."""
    method: str
    tests: tuple[TestRecord, ...]
    deterministic: bool
    """Whether a second run would say the same; not when a time limit was hit."""


class ProgramGrader:
    """Programs into findings, over a sandbox. `max_tests` per problem; `program_seconds` of processor time for all."""

    def __init__(
        self, sandbox: Sandbox, compiler: Compiler, limits: Limits, *, max_tests: int, program_seconds: float
    ) -> None:
        self._sandbox = sandbox
        self._compiler = compiler
        self._limits = limits
        self._max_tests = max_tests
        self._program_seconds = program_seconds
        self.dropped_tests = 0
        """Tests that were left out so far since they expect nothing."""

    def parse(self, item: GradeItem) -> ProgramJob:
        """Check an item; costs no process.

        Raises:
            InvalidInput: its ground truth is unusable, or asks for what this verifier does not have.
        """
        tests = parse_code_tests(item.ground_truth, self._max_tests)
        if tests.checker is not None and self._sandbox.tier is not Tier.A:
            raise InvalidInput("ground truth: checker programs need a verifier with the tier A sandbox")
        wanted = [*tests.languages, *([tests.checker.language] if tests.checker else [])]
        if Language.CPP in wanted:
            self._compiler.require(tests.checker.source if tests.checker else "")
        found = find_program(item.response, tests.languages, tests.names) or Found(
            language=tests.languages[0], source=""
        )
        self.dropped_tests += tests.dropped
        return ProgramJob(
            language=Language(found.language),
            source=found.source.encode("utf-8", "replace"),
            standard=found.standard,
            tests=tests,
            binary=item.binary,
        )

    async def grade(self, job: ProgramJob) -> ProgramFinding:
        """Run the tests.

        Raises:
            SandboxError: the sandbox failed twice, which says nothing about the program.
        """
        if not job.source:
            return _finding(job, [], "no_code")
        limits = self._limits_for(job.tests)
        tests: list[Judged] = []
        try:
            program = await _twice(lambda: self._compiler.compile(job.language, job.source, job.standard))
            run = self._run_assertions if job.tests.style is Style.ASSERT else self._run_tests
            await _twice(lambda: run(program, job, limits, tests))
            if job.tests.checker is not None:
                checker = await self._compile_checker(job.tests.checker)
                await _twice(lambda: ask_checker(self._sandbox, checker, job.tests, limits, tests))
        except CompileFailure as failure:
            found = _finding(job, [Judged(record=record_of(failure.execution, TestVerdict.CE))], "compile_error:0")
            return replace(found, deterministic=failure.execution.outcome not in STOPPED)
        except CheckerFailure as failure:
            return _finding(job, tests, f"checker_error:{failure}")
        return _finding(job, without_idlers(tests))

    def _limits_for(self, tests: CodeTests) -> Limits:
        cpu_seconds = tests.cpu_seconds or self._limits.cpu_seconds
        return replace(
            self._limits,
            cpu_seconds=cpu_seconds,
            # The wall is a backstop only: a busy machine must not turn it into the limit.
            wall_seconds=max(self._limits.wall_seconds, 2 * cpu_seconds + 1),
            memory_mib=tests.memory_mib + INTERPRETER_MIB if tests.memory_mib else self._limits.memory_mib,
        )

    # ------------------------------------------------------------ the program

    async def _run_tests(self, program: Executable, job: ProgramJob, limits: Limits, done: list[Judged]) -> None:
        """Run what is not done yet; what fails in between keeps what is done."""
        async with self._sandbox.program(program.content, profile=program.profile) as running:
            for index in range(len(done), len(job.tests.inputs)):
                if self._used_up(done):
                    return
                bounded = replace(limits, idle_seconds=self._idle_left(done))
                idle_s = 0.0
                for task in _solve(program, job.tests, index):
                    execution = await _settled(partial(running.run, task, bounded), limits)
                    idle_s += execution.idle_ms / 1000
                    judged = await judge(job.tests, index, execution)
                    if judged.passed:
                        break
                done.append(replace(judged, idle_s=idle_s))
                if _is_over(job, judged):
                    return

    async def _run_assertions(self, program: Executable, job: ProgramJob, limits: Limits, done: list[Judged]) -> None:
        """The same for assertions, each beside the program in a process of its own."""
        while len(done) < len(job.tests.inputs):
            runs = min(len(job.tests.inputs) - len(done), _AT_A_TIME)
            async with self._sandbox.pair(program.content, 2 * runs) as pair:
                for index in range(len(done), len(done) + runs):
                    if self._used_up(done):
                        return
                    # One of the two waits while the other computes.
                    bounded = replace(limits, idle_seconds=self._idle_left(done) + limits.cpu_seconds)
                    execution = await _settled(partial(_examine, *pair, job.tests.inputs[index], bounded), limits)
                    judged = await judge(job.tests, index, execution)
                    done.append(replace(judged, idle_s=execution.idle_ms / 1000))
                    if _is_over(job, done[-1]):
                        return

    def _used_up(self, done: Sequence[Judged]) -> bool:
        seconds = sum(test.record.cpu_ms for test in done) / 1000
        return seconds >= self._program_seconds or self._idle_left(done) <= 0

    def _idle_left(self, done: Sequence[Judged]) -> float:
        """What the next test may idle."""
        limit = self._limits.idle_seconds
        return min(limit - sum(test.idle_s for test in done), _IDLE_SHARE * limit)

    async def _compile_checker(self, checker: Checker) -> Executable:
        try:
            source = checker.source.encode("utf-8", "replace")
            return await _twice(lambda: self._compiler.compile(checker.language, source))
        except CompileFailure as failure:
            raise CheckerFailure(f"compile ({failure})") from None


async def _examine(answering: Program, examining: Program, assertion: Assertion, limits: Limits) -> Execution:
    """How the program ended, if it ended badly, else how the assertions did."""
    detail = json.dumps(asdict(assertion)).encode("utf-8", "replace")
    answered, examined = await asyncio.gather(
        answering.run(Task(mode="answer"), limits), examining.run(Task(mode="examine", detail=detail), limits)
    )
    if answered.outcome is not Outcome.OK:
        return answered
    return replace(
        answered,
        outcome=examined.outcome,
        exit_code=examined.exit_code,
        cpu_ms=answered.cpu_ms + examined.cpu_ms,
        stderr_tail=examined.stderr_tail,
    )


def _is_over(job: ProgramJob, last: Judged) -> bool:
    # What the checker has yet to judge has not failed.
    failed = last.printed is None and not last.passed
    return failed and (job.binary or last.record.verdict is TestVerdict.CE)


def _solve(program: Executable, tests: CodeTests, index: int) -> list[Task]:
    """One test of a solution; a second task is another reading of the same arguments, of which one has to do."""
    given = tests.inputs[index]
    if tests.style is Style.CALL:
        request = {"fn_name": tests.fn_name, "arguments": given, "unordered": tests.is_unordered}
        readings = [True, False] if _has_integer_keys(given) else [False]
        return [
            Task(mode="call", detail=json.dumps({**request, "integer_keys": reading}).encode()) for reading in readings
        ]
    stdin = str(given).encode("utf-8", "replace")
    return [Task(mode="exec", arguments=("program",), stdin=stdin) if program.is_compiled else Task(stdin=stdin)]


def _has_integer_keys(value: Any) -> bool:
    """Whether an argument is, or holds, a dictionary of which JSON may have made texts of the keys."""
    values = list(value.values()) if isinstance(value, dict) else value
    return isinstance(values, list) and any(
        (isinstance(each, dict) and any(key.lstrip("-").isdigit() for key in each)) or _has_integer_keys(each)
        for each in values
    )


async def _twice(work: Callable[[], Awaitable[ResultT]]) -> ResultT:
    """Once more when the sandbox failed, which is not the program's fault."""
    try:
        return await work()
    except SandboxError as error:
        _log.warning("program repeated", detail=str(error))
        return await work()


async def _settled(run: Callable[[], Awaitable[Execution]], limits: Limits) -> Execution:
    """Once more when a clock stopped it that a busy machine may have moved."""
    execution = await run()
    return await run() if _is_borderline(execution, limits) else execution


def _is_borderline(execution: Execution, limits: Limits) -> bool:
    """Stopped by a clock that a busy machine may have moved: barely over its time, or starved of the processor."""
    if execution.outcome is Outcome.CPU_LIMIT:
        return execution.exit_code == 0 and execution.cpu_ms <= _BORDERLINE * limits.cpu_seconds * 1000
    return execution.was_starved


def _finding(job: ProgramJob, tests: Sequence[Judged], failure: str = "") -> ProgramFinding:
    records = tuple(test.record for test in tests)
    total = len(job.tests.inputs)
    passed = sum(record.verdict is TestVerdict.AC for record in records)
    reason = failure or _reason(records, total)
    score: float | None = passed / total
    if job.binary:
        score = float(passed == total)
    if failure.startswith("checker_error"):
        score = None
    return ProgramFinding(
        score=score,
        reason=reason,
        method=job.method,
        tests=records,
        deterministic=score is not None and not _hangs_on_time(records, reason),
    )


def _hangs_on_time(records: Sequence[TestRecord], reason: str) -> bool:
    return reason.startswith("program_limit") or any(record.verdict in _TIMED for record in records)


def _reason(records: Sequence[TestRecord], total: int) -> str:
    for index, record in enumerate(records):
        if record.verdict is not TestVerdict.AC:
            return f"{_WORDS[record.verdict]}:{index}"
    return "all_tests" if len(records) == total else f"program_limit:{len(records)}"
