"""`make bench-curate`: synthetic rows through reading, the rules for mathematics, de-duplication and decontamination.

Last line: one JSON object, with `rows_per_second` over all of it and `peak_gib`, the most memory that the process had.
Rows are drawn so that what has to be found is known: copies, texts that differ in layout alone, and near-copies.
"""

import argparse
import asyncio
import json
import random
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from jobs.curate.contamination import Contamination
from jobs.curate.duplicates import Duplicates
from jobs.curate.maths import MathRules
from jobs.curate.pipeline import Pipeline
from jobs.curate.settings import CodeSettings, ContaminationSettings, DuplicateSettings, MathSettings, SourceSettings
from jobs.curate.sources import open_source

_WORDS = [
    "train",
    "river",
    "basket",
    "merchant",
    "garden",
    "ladder",
    "circle",
    "polygon",
    "triangle",
    "sequence",
    "marble",
    "window",
    "market",
    "orchard",
    "painter",
    "bridge",
    "station",
    "farmer",
    "teacher",
    "student",
    "travels",
    "buys",
    "sells",
    "measures",
    "arranges",
    "divides",
    "collects",
    "counts",
    "observes",
    "draws",
    "between",
    "among",
    "before",
    "after",
    "exactly",
    "together",
    "apples",
    "pears",
    "coins",
    "tickets",
    "points",
    "tiles",
    "metres",
    "minutes",
    "litres",
    "pages",
]
_SOLUTION = "First we set up the equation, then we simplify it step by step and substitute back. The answer is "
_COPIES, _LAYOUT, _NEAR, _FIGURES, _PROOFS, _CHOICES = 0.05, 0.03, 0.05, 0.03, 0.05, 0.06


def _question(draw: random.Random) -> str:
    words = [draw.choice(_WORDS) for _ in range(draw.randint(25, 60))]
    for _ in range(draw.randint(2, 5)):
        words.insert(draw.randrange(len(words)), f"${draw.randint(2, 999)}$")
    return " ".join(words).capitalize() + ". Find the smallest integer $n$ that satisfies all of this."


def rows(count: int, seed: int = 0) -> Iterator[tuple[str, dict[str, str]]]:
    """(what it is, row) in the schema of NuminaMath-CoT."""
    draw = random.Random(seed)
    earlier: list[dict[str, str]] = []
    for number in range(count):
        kind = draw.choices(
            ("copy", "layout", "near", "figure", "proof", "choice", "plain"),
            (_COPIES, _LAYOUT, _NEAR, _FIGURES, _PROOFS, _CHOICES, 1 - 0.27),
        )[0]
        if kind in ("copy", "layout", "near") and earlier:
            row = dict(draw.choice(earlier))
            if kind == "layout":
                row["problem"] = row["problem"].replace(" ", "  ").replace("$", "$ ")
            if kind == "near":
                words = row["problem"].split(" ")
                place = next(place for place, word in enumerate(words[1:], 1) if word.isalpha())
                words[place] = draw.choice([word for word in _WORDS if word != words[place]])
                row["problem"] = " ".join(words)
            yield kind, row
            continue
        question = _question(draw)
        if kind == "figure":
            question = f"In the figure, {question}"
        elif kind == "proof":
            question = f"Prove that {question}"
        elif kind == "choice":
            question = f"{question} (A) 1 (B) 2 (C) 3 (D) 4"
        row = {
            "source": "synthetic_math",
            "problem": question,
            "solution": _SOLUTION * draw.randint(2, 12) + f"$\\boxed{{{number}}}$.",
        }
        if kind == "plain" and len(earlier) < 20000:
            earlier.append(row)
        yield kind if kind in ("figure", "proof", "choice") else "plain", row


async def _measure(count: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        drawn: Counter[str] = Counter()
        with (folder / "rows.jsonl").open("w") as file:
            for kind, row in rows(count):
                drawn[kind] += 1
                file.write(json.dumps(row) + "\n")
        evaluation = {"set": [_question(random.Random(number)) for number in range(2000)]}
        started = time.perf_counter()
        pipeline = Pipeline(folder / "out", part_rows=2000)
        pipeline.read([open_source(SourceSettings(kind="numina", path=str(folder / "rows.jsonl")), CodeSettings())])
        seconds: dict[str, float] = {"read": time.perf_counter() - started}
        for stage in (
            MathRules(MathSettings()),
            Duplicates(DuplicateSettings(), verifier=None),
            Contamination(ContaminationSettings(), evaluation),
        ):
            began = time.perf_counter()
            await pipeline.run(stage)
            seconds[stage.name] = time.perf_counter() - began
        total = time.perf_counter() - started
        found: Counter[str] = Counter()
        for report in pipeline.reports:
            for reasons in report.dropped.values():
                found.update(reasons)
        return {
            "rows": count,
            "rows_per_second": round(count / total, 1),
            "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2, 3),
            "seconds": {stage: round(each, 2) for stage, each in seconds.items()},
            "same_found_of_drawn": [found["same problem"], drawn["copy"] + drawn["layout"]],
            "near_found_of_drawn": [found["nearly the same problem"], drawn["near"]],
            "kept": sum(pipeline.reports[-1].left.values()),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    print(json.dumps(asyncio.run(_measure(parser.parse_args().rows))))


if __name__ == "__main__":
    main()
