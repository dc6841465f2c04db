"""A grader of programs over a sandbox of one tier, and what must be true after it has graded something hostile."""

import asyncio
import contextlib
import itertools
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from prime.types import GradeItem, TestVerdict
from services.verifier.programs.compiler import Compiler
from services.verifier.programs.grader import ProgramFinding, ProgramGrader
from services.verifier.sandbox.executions import Execution, Limits, Task
from services.verifier.sandbox.sandbox import Sandbox
from services.verifier.sandbox.zygotes import Tier

AC, WA, RE, TLE = TestVerdict.AC, TestVerdict.WA, TestVerdict.RE, TestVerdict.TLE
ILE, MLE, OLE, CE, SE = TestVerdict.ILE, TestVerdict.MLE, TestVerdict.OLE, TestVerdict.CE, TestVerdict.SE

LIMITS = Limits(cpu_seconds=2.0, wall_seconds=1.5, memory_mib=512, output_kib=8192)
SHORT_CPU = 0.3
"""For programs that are to use up their time: a limit of their own, which also shortens the wall time."""
_SLOTS = 2
_PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/run", "/")
# Users of a test run's own, so that what another run on this machine leaves behind is not taken for ours.
_FIRST_IDENTITIES = itertools.count(50_000 - 32 * (os.getpid() % 1000), -_SLOTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A program and the verdict that it deserves: `Case(row=16, tries="loops", program="while True: pass", ...)`.

    Unless it says otherwise it is given `3 5` and should print 8, or be called with 3 and 5 and return 8.
    """

    row: int
    """Of the list of hostile programs that this verifier must survive; 0 for honest ones."""
    tries: str
    program: str
    verdict: TestVerdict | Sequence[TestVerdict]
    tests: Mapping[str, object] = field(default_factory=dict)
    """Ground truth beside or instead of the usual."""
    language: str = "python"

    @property
    def name(self) -> str:
        """Its name among the tests."""
        return f"{self.row}: {self.tries}" if self.row else self.tries

    @property
    def allowed(self) -> tuple[TestVerdict, ...]:
        """Verdicts that are right for it."""
        return (self.verdict,) if isinstance(self.verdict, TestVerdict) else tuple(self.verdict)


def names(cases: Sequence[Case]) -> list[str]:
    """For `pytest.mark.parametrize`."""
    return [case.name for case in cases]


SCRIPT: dict[str, object] = {"inputs": ["3 5\n"], "outputs": ["8\n"]}
CALL: dict[str, object] = {"inputs": [[3, 5]], "outputs": [8], "fn_name": "solve"}
QUICK: dict[str, object] = {"cpu_seconds": SHORT_CPU}
HONEST = "print(sum(map(int, input().split())))"


class Judge:
    """Grades, and looks after the grading whether everything is as it was before."""

    def __init__(self, sandbox: Sandbox, identities: Sequence[int]) -> None:
        self.sandbox = sandbox
        self.tier = sandbox.tier
        self.compiler = Compiler(sandbox)
        self._identities = set(identities) if os.getuid() == 0 else set()
        self._pids = sandbox.pids

    def grader(self, *, program_seconds: float = 60.0, max_tests: int = 1000, limits: Limits = LIMITS) -> ProgramGrader:
        """One of its own settings, over the same sandbox."""
        return ProgramGrader(self.sandbox, self.compiler, limits, max_tests=max_tests, program_seconds=program_seconds)

    async def grade(
        self, program: str, tests: Mapping[str, object] | None = None, *, language: str = "python", binary: bool = False
    ) -> ProgramFinding:
        """What the program deserves."""
        item = item_of(program, tests or SCRIPT, language=language, binary=binary)
        grader = self.grader()
        return await grader.grade(grader.parse(item))

    async def verdict(self, case: Case) -> TestVerdict:
        """Of the one test of a case."""
        usual = {} if "inputs" in case.tests or "assertions" in case.tests else SCRIPT
        found = await self.grade(case.program, {**usual, **case.tests}, language=case.language)
        (record,) = found.tests
        assert found.score == float(record.verdict is AC)
        return record.verdict

    async def run(self, program: str, task: Task | None = None, limits: Limits = LIMITS) -> Execution:
        """What comes out of one run."""
        async with self.sandbox.program(program.encode("utf-8", "surrogateescape")) as running:
            return await running.run(task or Task(), limits)

    async def expect(self, case: Case) -> None:
        """The case gets its verdict, and leaves nothing behind."""
        found = await self.verdict(case)
        assert found in case.allowed, f"{case.name}: {found}"
        await self.is_as_before()

    async def is_as_before(self) -> None:
        """The zygotes live, an honest program passes, and neither a process nor a file was left."""
        assert self.sandbox.pids == self._pids, "a zygote was lost"
        assert (await self.grade(HONEST)).score == 1.0
        assert await self.strays() == []
        assert self._files() == []

    async def strays(self) -> list[str]:
        """Processes besides the zygotes that are still there after a moment."""
        for _ in range(50):
            found = self._processes()
            if not found:
                break
            await asyncio.sleep(0.02)
        return found

    def _processes(self) -> list[str]:
        found = []
        for process in psutil.process_iter(["pid", "ppid", "uids", "status", "name"]):
            info = process.info
            ours = info["ppid"] in self._pids or (info["uids"] and info["uids"].real in self._identities)
            if ours and info["pid"] not in self.sandbox.pids and info["status"] != psutil.STATUS_ZOMBIE:
                found.append(f"{info['pid']} {info['name']}")
        return found

    def _files(self) -> list[str]:
        found = []
        for place in _PLACES:
            for entry in os.scandir(place):
                with contextlib.suppress(FileNotFoundError):
                    ours = entry.stat(follow_symlinks=False).st_uid in self._identities
                    if ours or entry.name.startswith("prime-escape"):
                        found.append(entry.path)
        return found


def item_of(program: str, tests: Mapping[str, object], *, language: str = "python", binary: bool = False) -> GradeItem:
    """As a client would send it."""
    return GradeItem(
        item_id="program",
        data_source="taco",
        ability="code",
        response=f"Here it is:\n```{language}\n{program}\n```\n",
        ground_truth=json.dumps({"language": language, **tests} if language != "python" else dict(tests)),
        binary=binary,
    )


@contextlib.asynccontextmanager
async def open_judge(tier: Tier) -> AsyncIterator[Judge]:
    """A judge over a sandbox of its own."""
    first = next(_FIRST_IDENTITIES)
    sandbox = Sandbox(_SLOTS, tier, first_identity=first)
    await sandbox.start()
    try:
        yield Judge(sandbox, range(first - _SLOTS + 1, first + 1))
    finally:
        sandbox.close()
        assert not Path("/tmp/prime-escape").exists()
