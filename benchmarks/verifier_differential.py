"""`make bench-differential`: the grader beside Math-Verify on the same rows. The last line is one JSON object.

The rows are generated, so it is known who is right; golds of public sets are among them where they are at hand. Every
disagreement is listed. Math-Verify runs in a process of its own that is killed when it takes too long, for its own
time-outs do not always end it.
"""

import argparse
import asyncio
import json
import logging
import multiprocessing
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

import structlog

from benchmarks.attack_verifier import grade_with_settings
from benchmarks.lies.generate import generate
from benchmarks.lies.problem import LiePair
from benchmarks.lies.real_golds import find_folder, lies, read_golds, right_pairs, wrong_pairs
from prime.types import Verdict, VerdictStatus

_SECONDS = 6.0
"""For one row in Math-Verify; then its process is killed."""
_START_SECONDS = 60.0


def main() -> None:
    """Grade with both and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=4_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tier", choices=("A", "B"), default="A", help="B: where namespaces cannot be had")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    pairs = [*generate(arguments.pairs, arguments.seed), *_real_pairs(arguments.seed)]
    ours = asyncio.run(grade_with_settings(pairs, arguments.workers, arguments.tier))
    theirs = _math_verify(pairs, arguments.workers)
    _report(pairs, ours, theirs)


def _real_pairs(seed: int) -> Iterator[LiePair]:
    folder = find_folder()
    if folder is not None:
        golds = read_golds(folder)
        yield from right_pairs(golds)
        yield from wrong_pairs(golds, 2, seed)
        yield from lies(golds)


def _report(pairs: Sequence[LiePair], ours: Sequence[Verdict], theirs: Sequence[bool | None]) -> None:
    counts = Counter[str]()
    told = []
    for pair, our, their in zip(pairs, ours, theirs, strict=True):
        decided = our.status in (VerdictStatus.PASSED, VerdictStatus.FAILED)
        our_right = decided and (our.status is VerdictStatus.PASSED) == pair.expected
        their_right = their is pair.expected
        counts["math_verify_timeouts"] += their is None
        counts["both_wrong"] += not our_right and not their_right
        if not decided:
            outcome = "undecided"
        elif our_right == their_right:
            outcome = "agree"
        else:
            outcome = "ours_right" if our_right else "theirs_right"
        counts[outcome] += 1
        if outcome != "agree":
            said = "time-out" if their is None else str(their)
            told.append(
                f"{outcome}: {pair.form} / {pair.kind}: gold {pair.gold!r}  response {pair.response!r}  "
                f"ours {our.status.value}  theirs {said}  by construction {pair.expected}"
            )
    print("\n".join(sorted(told)))
    names = ("agree", "ours_right", "theirs_right", "undecided", "both_wrong", "math_verify_timeouts")
    print(json.dumps({"rows": len(pairs), **{name: counts[name] for name in names}}))


# ---------------------------------------------------------------- Math-Verify


def _math_verify(pairs: Sequence[LiePair], workers: int) -> list[bool | None]:
    """Its verdicts; None where it had to be killed."""
    shares = [pairs[start::workers] for start in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(_one_after_another, shares))
    verdicts: list[bool | None] = [None] * len(pairs)
    for start, share in enumerate(found):
        verdicts[start::workers] = share
    return verdicts


def _one_after_another(pairs: Sequence[LiePair]) -> list[bool | None]:
    child = _Child()
    verdicts = []
    for pair in pairs:
        verdict = child.ask(pair)
        if verdict is None:
            child.kill()
            child = _Child()
        verdicts.append(verdict)
    child.kill()
    return verdicts


class _Child:
    """One process with Math-Verify loaded."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_answer, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        assert self._ours.poll(_START_SECONDS), "Math-Verify did not start"
        self._ours.recv()

    def ask(self, pair: LiePair) -> bool | None:
        self._ours.send((pair.gold, pair.response))
        try:
            return bool(self._ours.recv()) if self._ours.poll(_SECONDS) else None
        except EOFError:
            return None

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._ours.close()


def _answer(connection: Connection) -> None:
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    verify(parse("$1$"), parse("$1$"))
    connection.send(True)
    while True:
        gold, response = connection.recv()
        # As its readers use it: a worked solution as it stands, a bare gold as a formula.
        worked = "\\boxed" in gold or "####" in gold
        connection.send(bool(verify(parse(gold if worked else f"${gold}$"), parse(response))))


if __name__ == "__main__":
    main()
