"""Makes programs executable: Python as it is, C++ through the compiler in a sandbox of its own, with a cache.

Called by `grader.py`. What is compiled is as hostile as what is run: the compiler sees a root without secrets.
"""

import hashlib
import shutil
import subprocess
from collections import OrderedDict
from dataclasses import dataclass

from prime.errors import InvalidInput, SandboxError
from services.verifier.programs.code_tests import Language
from services.verifier.sandbox.executions import Execution, Limits, Outcome, Task
from services.verifier.sandbox.sandbox import Sandbox
from services.verifier.sandbox.toolchain import COMPILER
from services.verifier.sandbox.zygotes import Tier

# Static: a program then needs no file at all, and starts faster.
_FLAGS = ("-O2", "-static", "-pipe", "-fno-diagnostics-color", "-fmax-errors=5")
# What a program is written in that does not say so: the older one compiles faster, the newer one reads it, too.
_STANDARDS = ("17", "23")
_TESTLIB = "testlib.h"
# Processor time stops it. It never waits for anything, so its wall time is what a very busy machine makes of that.
_LIMITS = Limits(cpu_seconds=20.0, wall_seconds=600.0, memory_mib=1536, output_kib=256)
_CACHE_BYTES = 256 * 1024 * 1024


# How g++ tells that one of its own parts was killed from outside, or could not be started.
_NOT_THE_SOURCE = (b"Killed signal terminated program", b"cannot execute", b"posix_spawn", b"vfork", b"fork:")


def _was_starved(execution: Execution) -> bool:
    """Whether it was the machine that kept the compiler from its end, not what it compiled."""
    if execution.outcome is Outcome.WALL_LIMIT:
        return execution.was_starved
    return execution.exit_code != 0 and any(text in execution.stderr_tail for text in _NOT_THE_SOURCE)


class CompileFailure(Exception):
    """The compiler did not make a program of it; `execution` is how it ended."""

    def __init__(self, execution: Execution) -> None:
        super().__init__(execution.stderr_tail.decode("utf-8", "replace").strip()[:300])
        self.execution = execution


@dataclass(frozen=True, slots=True, kw_only=True)
class Executable:
    """What the sandbox is given: `Executable(language=PYTHON, content=b"print(1)")`."""

    language: Language
    content: bytes

    @property
    def profile(self) -> str:
        """The sandbox's profile for it."""
        return "binary" if self.is_compiled else "python"

    @property
    def is_compiled(self) -> bool:
        """Whether the kernel runs it, not the interpreter."""
        return self.language is Language.CPP


class Compiler:
    """Compiles in `sandbox`; keeps what it compiled, by source, standard, flags and compiler version.

    `testlib` is the header of that name, for checkers that include it.
    """

    def __init__(self, sandbox: Sandbox, testlib: bytes = b"") -> None:
        self._sandbox = sandbox
        self._testlib = testlib
        self._version: bytes | None = None
        self._cache: OrderedDict[bytes, bytes] = OrderedDict()
        self._cached_bytes = 0

    def require(self, checker: str = "") -> None:
        """Raises InvalidInput when this verifier cannot compile C++, or not this checker; says why."""
        if self._sandbox.tier is not Tier.A:
            raise InvalidInput("C++ needs a verifier with the tier A sandbox; this one runs tier B, Python only")
        if shutil.which(COMPILER) is None:
            raise InvalidInput(f"this verifier has no C++ compiler at {COMPILER}; install g++ where it runs")
        if _TESTLIB in checker and not self._testlib:
            raise InvalidInput(
                f"ground truth: the checker includes {_TESTLIB}, which this verifier does not have; name the file in "
                "`verifier.testlib_path`"
            )

    async def compile(self, language: Language, source: bytes, standard: str = "") -> Executable:
        """The executable form, for a C++ standard or, without one, for the first of two that compiles it.

        Raises:
            CompileFailure: the compiler refused it, or ran out of its limits over it.
            SandboxError: the sandbox failed.
        """
        if language is Language.PYTHON:
            return Executable(language=language, content=source)
        standards = (standard,) if standard else _STANDARDS
        keys = [self._key(source, each) for each in standards]
        for key in keys:
            binary = self._recall(key)
            if binary is not None:
                return Executable(language=language, content=binary)
        for key, each, is_last in zip(keys, standards, [*[False] * (len(keys) - 1), True], strict=True):
            try:
                binary = await self._run_compiler(source, each)
            except CompileFailure as failure:
                if is_last or failure.execution.outcome is not Outcome.RUNTIME_ERROR:
                    raise
                continue
            self._remember(key, binary)
            break
        assert binary is not None
        return Executable(language=language, content=binary)

    def _key(self, source: bytes, standard: str) -> bytes:
        parts = (source, standard.encode(), *(flag.encode() for flag in _FLAGS), self._compiler_version())
        return hashlib.sha256(b"\0".join(parts)).digest()

    async def _run_compiler(self, source: bytes, standard: str) -> bytes:
        arguments = (COMPILER, f"-std=c++{standard}", *_FLAGS, "-o", "program", "solution.cpp")
        files = {"solution.cpp": source}
        if _TESTLIB.encode() in source and self._testlib:
            files[_TESTLIB] = self._testlib
        async with self._sandbox.program(b"", profile="compiler", with_box=True) as running:
            execution = await running.run(
                Task(mode="exec", arguments=arguments, files=files), _LIMITS, wants_binary=True
            )
        if _was_starved(execution):
            raise SandboxError("the compiler ran out of wall time or was killed; the machine is too busy for it")
        if execution.outcome is not Outcome.OK or not execution.value:
            raise CompileFailure(execution)
        return execution.value

    def _compiler_version(self) -> bytes:
        if self._version is None:
            done = subprocess.run([COMPILER, "--version"], capture_output=True, check=False, timeout=10)
            self._version = done.stdout
        return self._version

    def _recall(self, key: bytes) -> bytes | None:
        if key in self._cache:
            self._cache.move_to_end(key)
        return self._cache.get(key)

    def _remember(self, key: bytes, binary: bytes) -> None:
        if key not in self._cache:
            self._cached_bytes += len(binary)
        self._cache[key] = binary
        while self._cached_bytes > _CACHE_BYTES:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= len(dropped)
