"""Grades one program: compiles it where its language asks for that, runs every test, judges what came out.

All tests count. What the right output is stays here; the sandbox sees a program and an input. Called by `grade.py`.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog

from prime.errors import InvalidInput, SandboxError
from prime.types import GradeItem, TestRecord, TestVerdict
from services.verifier.programs.checkers import extract_program, same_output, same_value
from services.verifier.programs.code_tests import Checker, CodeTests, Language, Style, parse_code_tests
from services.verifier.programs.compiler import CompileFailure, Compiler, Executable
from services.verifier.sandbox.executions import INTERPRETER_MIB, Execution, Limits, Outcome, Task
from services.verifier.sandbox.sandbox import Sandbox
from services.verifier.sandbox.zygotes import Tier

# Of the time that a program may idle, the share that one test may.
_IDLE_SHARE = 0.5
# A program that ends this little above its limit gets a second chance: the machine may have been slow.
_BORDERLINE = 1.2
# Comparing more than this is left to a thread, so that the service goes on answering.
_LARGE_OUTPUT = 256 * 1024
_log = structlog.get_logger()
# Exit codes of testlib's protocol: right; wrong and badly presented; fault of the problem and points, which give no
# verdict here. Every other end is a crash.
_CHECKER_RIGHT, _CHECKER_WRONG, _CHECKER_GIVES_UP = (0,), (1, 2), (3, 7)
_CHECKER_FILES = ("input.txt", "output.txt", "answer.txt")
"""What a checker finds in its working folder, and is given as its arguments, in testlib's order."""
_STOPPED = (Outcome.CPU_LIMIT, Outcome.WALL_LIMIT, Outcome.OUTPUT_LIMIT)

ResultT = TypeVar("ResultT")

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
            self._compiler.require()
        found = extract_program(item.response, tests.languages)
        language, source = found if found else (tests.languages[0], "")
        return ProgramJob(
            language=Language(language), source=source.encode("utf-8", "replace"), tests=tests, binary=item.binary
        )

    async def grade(self, job: ProgramJob) -> ProgramFinding:
        """Run the tests.

        Raises:
            SandboxError: the sandbox failed twice, which says nothing about the program.
        """
        if not job.source:
            return _finding(job, [], "no_code")
        limits = self._limits_for(job.tests)
        tests: list[_Test] = []
        try:
            program = await _twice(lambda: self._compiler.compile(job.language, job.source))
            await _twice(lambda: self._run_tests(program, job, limits, tests))
            if job.tests.checker is not None:
                checker = await self._compile_checker(job.tests.checker)
                await _twice(lambda: self._ask_checker(checker, job.tests, limits, tests))
        except CompileFailure as failure:
            found = _finding(job, [_Test(record=_record(failure.execution, TestVerdict.CE))], "compile_error:0")
            return replace(found, deterministic=failure.execution.outcome not in _STOPPED)
        except _CheckerFailure as failure:
            return _finding(job, tests, f"checker_error:{failure}")
        return _finding(job, tests)

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

    async def _run_tests(self, program: Executable, job: ProgramJob, limits: Limits, done: list["_Test"]) -> None:
        """Run what is not done yet; what fails in between keeps what is done."""
        async with self._sandbox.program(program.content, profile=program.profile) as running:
            for index in range(len(done), len(job.tests.inputs)):
                if self._used_up(done):
                    return
                task = _solve(program, job.tests, index)
                bounded = replace(limits, idle_seconds=self._idle_left(done))
                execution = await running.run(task, bounded)
                if _is_borderline(execution, limits):
                    execution = await running.run(task, bounded)
                judged = await _judge(job.tests, index, execution)
                done.append(replace(judged, idle_s=execution.idle_ms / 1000))
                # What the checker has yet to judge has not failed.
                failed = done[-1].printed is None and done[-1].record.verdict is not TestVerdict.AC
                if failed and (job.binary or done[-1].record.verdict is TestVerdict.CE):
                    return

    def _used_up(self, done: Sequence["_Test"]) -> bool:
        seconds = sum(test.record.cpu_ms for test in done) / 1000
        return seconds >= self._program_seconds or self._idle_left(done) <= 0

    def _idle_left(self, done: Sequence["_Test"]) -> float:
        """What the next test may idle."""
        limit = self._limits.idle_seconds
        return min(limit - sum(test.idle_s for test in done), _IDLE_SHARE * limit)

    # ------------------------------------------------------------ the checker

    async def _compile_checker(self, checker: Checker) -> Executable:
        try:
            source = checker.source.encode("utf-8", "replace")
            return await _twice(lambda: self._compiler.compile(checker.language, source))
        except CompileFailure as failure:
            raise _CheckerFailure(f"compile ({failure})") from None

    async def _ask_checker(self, checker: Executable, tests: CodeTests, limits: Limits, done: list["_Test"]) -> None:
        """Let the checker judge what was printed. In a sandbox of its own, where the program has never been."""
        async with self._sandbox.program(checker.content, profile=checker.profile, with_box=True) as running:
            for index, test in enumerate(done):
                if test.printed is None:
                    continue
                texts = (str(text) for text in (tests.inputs[index], tests.outputs[index]))
                given, answer = (text.encode("utf-8", "replace") for text in texts)

                async def ask(printed: bytes, given: bytes = given, answer: bytes = answer) -> Execution:
                    files = dict(zip(_CHECKER_FILES, (given, printed, answer), strict=True))
                    return await running.run(_check(checker, files), limits)

                execution = await ask(test.printed)
                right = _checker_says(execution)
                # Many a checker breaks over an output that is none. One that takes the reference answer works, and it
                # is the output that was wrong; a program must not be spared for printing what breaks checkers.
                if right is None and (_gives_up(execution) or not _checker_says(await ask(answer))):
                    raise _CheckerFailure(f"{index} (exit code {execution.exit_code}, {execution.outcome.value})")
                verdict = TestVerdict.AC if right else TestVerdict.WA
                done[index] = _Test(record=replace(test.record, verdict=verdict))


def _checker_says(execution: Execution) -> bool | None:
    """None when it says nothing that can be relied on."""
    if execution.outcome in _STOPPED or execution.exit_code not in (*_CHECKER_RIGHT, *_CHECKER_WRONG):
        return None
    return execution.exit_code in _CHECKER_RIGHT


def _gives_up(execution: Execution) -> bool:
    return execution.outcome not in _STOPPED and execution.exit_code in _CHECKER_GIVES_UP


class _CheckerFailure(Exception):
    """The problem's own checker broke, so nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Test:
    record: TestRecord
    printed: bytes | None = None
    """What is left for the checker to judge."""
    idle_s: float = 0.0


def _solve(program: Executable, tests: CodeTests, index: int) -> Task:
    """One test of a solution."""
    given = tests.inputs[index]
    if tests.style is Style.CALL:
        return Task(mode="call", detail=json.dumps({"fn_name": tests.fn_name, "arguments": given}).encode())
    if tests.style is Style.ASSERT:
        return Task(mode="assert", detail=str(given).encode("utf-8", "replace"))
    stdin = str(given).encode("utf-8", "replace")
    return Task(mode="exec", arguments=("program",), stdin=stdin) if program.is_compiled else Task(stdin=stdin)


def _check(checker: Executable, files: Mapping[str, bytes]) -> Task:
    """One judgement of a checker."""
    mode, name = ("exec", "program") if checker.is_compiled else ("check", "checker.py")
    return Task(mode=mode, arguments=(name, *_CHECKER_FILES), files=files)


async def _twice(work: Callable[[], Awaitable[ResultT]]) -> ResultT:
    """Once more when the sandbox failed, which is not the program's fault."""
    try:
        return await work()
    except SandboxError as error:
        _log.warning("program repeated", detail=str(error))
        return await work()


def _is_borderline(execution: Execution, limits: Limits) -> bool:
    """Stopped by a clock that a busy machine may have moved: barely over its time, or starved of the processor."""
    if execution.outcome is Outcome.CPU_LIMIT:
        return execution.exit_code == 0 and execution.cpu_ms <= _BORDERLINE * limits.cpu_seconds * 1000
    return execution.was_starved


async def _judge(tests: CodeTests, index: int, execution: Execution) -> _Test:
    if execution.outcome is not Outcome.OK:
        return _Test(record=_record(execution, _VERDICTS[execution.outcome]))
    if tests.checker is not None:
        return _Test(record=_record(execution, TestVerdict.WA), printed=execution.stdout)
    expected = tests.outputs[index]
    expected_size = len(expected) if isinstance(expected, str | list) else 0
    if len(execution.stdout) + len(execution.value) + expected_size > _LARGE_OUTPUT:
        verdict = await asyncio.to_thread(_compare, tests, index, execution)
    else:
        verdict = _compare(tests, index, execution)
    return _Test(record=_record(execution, verdict))


def _compare(tests: CodeTests, index: int, execution: Execution) -> TestVerdict:
    right: bool | None = True
    if tests.style is Style.STDIN:
        right = same_output(execution.stdout, tests.outputs[index], tests.comparison, tests.tolerance)
    elif tests.style is Style.CALL:
        right = same_value(execution.value, tests.outputs[index])
    # Assertions that did not hold ended the process with an error; None is a value that is none.
    return TestVerdict.RE if right is None else TestVerdict.AC if right else TestVerdict.WA


def _record(execution: Execution, verdict: TestVerdict) -> TestRecord:
    return TestRecord(
        verdict=verdict,
        cpu_ms=execution.cpu_ms,
        wall_ms=execution.wall_ms,
        peak_mib=execution.peak_mib,
        output_bytes=len(execution.stdout),
        signal=max(0, -execution.exit_code),
    )


def _finding(job: ProgramJob, tests: Sequence[_Test], failure: str = "") -> ProgramFinding:
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
