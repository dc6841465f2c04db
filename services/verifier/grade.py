"""The use case: grade answers. Chooses the grader, runs it within bounds, and turns what it found into a verdict.

Right is passed, wrong is failed; whatever went wrong on our side, or could not be known, is undecided and never a zero.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from prime.adapters.telemetry import Meters
from prime.errors import InvalidInput, Overloaded, SandboxError
from prime.types import GradeItem, Verdict, VerdictStatus, VerifierInfo
from services.verifier.checkers import (
    CodeTests,
    chain_answer,
    extract_program,
    parse_code_tests,
    same_output,
    same_value,
)
from services.verifier.exact_math import Decided, Symbolic, compare_answer
from services.verifier.mathematics import MathPool, Unsettled
from services.verifier.sandbox import Call, Execution, Limits, Outcome, Sandbox
from services.verifier.settings import VerifierSettings

GRADERS = ("exact", "math", "code")
_BY_SOURCE = {"chain": "exact", "apps": "code", "codecontests": "code", "taco": "code", "codeforces": "code"}
_BY_ABILITY = {"math": "math", "code": "code"}
# Wall time of a whole program in units of its processor time; beyond it the program idles on purpose.
_IDLE_FACTOR = 4
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    """A verdict that does not know yet how long it took; score None is undecided."""

    score: float | None
    reason: str


class Grader:
    """`ports.Verifier` at work. Mathematics and code have places of their own, so neither waits for the other."""

    def __init__(self, settings: VerifierSettings, sandbox: Sandbox, pool: MathPool, meters: Meters) -> None:
        self._settings = settings
        self._sandbox = sandbox
        self._pool = pool
        self._accepted = 0
        self._limits = Limits(
            cpu_seconds=settings.cpu_seconds,
            wall_seconds=settings.wall_seconds,
            memory_mib=settings.memory_mib,
            output_kib=settings.output_kib,
        )
        # Few programs wait inside with their tests unpacked; the rest wait here, as they came.
        self._programs = asyncio.Semaphore(settings.workers)
        self._verdicts = meters.counter(
            "prime_verdicts_total", "Verdicts by grader, status and reason.", ("grader", "status", "reason")
        )
        self._seconds = meters.histogram("prime_grade_seconds", "Time per verdict, waiting included.", ("grader",))
        self._queued = meters.gauge("prime_grades_queued", "Answers accepted and not yet graded.")

    async def grade(self, items: Sequence[GradeItem]) -> list[Verdict]:
        """One verdict per item, in order. All items are checked before the first is graded.

        Raises:
            InvalidInput: an item has no grader or an unusable ground truth; names the item.
            Overloaded: too many answers wait already.
        """
        most = self._settings.max_queue
        if len(items) > most:
            raise InvalidInput(f"{len(items)} answers in one call, the limit is {most} (`max_queue`); split the call")
        if self._accepted + len(items) > most:
            raise Overloaded(f"{self._accepted} answers wait already and {most} may (`max_queue`); try again later")
        self._accept(len(items))
        try:
            jobs = [_naming(item, self._prepare) for item in items]
            return list(await asyncio.gather(*(self._timed(*job) for job in jobs)))
        finally:
            self._accept(-len(items))

    async def info(self) -> VerifierInfo:
        """What it grades, and the isolation in force."""
        return VerifierInfo(graders=GRADERS, isolation=self.isolation, workers=self._settings.workers)

    isolation: tuple[str, ...] = ()
    """Set once at boot, from what the canaries ran under."""

    def _accept(self, count: int) -> None:
        self._accepted += count
        self._queued.set(self._accepted)

    def _prepare(self, item: GradeItem) -> tuple[str, Callable[[], Awaitable[_Finding]]]:
        """The grader's name and the work; what costs nothing is decided here and now."""
        grader = grader_of(item)
        if grader == "exact":
            return grader, _ready(_grade_chain(item))
        if grader == "math":
            found = compare_answer(item.response, item.ground_truth)
            return grader, _ready(_from_decided(found)) if isinstance(found, Decided) else self._symbolic(found)
        tests = parse_code_tests(item.ground_truth, self._settings.max_tests)
        program = extract_program(item.response)
        if program is None:
            return grader, _ready(_Finding(score=0.0, reason="no_code"))
        return grader, self._code(program.encode("utf-8", "replace"), tests)

    async def _timed(self, grader: str, work: Callable[[], Awaitable[_Finding]]) -> Verdict:
        started = time.perf_counter()
        try:
            finding = await work()
        except SandboxError as error:
            _log.error("not graded", grader=grader, detail=str(error))
            finding = _Finding(score=None, reason="sandbox_failed")
        seconds = time.perf_counter() - started
        status = _status(finding.score)
        self._verdicts.labels(grader, status.value, finding.reason.partition(":")[0]).inc()
        self._seconds.labels(grader).observe(seconds)
        return Verdict(status=status, score=finding.score, reason=finding.reason, milliseconds=seconds * 1000)

    def _symbolic(self, question: Symbolic) -> Callable[[], Awaitable[_Finding]]:
        async def work() -> _Finding:
            try:
                equal = await self._pool.equal(question.gold, question.parts)
            except Unsettled as unsettled:
                return _Finding(score=None, reason=str(unsettled))
            return _Finding(score=1.0, reason="symbolic") if equal else _Finding(score=0.0, reason="mismatch")

        return work

    def _code(self, program: bytes, tests: CodeTests) -> Callable[[], Awaitable[_Finding]]:
        async def work() -> _Finding:
            async with self._programs:
                return await self._run_tests(program, tests)

        return work

    async def _run_tests(self, program: bytes, tests: CodeTests) -> _Finding:
        total, passed, first_failure = len(tests.inputs), 0, ""
        cpu_left = self._settings.program_seconds * 1000
        wall_left = _IDLE_FACTOR * cpu_left
        for index, (given, expected) in enumerate(zip(tests.inputs, tests.outputs, strict=True)):
            if cpu_left <= 0 or wall_left <= 0:
                first_failure = first_failure or f"program_limit:{index}"
                break
            execution = await self._run(program, tests.fn_name, given)
            cpu_left -= execution.cpu_ms
            wall_left -= execution.wall_ms
            failure = await asyncio.to_thread(_failure, execution, tests.fn_name, expected)
            if not failure:
                passed += 1
            elif not first_failure:
                first_failure = f"{failure}:{index}"
        if passed == total:
            return _Finding(score=1.0, reason="all_tests")
        return _Finding(score=passed / total, reason=first_failure)

    async def _run(self, program: bytes, fn_name: str | None, given: object) -> Execution:
        call, stdin = None, b""
        if fn_name is None:
            stdin = str(given).encode("utf-8", "replace")
        else:
            assert isinstance(given, list)
            call = Call(fn_name=fn_name, arguments=given)
        try:
            return await self._sandbox.run(program, stdin, self._limits, call)
        except SandboxError as error:
            _log.warning("test repeated", detail=str(error))
        return await self._sandbox.run(program, stdin, self._limits, call)


def grader_of(item: GradeItem) -> str:
    """The grader for an item: by data source, else by ability.

    Raises:
        InvalidInput: neither is known.
    """
    grader = _BY_SOURCE.get(item.data_source) or _BY_ABILITY.get(item.ability)
    if grader is None:
        raise InvalidInput(
            f"no grader for data_source {item.data_source!r} and ability {item.ability!r}; known are the sources "
            f"{', '.join(_BY_SOURCE)} and the abilities {', '.join(_BY_ABILITY)}"
        )
    return grader


def _naming(
    item: GradeItem, prepare: Callable[[GradeItem], tuple[str, Callable[[], Awaitable[_Finding]]]]
) -> tuple[str, Callable[[], Awaitable[_Finding]]]:
    try:
        return prepare(item)
    except InvalidInput as error:
        raise InvalidInput(f"item {item.item_id!r}: {error}") from None


def _grade_chain(item: GradeItem) -> _Finding:
    wanted = item.ground_truth.strip()
    if not wanted:
        raise InvalidInput("the ground truth is empty")
    answer = chain_answer(item.response)
    if answer is None:
        return _Finding(score=0.0, reason="no_answer")
    return _Finding(score=1.0, reason="exact") if answer == wanted else _Finding(score=0.0, reason="mismatch")


def _from_decided(found: Decided) -> _Finding:
    return _Finding(score=None if found.equal is None else float(found.equal), reason=found.reason)


def _ready(finding: _Finding) -> Callable[[], Awaitable[_Finding]]:
    async def work() -> _Finding:
        return finding

    return work


def _failure(execution: Execution, fn_name: str | None, expected: object) -> str:
    """Why a test failed, or an empty text when it passed."""
    if execution.outcome is not Outcome.OK:
        return execution.outcome.value
    if fn_name is None:
        return "" if same_output(execution.stdout, str(expected)) else "wrong_output"
    same = same_value(execution.value or b"", expected)
    return "" if same else "wrong_output" if same is False else Outcome.UNSUPPORTED_RESULT.value


def _status(score: float | None) -> VerdictStatus:
    if score is None:
        return VerdictStatus.UNDECIDED
    return VerdictStatus.PASSED if score == 1.0 else VerdictStatus.FAILED
