"""The use case: grade answers. Chooses the grader, runs it within bounds, and turns what it found into a verdict.

Right is passed, wrong is failed; what could not be known is undecided, what cannot be graded an invalid request, and
what went wrong on our side an infra error: three outcomes that are never a zero. Called by `rpc.py`.

    item ──► exact, or mathematics that plain comparison settles ──────────► verdict at once
             mathematics ──► `MathPool`, places of its own ────────────────► verdict
             code ─────────► `ProgramGrader`, as many at once as workers ──► verdict
"""

import asyncio
import hashlib
import json
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from prime.environments.registry import play, read_task
from prime.errors import DataError, InvalidInput, NotReady, Overloaded, SandboxError
from prime.types import GradeItem, TestRecord, Verdict, VerdictStatus, VerifierInfo
from services.verifier.algebra.pool import MathPool, Unsettled
from services.verifier.calls import Calls
from services.verifier.mathematics.compare import Decided, Symbolic, compare_answer
from services.verifier.programs.grader import ProgramGrader
from services.verifier.settings import VerifierSettings

GRADERS = ("exact", "math", "code", "environment")
_BY_SOURCE = {"chain": "exact", "apps": "code", "codecontests": "code", "taco": "code", "codeforces": "code"}
_BY_ABILITY = {"math": "math", "code": "code", "environment": "environment"}
# Parsing more than this is left to a thread, so that the service goes on answering.
_LARGE_GROUND_TRUTH = 256 * 1024
# Answers looked at before other calls have their turn.
_AT_A_TIME = 16
_NOT_PROVEN = "the sandbox did not hold when it was last tried; nothing is graded until it does"
_log = structlog.get_logger()


class Watcher(Protocol):
    """Is told what happens; the metrics."""

    def waiting(self, count: int) -> None:
        """So many answers are accepted and not yet graded."""

    def graded(self, grader: str, verdict: Verdict) -> None:
        """A verdict was found."""


class Proof(Protocol):
    """Knows whether the sandbox holds; the canaries."""

    @property
    def healthy(self) -> bool:
        """Whether it held when last tried."""

    @property
    def age_seconds(self) -> float:
        """Since it was last tried and held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    """A verdict that does not know yet how long it took; score None is undecided."""

    score: float | None
    reason: str
    method: str
    tests: tuple[TestRecord, ...] = ()
    isolated: bool = False
    """Found by something that ran in the sandbox."""
    deterministic: bool = True
    cached: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What has to be run for a finding; `key` names what it depends on."""

    key: bytes
    run: Callable[[], Awaitable[_Finding]]


class Grader:
    """`ports.Verifier` at work. Mathematics and code have places of their own, so neither waits for the other."""

    def __init__(
        self,
        settings: VerifierSettings,
        *,
        programs: ProgramGrader,
        pool: MathPool,
        proof: Proof,
        watcher: Watcher,
        tier: str,
        isolation: tuple[str, ...],
    ) -> None:
        self._settings = settings
        self._math_options = frozenset(settings.math_options)
        self._programs = programs
        self._pool = pool
        self._proof = proof
        self._watcher = watcher
        self._tier = tier
        self._isolation = isolation
        self._calls: Calls[list[Verdict]] = Calls()
        self._accepted = 0
        self._cache: OrderedDict[bytes, _Finding] = OrderedDict()
        # Few programs wait inside with their tests unpacked; the rest wait here, in the order in which they came.
        self._places = asyncio.Semaphore(settings.workers)

    async def grade(
        self, items: Sequence[GradeItem], *, idempotency_key: str = "", budget_seconds: float = 0.0
    ) -> list[Verdict]:
        """One verdict per item, in order; what is wrong with an item costs that item alone.

        With a key, a repeated call joins the first. What is not graded after `budget_seconds` (0: no limit) is
        undecided.

        Raises:
            InvalidInput: more items than ever fit, a negative budget, or a key that came with other items.
            NotReady: the sandbox is not known to hold.
            Overloaded: too many answers wait already.
        """
        most = self._settings.max_queue
        if len(items) > most:
            raise InvalidInput(f"{len(items)} answers in one call, the limit is {most} (`max_queue`); split the call")
        if not 0 <= budget_seconds < math.inf:
            raise InvalidInput(f"budget_seconds must be 0 or more, not {budget_seconds}")
        deadline = time.monotonic() + budget_seconds if budget_seconds else None
        if not idempotency_key:
            return await self._grade(items, deadline)
        return await self._calls.once(idempotency_key, _fingerprint(items), lambda: self._grade(items, deadline))

    async def info(self) -> VerifierInfo:
        """What it grades, and the isolation in force."""
        return VerifierInfo(
            graders=GRADERS,
            isolation=self._isolation,
            workers=self._settings.workers,
            tier=self._tier,
            canary_age_seconds=self._proof.age_seconds,
        )

    async def close(self) -> None:
        """Stop what nobody waits for."""
        await self._calls.close()

    async def _grade(self, items: Sequence[GradeItem], deadline: float | None) -> list[Verdict]:
        if not self._proof.healthy:
            raise NotReady(_NOT_PROVEN)
        most = self._settings.max_queue
        if self._accepted + len(items) > most:
            raise Overloaded(f"{self._accepted} answers wait already and {most} may (`max_queue`); try again later")
        self._accept(len(items))
        started = time.perf_counter()
        verdicts: list[Verdict | asyncio.Future[Verdict]] = []
        jobs: list[asyncio.Future[Verdict]] = []
        try:
            for number, item in enumerate(items):
                if number % _AT_A_TIME == 0:
                    await asyncio.sleep(0)  # others have questions, too
                begun = self._begin(item, started, deadline)
                if isinstance(begun, Verdict):
                    self._accept(-1)
                    verdicts.append(begun)
                    continue
                jobs.append(asyncio.ensure_future(begun))
                jobs[-1].add_done_callback(lambda _: self._accept(-1))
                verdicts.append(jobs[-1])
            await asyncio.gather(*jobs, return_exceptions=True)
        finally:
            for job in jobs:
                job.cancel()
            self._accept(len(verdicts) - len(items))  # those that were never begun
        return [verdict if isinstance(verdict, Verdict) else verdict.result() for verdict in verdicts]

    def _accept(self, count: int) -> None:
        self._accepted += count
        self._watcher.waiting(self._accepted)

    # ------------------------------------------------------------ one item

    def _begin(self, item: GradeItem, started: float, deadline: float | None) -> Verdict | Awaitable[Verdict]:
        """The verdict where it costs nothing, else what has to be awaited for it."""
        grader = ""
        try:
            grader = grader_of(item)
            work = self._prepare(grader, item)
        except InvalidInput as error:
            return self._end(grader, started, VerdictStatus.INVALID_REQUEST, str(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours over one answer must not cost the others
            return self._fail(grader, item, started, error)
        if isinstance(work, _Finding):
            return self._end_with(grader, started, work)
        return self._finish(grader, item, work, started, deadline)

    def _prepare(self, grader: str, item: GradeItem) -> _Finding | _Work:
        if grader == "code":
            if item.options:
                raise InvalidInput("`options` are for mathematics; for code they belong into the ground truth")
            return _Work(key=_digest(item.response, item.ground_truth, str(item.binary)), run=lambda: self._code(item))
        if grader == "exact":
            return _grade_chain(item)
        if grader == "environment":
            return _grade_episode(item)
        found = compare_answer(item.response, item.ground_truth, frozenset(item.options) | self._math_options)
        if isinstance(found, Decided):
            return _Finding(
                score=None if found.equal is None else float(found.equal), reason=found.reason, method="math"
            )
        return _Work(key=_digest(repr(found.question)), run=lambda: self._symbolic(found))

    async def _finish(
        self, grader: str, item: GradeItem, work: _Work, started: float, deadline: float | None
    ) -> Verdict:
        try:
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - time.monotonic())):
                finding = self._recall(work.key) or await work.run()
        except TimeoutError:
            return self._end(grader, started, VerdictStatus.UNDECIDED, "budget")
        except NotReady:
            raise
        except InvalidInput as error:
            return self._end(grader, started, VerdictStatus.INVALID_REQUEST, str(error))
        except Exception as error:  # noqa: BLE001 - as above
            return self._fail(grader, item, started, error)
        if finding.deterministic:
            self._remember(work.key, finding)
        return self._end_with(grader, started, finding)

    def _fail(self, grader: str, item: GradeItem, started: float, error: Exception) -> Verdict:
        _log.error("not graded", grader=grader, item=item.item_id, detail=f"{type(error).__name__}: {error}")
        reason = "sandbox_failed" if isinstance(error, SandboxError) else "internal"
        return self._end(grader, started, VerdictStatus.INFRA_ERROR, reason)

    def _end_with(self, grader: str, started: float, finding: _Finding) -> Verdict:
        status = VerdictStatus.FAILED
        if finding.score is None:
            status = VerdictStatus.UNDECIDED
        elif finding.score == 1.0:
            status = VerdictStatus.PASSED
        return self._end(grader, started, status, finding.reason, finding)

    def _end(
        self, grader: str, started: float, status: VerdictStatus, reason: str, finding: _Finding | None = None
    ) -> Verdict:
        verdict = Verdict(
            status=status,
            score=finding.score if finding else None,
            reason=reason,
            milliseconds=(time.perf_counter() - started) * 1000,
            method=finding.method if finding else "",
            tier=self._tier if finding and finding.isolated else "",
            cached=finding.cached if finding else False,
            tests=finding.tests if finding else (),
        )
        self._watcher.graded(grader, verdict)
        return verdict

    # ------------------------------------------------------------ the graders

    async def _symbolic(self, question: Symbolic) -> _Finding:
        try:
            equal = await self._pool.settle(question)
        except Unsettled as unsettled:
            # What was too much once may fit on a quieter machine.
            return _Finding(score=None, reason=str(unsettled), method="math", isolated=True, deterministic=False)
        if equal:
            return _Finding(score=1.0, reason="symbolic", method="math", isolated=True)
        return _Finding(score=0.0, reason="mismatch", method="math", isolated=True)

    async def _code(self, item: GradeItem) -> _Finding:
        async with self._places:
            if not self._proof.healthy:
                raise NotReady(_NOT_PROVEN)
            if len(item.ground_truth) > _LARGE_GROUND_TRUTH:
                job = await asyncio.to_thread(self._programs.parse, item)
            else:
                job = self._programs.parse(item)
            found = await self._programs.grade(job)
        return _Finding(
            score=found.score,
            reason=found.reason,
            method=found.method,
            tests=found.tests,
            isolated=bool(found.tests),
            deterministic=found.deterministic,
        )

    # ------------------------------------------------------------ the cache

    def _recall(self, key: bytes) -> _Finding | None:
        found = self._cache.get(key)
        if found is not None:
            self._cache.move_to_end(key)
        return found

    def _remember(self, key: bytes, finding: _Finding) -> None:
        self._cache[key] = replace(finding, cached=True)
        while len(self._cache) > self._settings.cache_entries:
            self._cache.popitem(last=False)


def grader_of(item: GradeItem) -> str:
    """The grader for an item: the one that it names, else by data source, else by ability.

    Raises:
        InvalidInput: there is none.
    """
    if item.kind:
        if item.kind not in GRADERS:
            raise InvalidInput(f"kind {item.kind[:40]!r} is not known; use one of {', '.join(GRADERS)}")
        return item.kind
    grader = _BY_SOURCE.get(item.data_source) or _BY_ABILITY.get(item.ability)
    if grader is None:
        raise InvalidInput(
            f"no grader for data_source {item.data_source[:40]!r} and ability {item.ability[:40]!r}; known are the "
            f"sources {', '.join(_BY_SOURCE)} and the abilities {', '.join(_BY_ABILITY)}; or set `kind`"
        )
    return grader


def _grade_episode(item: GradeItem) -> _Finding:
    """Play the actions again: what the sampler says of the episode is not asked."""
    try:
        task = read_task(item.ground_truth)
        actions = json.loads(item.response)
    except DataError as error:
        raise InvalidInput(str(error)) from None
    except ValueError:
        actions = None
    if not isinstance(actions, list) or not all(isinstance(action, str) for action in actions):
        raise InvalidInput("the response to an environment is a JSON list of texts, one per turn")
    score = play(task, actions)
    return _Finding(score=score, reason="solved" if score == 1.0 else "not_solved", method="environment")


def chain_answer(response: str) -> str | None:
    """The text after the last `#`, stripped; None when there is no `#` or nothing after it."""
    _, marker, answer = response.rpartition("#")
    return (answer.strip() or None) if marker else None


def _grade_chain(item: GradeItem) -> _Finding:
    wanted = item.ground_truth.strip()
    if not wanted:
        raise InvalidInput("the ground truth is empty")
    answer = chain_answer(item.response)
    if answer is None:
        return _Finding(score=0.0, reason="no_answer", method="exact")
    right = answer == wanted
    return _Finding(score=float(right), reason="exact" if right else "mismatch", method="exact")


def _digest(*parts: str) -> bytes:
    hashed = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        hashed.update(len(data).to_bytes(8, "little") + data)
    return hashed.digest()


def _fingerprint(items: Sequence[GradeItem]) -> bytes:
    return _digest(*(repr(item) for item in items))
