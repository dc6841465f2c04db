"""The tests of `tests/gpu` without pytest, which a bare machine may not have."""

import sys
import time
import traceback

from transformers.utils import logging

from benchmarks.gpu.job import Figures, Job
from tests.gpu.checks import CHECKS, NotHere


def run(job: Job) -> Figures:
    """Every check by name: passed, failed or not here. CUDA errors are RuntimeErrors."""
    logging.disable_progress_bar()
    rows, problems = [], []
    for check in CHECKS:
        name, started = check.__name__.replace("_", " "), time.monotonic()
        result, reason = "passed", ""
        try:
            check(job.device)
        except NotHere as why:
            result, reason = "not here", str(why)
        except Exception as error:  # noqa: BLE001  whatever one raises, the others are run
            traceback.print_exc(file=sys.stderr)
            result, reason = "failed", f"{type(error).__name__}: {error}".strip().splitlines()[0]
            problems.append(f"{name}: {reason}")
        rows.append(
            {"check": name, "result": result, "seconds": round(time.monotonic() - started, 1), "because": reason}
        )
    passed = sum(row["result"] == "passed" for row in rows)
    return {"passed": passed, "of": len(CHECKS), "rows": rows, "problems": problems}
