"""Runs a section as a process, ends it at its limit, and reads what it printed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

from benchmarks.gpu.plan import Outcome, Section

CHILD = (sys.executable, "-m", "benchmarks.gpu.child")


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """`Processes(options=("--device", "cuda"))`."""

    options: Sequence[str]
    command: Sequence[str] = CHILD

    def run(self, section: Section, *, seconds: float, limit: float) -> Outcome:
        """As `plan.Runner` says. What the process writes to its stderr comes out on ours when it has ended."""
        call = [*self.command, section.name, *self.options, "--seconds", str(seconds), "--limit", str(limit)]
        started = time.monotonic()
        with (
            tempfile.TemporaryFile("w+", errors="replace") as out,
            tempfile.TemporaryFile("w+", errors="replace") as err,
        ):
            # A group of its own, so that what it started ends with it.
            child = subprocess.Popen(call, stdout=out, stderr=err, process_group=0)
            try:
                code: int | None = child.wait(limit)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            printed, complaints = _lines(out), _lines(err)
        print(*complaints, sep="\n", file=sys.stderr, flush=True)
        spent = round(time.monotonic() - started, 1)
        if code is None:
            return Outcome(status="failed", reason=f"did not end within its {limit:.0f} s", seconds=spent)
        if code != 0:
            last = complaints[-1] if complaints else "it said nothing"
            return Outcome(status="failed", reason=f"ended with code {code}: {last}", seconds=spent)
        return _outcome(printed, spent)


def _lines(file: IO[str]) -> list[str]:
    file.seek(0)
    return [line.rstrip() for line in file if line.strip()]


def _outcome(printed: Sequence[str], seconds: float) -> Outcome:
    try:
        found: dict[str, Any] = json.loads(printed[-1])
    except (IndexError, ValueError):
        return Outcome(status="failed", reason="its last line is no JSON object", seconds=seconds)
    if "skipped" in found:
        return Outcome(status="skipped", reason=found["skipped"], seconds=seconds)
    problems = found.pop("problems", [])
    if problems:
        return Outcome(status="failed", reason="; ".join(problems), seconds=seconds, figures=found)
    return Outcome(status="done", seconds=seconds, figures=found)
