"""`make bench-verifier-load`: honest work on a machine that others keep busy. The last line is one JSON object.

Programs burn half of their processor time limit, and mathematics needs algebra; beside them spin other processes at
normal priority, two and four for each processor. Every verdict that is not the one of an idle machine is a flip.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import structlog

from benchmarks.machine import machine
from benchmarks.verifier_workload import mathematics
from prime.adapters.telemetry import Meters
from prime.types import GradeItem, VerdictStatus
from services.verifier.algebra.pool import MathPool, Unsettled
from services.verifier.grade import Grader
from services.verifier.main import open_verifier
from services.verifier.mathematics.compare import Symbolic, compare_answer
from services.verifier.settings import VerifierSettings

_LIMIT_SECONDS = 0.2
_BURN = "import time\nwhile time.process_time() < {seconds}: pass\nprint(input())  # {number}"
_SPIN = "import os\nwhile os.getppid() == {parent}: pass"
_AT_ONCE = 16


def main() -> None:
    """Run and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=3000)
    parser.add_argument("--symbolic", type=int, default=3000)
    parser.add_argument("--oversubscription", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tier", choices=("A", "B"), default="A", help="B: where namespaces cannot be had")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    print(json.dumps(asyncio.run(run(arguments)) | {"machine": machine(), "workers": arguments.workers}))


async def run(arguments: argparse.Namespace) -> dict[str, object]:
    """Both kinds of work, shared out evenly over the factors of over-subscription."""
    settings = VerifierSettings(workers=arguments.workers, min_tier=arguments.tier, cache_entries=0, max_queue=100_000)
    shares = len(arguments.oversubscription)
    flips = {"programs": 0, "symbolic": 0}
    seconds = 0.0
    async with open_verifier(settings, Meters()) as parts:
        for part, factor in enumerate(arguments.oversubscription):
            started = time.monotonic()
            with other_load(factor):
                programs = [_program(number) for number in range(part, arguments.programs, shares)]
                flips["programs"] += await _program_flips(parts.grader, programs)
                asked = _symbolic(arguments.symbolic)[part::shares]
                flips["symbolic"] += await _symbolic_flips(parts.pool, asked)
            seconds += time.monotonic() - started
            print(f"{factor}x: {flips}, {seconds:.0f} s", file=sys.stderr, flush=True)
        tier = parts.sandbox.tier.value
    return {
        "programs": arguments.programs,
        "program_flips": flips["programs"],
        "symbolic": arguments.symbolic,
        "symbolic_flips": flips["symbolic"],
        "oversubscription": arguments.oversubscription,
        "seconds": round(seconds, 1),
        "tier": tier,
    }


@contextlib.contextmanager
def other_load(factor: int) -> Iterator[None]:
    """So many other processes for each processor, all of which want it."""
    command = [sys.executable, "-c", _SPIN.format(parent=os.getpid())]
    spinners = [subprocess.Popen(command) for _ in range(factor * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def _program(number: int) -> GradeItem:
    source = _BURN.format(seconds=_LIMIT_SECONDS / 2, number=number)
    tests = {"inputs": [f"{number}\n"], "outputs": [f"{number}\n"], "cpu_seconds": _LIMIT_SECONDS}
    return GradeItem(
        item_id=f"p{number}",
        data_source="taco",
        ability="code",
        response=f"```python\n{source}\n```",
        ground_truth=json.dumps(tests),
    )


async def _program_flips(grader: Grader, items: list[GradeItem]) -> int:
    verdicts = await grader.grade(items)
    wrong = [verdict for verdict in verdicts if verdict.status is not VerdictStatus.PASSED]
    for verdict in wrong[:5]:
        print(f"flipped: {verdict}", file=sys.stderr)
    return len(wrong)


def _symbolic(count: int) -> list[Symbolic]:
    """Answers that plain comparison does not settle, by the workload's own seed."""
    found: list[Symbolic] = []
    seed = 0
    while len(found) < count:
        for pair in mathematics(2000, seed=seed):
            compared = compare_answer(f"\\boxed{{{pair.answer}}}", pair.gold)
            if isinstance(compared, Symbolic):
                found.append(compared)
        seed += 1
    return found[:count]


async def _symbolic_flips(pool: MathPool, asked: list[Symbolic]) -> int:
    places = asyncio.Semaphore(_AT_ONCE)

    async def is_undecided(symbolic: Symbolic) -> bool:
        async with places:
            try:
                await pool.settle(symbolic)
            except Unsettled as error:
                print(f"flipped: {symbolic}: {error}", file=sys.stderr)
                return True
        return False

    return sum(await asyncio.gather(*(is_undecided(each) for each in asked)))


if __name__ == "__main__":
    main()
