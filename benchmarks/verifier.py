"""`make bench-verifier`: the verifier beside the plain alternatives, in one run. The last line is one JSON object.

Every ratio is the median over rounds in which both sides take turns, so that a busy machine slows both.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from benchmarks.machine import machine
from benchmarks.verifier_load import other_load
from benchmarks.verifier_workload import (
    POISON,
    Pair,
    additions,
    code_item,
    math_item,
    mathematics,
    plain_mathematics,
)
from prime.adapters.telemetry import Meters
from prime.types import GradeItem, VerdictStatus
from services.verifier.algebra.pool import MathPool, Unsettled
from services.verifier.grade import Grader
from services.verifier.main import open_verifier
from services.verifier.mathematics.compare import Symbolic, compare_answer
from services.verifier.mathematics.question import How, Leaf
from services.verifier.settings import VerifierSettings

_TESTS = 10
_GOALS = {
    "programs_vs_subprocess": 2.0,
    "sandbox_overhead_p95_ms": 30.0,
    "math_vs_math_verify": 3.0,
    "fast_compares_per_second": 50_000.0,
    "math_poison_p95_ms": 100.0,
    "math_poison_p95_ms_busy": 100.0,
}


def main() -> None:
    """Run all parts and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--programs", type=int, default=60, help="per round")
    parser.add_argument("--mathematics", type=int, default=600, help="answers per round")
    parser.add_argument("--tier", choices=("A", "B"), default="A", help="B: where namespaces cannot be had")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    report = asyncio.run(_run(arguments))
    report |= {"goals": _GOALS, "machine": machine(), "workers": arguments.workers}
    print(json.dumps(report))


async def _run(arguments: argparse.Namespace) -> dict[str, object]:
    # Every answer is new, as far as the verifier knows: a cache would make the comparison unfair.
    settings = VerifierSettings(
        workers=arguments.workers, min_tier=arguments.tier, cache_entries=0, max_queue=100_000, math_seconds=1.5
    )
    async with open_verifier(settings, Meters()) as parts:
        grader = parts.grader
        report: dict[str, object] = {"tier": parts.sandbox.tier.value}
        report |= await _programs(grader, arguments)
        report |= await _overhead(grader)
        report |= await _mathematics(grader, arguments)
        report |= _fast_path()
        report |= await _poison(grader, parts.pool)
        with other_load(1):
            busy = await _poison(grader, parts.pool)
        report |= {f"{name}_busy": value for name, value in busy.items() if name != "math_poison_counts"}
    return report


async def _timed(work: Awaitable[object]) -> float:
    started = time.perf_counter()
    await work
    return time.perf_counter() - started


# ---------------------------------------------------------------- programs


async def _programs(grader: Grader, arguments: argparse.Namespace) -> dict[str, object]:
    ours, theirs = [], []
    with ThreadPoolExecutor(arguments.workers) as pool, tempfile.TemporaryDirectory() as folder:

        def plain() -> None:
            assert all(pool.map(lambda item: _run_plainly(item, Path(folder)), items))

        for round_ in range(arguments.rounds + 1):
            items = additions(arguments.programs, _TESTS, seed=round_)
            seconds = [await _timed(_all_pass(grader, items)), await _timed(asyncio.to_thread(plain))]
            if round_:  # the first one warms up
                ours.append(len(items) / seconds[0])
                theirs.append(len(items) / seconds[1])
            _say(f"programs, round {round_}: {len(items) / seconds[0]:.1f}/s, plain {len(items) / seconds[1]:.1f}/s")
    return {
        "programs_vs_subprocess": _median_ratio(ours, theirs),
        "programs_per_second": statistics.median(ours),
        "subprocess_programs_per_second": statistics.median(theirs),
        "tests_per_program": _TESTS,
    }


async def _all_pass(grader: Grader, items: list[GradeItem]) -> None:
    verdicts = await grader.grade(items)
    assert all(verdict.score == 1.0 for verdict in verdicts), verdicts


def _run_plainly(item: GradeItem, folder: Path) -> bool:
    """What people write first: a fresh interpreter per test, no isolation."""
    source = item.response.partition("```python\n")[2].partition("```")[0]
    file = folder / f"{hash(source)}.py"
    file.write_text(source)
    tests = json.loads(item.ground_truth)
    return all(
        subprocess.run([sys.executable, str(file)], input=given, capture_output=True, text=True, check=False).stdout
        == expected
        for given, expected in zip(tests["inputs"], tests["outputs"], strict=True)
    )


async def _overhead(grader: Grader) -> dict[str, object]:
    """The whole time of a program that does next to nothing, one at a time: an upper bound of what the sandbox adds."""
    items = [code_item(f"print(8)  # {number}", [""], ["8"]) for number in range(300)]
    milliseconds = [1000 * await _timed(_all_pass(grader, [item])) for item in items]
    return {
        "sandbox_overhead_p50_ms": _quantile(milliseconds, 50),
        "sandbox_overhead_p95_ms": _quantile(milliseconds, 95),
    }


# ---------------------------------------------------------------- mathematics


async def _mathematics(grader: Grader, arguments: argparse.Namespace) -> dict[str, object]:
    ours, theirs = [], []
    with multiprocessing.get_context("spawn").Pool(arguments.workers, initializer=_warm_up) as pool:
        for round_ in range(arguments.rounds + 1):
            pairs = mathematics(arguments.mathematics, seed=round_)
            items = [math_item(pair) for pair in pairs]
            seconds = [
                await _timed(grader.grade(items)),
                await _timed(asyncio.to_thread(pool.map, _math_verify, pairs, 8)),
            ]
            if round_:
                ours.append(len(pairs) / seconds[0])
                theirs.append(len(pairs) / seconds[1])
            rates = [len(pairs) / each for each in seconds]
            _say(f"mathematics, round {round_}: {rates[0]:.0f}/s, Math-Verify {rates[1]:.0f}/s")
    symbolic = sum(isinstance(compare_answer(math_item(pair).response, pair.gold), Symbolic) for pair in pairs)
    return {
        "math_vs_math_verify": _median_ratio(ours, theirs),
        "math_per_second": statistics.median(ours),
        "math_verify_per_second": statistics.median(theirs),
        "math_symbolic_share": symbolic / len(pairs),
    }


def _warm_up() -> None:
    _math_verify(Pair(answer="(x+1)^2", gold="x^2+2x+1"))


def _math_verify(pair: Pair) -> bool:
    """Math-Verify as its readers use it, with its own time-outs."""
    from math_verify import parse, verify

    return bool(verify(parse(f"${pair.gold}$"), parse(math_item(pair).response)))


def _fast_path() -> dict[str, object]:
    """Comparisons in one thread of this process, of the plain kinds only."""
    plain = [(math_item(pair).response, pair.gold) for pair in plain_mathematics(4000, seed=99)]
    assert not any(isinstance(compare_answer(*pair), Symbolic) for pair in plain)
    rates = []
    for _ in range(5):
        started = time.perf_counter()
        for response, gold in plain:
            compare_answer(response, gold)
        rates.append(len(plain) / (time.perf_counter() - started))
    return {"fast_compares_per_second": statistics.median(rates)}


async def _poison(grader: Grader, pool: MathPool) -> dict[str, object]:
    """Latency of honest answers while one in twenty is poison, eight asked at a time without a pause.

    Every tenth poison is put past the guards, straight to the workers, as if a guard had missed it.
    """
    pairs = iter(mathematics(6000, seed=7))
    honest_ms: list[float] = []
    guarded_ms: list[float] = []
    killed_ms: list[float] = []
    turn = 0

    async def ask(pair: Pair) -> None:
        nonlocal turn
        turn += 1
        poison, rest = divmod(turn, 20)
        started = time.perf_counter()
        if rest:
            (verdict,) = await grader.grade([math_item(pair)])
            assert verdict.status is not VerdictStatus.UNDECIDED, (pair, verdict)
            times = honest_ms
        elif poison % 10:
            bad = Pair(answer=POISON[poison % len(POISON)], gold="x^2+1" if poison % 2 else "42")
            (verdict,) = await grader.grade([math_item(bad)])
            assert verdict.score != 1.0, (bad, verdict)
            times = guarded_ms
        else:
            with contextlib.suppress(Unsettled):
                await pool.settle(_past_the_guards(poison))
                raise AssertionError("was meant to be killed at the deadline")
            times = killed_ms
        times.append(1000 * (time.perf_counter() - started))

    async def client() -> None:
        for pair in pairs:
            await ask(pair)
            await asyncio.sleep(0)

    await asyncio.gather(*(client() for _ in range(8)))
    return {
        "math_poison_p50_ms": _quantile(honest_ms, 50),
        "math_poison_p95_ms": _quantile(honest_ms, 95),
        "math_poison_guarded_max_ms": max(guarded_ms),
        "math_poison_killed_max_ms": max(killed_ms),
        "math_poison_counts": {"honest": len(honest_ms), "guarded": len(guarded_ms), "killed": len(killed_ms)},
    }


def _past_the_guards(number: int) -> Symbolic:
    answer = f"(x+y+z+w)^{{60}}+(x-y)^{{900}}+{number}<1"
    return Symbolic(gold="x<2", answer=answer, question=Leaf(gold="x<2", answer=answer, how=How.AS_WRITTEN))


# ---------------------------------------------------------------- figures


def _median_ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(our / their for our, their in zip(ours, theirs, strict=True))


def _quantile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
