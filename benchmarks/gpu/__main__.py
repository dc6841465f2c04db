"""`make gpu`: all that needs a GPU, in one call of less than ten minutes, with torch and transformers alone.

Writes `gpu.json` and `gpu.md` after every section, so what is finished survives an early end. The last line is the
JSON. What each figure means: `docs/benchmarks.md`.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.gpu import report
from benchmarks.gpu.plan import SECTIONS, Outcome, measure
from benchmarks.gpu.processes import Processes


def main() -> int:
    """Run all sections; returns 1 where one failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything; default 9")
    parser.add_argument("--out", type=Path, default=_default_folder(), help="default: $OUT, else runs/gpu")
    names = [section.name for section in SECTIONS]
    parser.add_argument("--sections", nargs="+", choices=names, default=names, help="these alone; default: all")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to try the command on a CPU")
    arguments = parser.parse_args()
    facts = {
        "command": "gpu",
        "minutes": arguments.minutes,
        "device": arguments.device,
        "tiny": arguments.tiny,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }

    def seen(outcomes: Mapping[str, Outcome]) -> None:
        report.write(arguments.out, outcomes, facts)
        name, outcome = list(outcomes.items())[-1]
        print(f"{name}: {outcome.status} in {outcome.seconds} s {outcome.reason}", file=sys.stderr, flush=True)

    # Whoever stops this stops the section under way too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sections = [section for section in SECTIONS if section.name in arguments.sections]
    tiny = ("--tiny",) if arguments.tiny else ()
    runner = Processes(options=("--device", arguments.device, *tiny))
    outcomes = measure(sections, runner, minutes=arguments.minutes, seen=seen)
    print(json.dumps(report.as_tree(outcomes, facts)))
    return int(any(outcome.status == "failed" for outcome in outcomes.values()))


def _default_folder() -> Path:
    out = os.environ.get("OUT")  # noqa: TID251  the settings adapter needs pydantic, which may not be installed
    return Path(out) if out else Path("runs") / "gpu"


if __name__ == "__main__":
    sys.exit(main())
