"""`make attack-verifier`: thousands of lies and rewritings through the real grader. The last line is one JSON object.

Before it stands every kind of pair that was judged wrongly, with examples. An undecided verdict is no false verdict;
its share is reported.
"""

import argparse
import asyncio
import json
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import structlog

from benchmarks.lies.generate import FORMS, generate
from benchmarks.lies.problem import LiePair
from prime.adapters.telemetry import Meters
from prime.types import GradeItem, Verdict, VerdictStatus
from services.verifier.grade import Grader
from services.verifier.main import open_verifier
from services.verifier.sandbox.zygotes import Tier
from services.verifier.settings import VerifierSettings

_BATCH = 500
_EXAMPLES = 3


def main() -> None:
    """Generate, grade and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--form", choices=sorted(FORMS), help="one form of answer only")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tier", choices=("A", "B"), default="A", help="B: where namespaces cannot be had")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    pairs = list(generate(arguments.pairs, arguments.seed, arguments.form))
    started = time.perf_counter()
    verdicts = asyncio.run(grade_with_settings(pairs, arguments.workers, arguments.tier))
    seconds = time.perf_counter() - started
    report = judge(pairs, verdicts)
    print("\n".join(report.lines))
    print(json.dumps({**report.counts, "seed": arguments.seed, "forms": len(FORMS), "seconds": round(seconds, 1)}))


def as_item(pair: LiePair) -> GradeItem:
    """As a trainer would send it."""
    return GradeItem(
        item_id="lie", data_source="numina", ability="math", kind="math", response=pair.response, ground_truth=pair.gold
    )


async def grade_all(grader: Grader, pairs: Sequence[LiePair]) -> list[Verdict]:
    """Verdicts in the order of the pairs, so many at a time that nothing waits long."""
    verdicts: list[Verdict] = []
    for start in range(0, len(pairs), _BATCH):
        verdicts += await grader.grade([as_item(pair) for pair in pairs[start : start + _BATCH]])
    return verdicts


async def grade_with_settings(pairs: Sequence[LiePair], workers: int, tier: str) -> list[Verdict]:
    """Verdicts of a verifier that is opened for them, with its sandbox."""
    settings = VerifierSettings(workers=workers, min_tier=Tier(tier), cache_entries=0, max_queue=100_000)
    async with open_verifier(settings, Meters()) as parts:
        return await grade_all(parts.grader, pairs)


class Report:
    """What was judged wrongly, by kind, and how much of it."""

    def __init__(self) -> None:
        self.counts: dict[str, float] = {"pairs": 0, "false_accepts": 0, "false_rejects": 0, "undecided_share": 0.0}
        self.wrong: dict[tuple[str, str, str], list[LiePair]] = defaultdict(list)
        self.undecided: dict[tuple[str, str, str], list[LiePair]] = defaultdict(list)

    @property
    def lines(self) -> list[str]:
        """Every kind with its count and a few examples."""
        return [*self.false_verdicts, *_all_told(self.undecided)]

    @property
    def false_verdicts(self) -> list[str]:
        """The same of the false verdicts alone."""
        return _all_told(self.wrong)


def judge(pairs: Sequence[LiePair], verdicts: Sequence[Verdict]) -> Report:
    """Compare verdicts with what is known by construction. A refused gold counts as a false reject or is undecided."""
    report = Report()
    for pair, verdict in zip(pairs, verdicts, strict=True):
        what = _fault(pair, verdict)
        if what in ("false_accepts", "false_rejects"):
            report.wrong[what, *_place(pair)].append(pair)
            report.counts[what] += 1
        elif what:
            report.undecided[what, *_place(pair)].append(pair)
    undecided = sum(len(found) for found in report.undecided.values())
    report.counts |= {
        "pairs": len(pairs),
        "undecided": undecided,
        "undecided_share": round(undecided / max(1, len(pairs)), 5),
    }
    return report


def _place(pair: LiePair) -> tuple[str, str]:
    """Where to count a pair. Right ones that stumble over their clothes stand together, whatever form is in them."""
    kind, dressed, clothes = pair.kind.partition(" [")
    return (f"in other clothes: {clothes[:-1]}", pair.form) if dressed and pair.expected else (pair.form, kind)


def _fault(pair: LiePair, verdict: Verdict) -> str:
    if verdict.status is VerdictStatus.PASSED:
        return "" if pair.expected else "false_accepts"
    if verdict.status is VerdictStatus.FAILED:
        return "false_rejects" if pair.expected else ""
    if verdict.status is VerdictStatus.UNDECIDED:
        return f"undecided ({verdict.reason})"
    return "false_rejects" if pair.expected else f"{verdict.status.value}"


def _all_told(found: Mapping[tuple[str, str, str], Sequence[LiePair]]) -> list[str]:
    return [line for place, pairs in sorted(found.items()) for line in _told(*place, pairs)]


def _told(what: str, form: str, kind: str, pairs: Sequence[LiePair]) -> Iterable[str]:
    yield f"{what}: {form} / {kind}: {len(pairs)}"
    for pair in pairs[:_EXAMPLES]:
        yield f"    gold {pair.gold!r}  response {pair.response!r}  expected {pair.expected}"


if __name__ == "__main__":
    main()
