"""Checker programs, after testlib's protocol: asks one about everything that a program printed. Called by `grader.py`.

A checker runs in a sandbox of its own, where the program has never been. Its word is its exit code: 0 right, 1 and 2
wrong. Every other end is a failure, over the program's output. Then it is asked about the expected output: if it has
a word on that, it works, and the output that broke it is wrong; else nobody knows. So no program decides between the
two by what it prints.
"""

from collections.abc import Mapping
from dataclasses import replace

from prime.types import TestVerdict
from services.verifier.programs.code_tests import CodeTests
from services.verifier.programs.compiler import Executable
from services.verifier.programs.judging import Judged
from services.verifier.sandbox.executions import Execution, Limits, Outcome, Program, Task
from services.verifier.sandbox.sandbox import Sandbox

_RIGHT, _WRONG = (0,), (1, 2)
_FILES = ("input.txt", "output.txt", "answer.txt")
"""What a checker finds in its working folder, and is given as its arguments, in testlib's order."""
STOPPED = (Outcome.CPU_LIMIT, Outcome.WALL_LIMIT, Outcome.OUTPUT_LIMIT)


class CheckerFailure(Exception):
    """The problem's own checker does not work, so nobody knows."""


async def ask_checker(
    sandbox: Sandbox, checker: Executable, tests: CodeTests, limits: Limits, done: list[Judged]
) -> None:
    """Put the checker's verdict in the place of each test in `done` that still has something to judge.

    Raises:
        CheckerFailure: it fails over the expected output, too; names the test.
        SandboxError: the sandbox failed.
    """
    async with sandbox.program(checker.content, profile=checker.profile, with_box=True) as running:
        for index, test in enumerate(done):
            if test.printed is None:
                continue
            given, answer = (
                str(text).encode("utf-8", "replace") for text in (tests.inputs[index], tests.outputs[index])
            )
            execution = await _ask(running, checker, (given, test.printed, answer), limits)
            right = _says(execution)
            if right is None and _says(await _ask(running, checker, (given, answer, answer), limits)) is None:
                raise CheckerFailure(f"{index} (exit code {execution.exit_code}, {execution.outcome.value})")
            verdict = TestVerdict.AC if right else TestVerdict.WA
            done[index] = Judged(record=replace(test.record, verdict=verdict))


async def _ask(running: Program, checker: Executable, contents: tuple[bytes, ...], limits: Limits) -> Execution:
    files: Mapping[str, bytes] = dict(zip(_FILES, contents, strict=True))
    mode, name = ("exec", "program") if checker.is_compiled else ("check", "checker.py")
    return await running.run(Task(mode=mode, arguments=(name, *_FILES), files=files), limits)


def _says(execution: Execution) -> bool | None:
    """None when it says nothing that can be relied on."""
    if execution.outcome in STOPPED or execution.exit_code not in (*_RIGHT, *_WRONG):
        return None
    return execution.exit_code in _RIGHT
