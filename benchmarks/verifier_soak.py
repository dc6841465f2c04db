"""`make soak-verifier`: a hundred thousand jobs, honest, hostile and mathematical, and what is left behind by them.

Watches descriptors, memory and processes on the way, and whether any verdict was not the expected one; then runs honest
programs beside twice as many busy processes as there are cores, and counts flipped verdicts. The last line is one JSON
object.
"""

import argparse
import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil
import structlog

from benchmarks.verifier_workload import POISON, Pair, additions, code_item, math_item, mathematics
from prime.adapters.telemetry import Meters
from prime.types import GradeItem, VerdictStatus
from services.verifier.main import Parts, open_verifier
from services.verifier.settings import VerifierSettings

_BATCH = 500
_HOSTILE = (
    ("import os\nos.fork()\nprint(8)", "runtime_error"),
    ("import os\nos.kill(-1, 9)\nprint(8)", "runtime_error"),
    ("a = bytearray(2**31)", "memory_limit"),
    ("while True: print('x' * 100000)", "output_limit"),
    ("open('/tmp/prime-soak', 'w')\nprint(8)", "runtime_error"),
    ("import os\nwhile True: os.pipe()", "runtime_error"),
    ("import sys; sys.exit(0)", "wrong_output"),
)
_Job = tuple[GradeItem, str]
"""An item and the reason that its verdict has to give."""


def main() -> None:
    """Run it and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--flip-runs", type=int, default=3000)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    print(json.dumps(asyncio.run(_run(arguments))))


async def _run(arguments: argparse.Namespace) -> dict[str, object]:
    settings = VerifierSettings(workers=arguments.workers, cache_entries=0, output_kib=256)
    before = _children()
    async with open_verifier(settings, Meters()) as parts:
        report = await _soak(parts, arguments.jobs)
        report |= await _flips(parts, arguments.flip_runs)
    await asyncio.sleep(0.1)
    report["processes_left_after_closing"] = len(_children() - before)
    report["files_left"] = int(Path("/tmp/prime-soak").exists())
    return report


async def _soak(parts: Parts, jobs: int) -> dict[str, object]:
    unexpected: Counter[str] = Counter()
    series: list[dict[str, float]] = []
    started, done = time.monotonic(), 0
    while done < jobs:
        batch = _jobs(done)
        verdicts = await parts.grader.grade([item for item, _ in batch])
        for (_, wanted), verdict in zip(batch, verdicts, strict=True):
            reason = verdict.reason.partition(":")[0]
            if reason != wanted and not (wanted == "mathematics" and verdict.status is not VerdictStatus.INFRA_ERROR):
                unexpected[f"{wanted} -> {reason}"] += 1
        done += len(batch)
        if done % (10 * _BATCH) == 0:
            series.append(_figures(parts, done))
            print(json.dumps(series[-1]), file=sys.stderr, flush=True)
    seconds = time.monotonic() - started
    # The first tenth warms caches and pools up.
    settled = series[max(1, len(series) // 10) :] or series
    return {
        "jobs": done,
        "seconds": round(seconds, 1),
        "jobs_per_second": round(done / seconds, 1),
        "unexpected_verdicts": dict(unexpected),
        "stray_processes_max": max(each["strays"] for each in series),
        "descriptors_growth": _growth(settled, "descriptors"),
        "memory_growth": _growth(settled, "resident_mib"),
        "resident_mib": settled[-1]["resident_mib"],
        "zygote_restarts": parts.sandbox.restarts,
        "math_workers_replaced": parts.pool.replaced,
    }


def _jobs(start: int) -> list[_Job]:
    """Of ten jobs five are honest programs, one is hostile, and four are mathematics, one in twenty of it poison."""
    count = _BATCH // 10
    jobs: list[_Job] = [(item, "all_tests") for item in additions(5 * count, 1, seed=start)]
    for number in range(count):
        source, reason = _HOSTILE[number % len(_HOSTILE)]
        jobs.append((code_item(f"{source}\n# {start + number}", ["3 5"], ["8"]), reason))
    for number, pair in enumerate(mathematics(4 * count, seed=start)):
        poisoned = Pair(answer=POISON[number % len(POISON)], gold="42") if number % 20 == 0 else pair
        jobs.append((math_item(poisoned), "mathematics"))
    return jobs


def _figures(parts: Parts, done: int) -> dict[str, float]:
    own = psutil.Process()
    return {
        "jobs": done,
        "descriptors": own.num_fds(),
        "resident_mib": round(own.memory_info().rss / 2**20, 1),
        "strays": len(_strays(parts)),
    }


def _strays(parts: Parts) -> set[int]:
    """Descendants a tenth of a second after the last job, but for zygotes and idle workers with their supervisors."""
    time.sleep(0.1)
    workers = [psutil.Process(pid) for pid in parts.pool.pids]
    zygotes = {process.pid for process in psutil.Process().children()}
    return _children() - zygotes - {worker.pid for worker in workers} - {worker.ppid() for worker in workers}


def _children() -> set[int]:
    return {process.pid for process in psutil.Process().children(recursive=True)}


def _growth(series: Sequence[dict[str, float]], name: str) -> float:
    """Of the last tenth over the first, as a share."""
    tenth = max(1, len(series) // 10)

    def mean(part: Sequence[dict[str, float]]) -> float:
        return sum(each[name] for each in part) / len(part)

    return round(mean(series[-tenth:]) / mean(series[:tenth]) - 1, 4)


# ---------------------------------------------------------------- flips


async def _flips(parts: Parts, runs: int) -> dict[str, object]:
    """Honest programs that take half of their processor limit, beside twice as many busy processes as cores."""
    loop_count = await _calibrate(parts)
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    statuses: Counter[str] = Counter()
    try:
        for start in range(0, runs, 100):
            items = [_half_of_its_limit(loop_count, start + number) for number in range(min(100, runs - start))]
            statuses.update(verdict.reason.partition(":")[0] for verdict in await parts.grader.grade(items))
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    flips = runs - statuses["all_tests"]
    return {"oversubscribed_runs": runs, "flips": flips, "flip_share": flips / runs, "flip_reasons": dict(statuses)}


_LIMIT_S = 0.2


def _half_of_its_limit(loop_count: int, number: int) -> GradeItem:
    source = f"for _ in range({loop_count}): pass\nprint(8)  # {number}"
    item = code_item(source, [""], ["8"])
    tests = {**json.loads(item.ground_truth), "cpu_seconds": _LIMIT_S}
    return GradeItem(
        item_id="flip", data_source="taco", ability="code", response=item.response, ground_truth=json.dumps(tests)
    )


async def _calibrate(parts: Parts) -> int:
    """Turns of an empty loop that take half the limit on this machine when it is quiet."""
    count = 1_000_000
    verdicts = await parts.grader.grade(
        [code_item(f"for _ in range({count}): pass\nprint(8)  # {n}", [""], ["8"]) for n in range(5)]
    )
    milliseconds = sorted(verdict.tests[0].cpu_ms for verdict in verdicts)[2]
    return int(count * (500 * _LIMIT_S) / milliseconds)


if __name__ == "__main__":
    main()
