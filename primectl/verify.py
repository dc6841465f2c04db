"""`primectl verify`: grades a file of answers, here or by a running verifier, and prints a report."""

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from jobs.verify import Report, read_answers, verify
from prime.adapters.settings import load_settings
from primectl.display import Display
from primectl.verifiers import open_verifier_of
from primectl.written import refuse_existing, written
from services.verifier.settings import VerifierSettings

_STATUSES = ("passed", "failed", "undecided", "invalid_request", "infra_error", "malformed")


def run_verify(
    path: Path, *, out: Path | None, address: str, token_file: Path | None, overrides: Sequence[str], as_json: bool
) -> int:
    """Grade the file; 0 when every row has been graded, 1 when some could not be."""
    refuse_existing(out)
    display = Display(quiet=as_json)
    rows = read_answers(path)
    total = sum(1 for _ in read_answers(path))
    started = time.monotonic()
    with written(out) as lines, display.bar("verify", total) as bar:

        def on_progress(done: int, report: Report) -> None:
            rate = done / (time.monotonic() - started)
            passed = report.count("passed")
            bar.update(done, f"{passed} passed  {rate:.0f}/s", every=max(1, total // 10))

        async def work() -> tuple[Report, str]:
            settings = load_settings(VerifierSettings, None, overrides)
            async with open_verifier_of(address, token_file, settings, "verify") as verifier:
                info = await verifier.info()
                return await verify(rows, verifier, lines, on_progress), info.tier

        report, tier = asyncio.run(work())
    seconds = time.monotonic() - started
    if as_json:
        print(json.dumps(_summary(report, total, seconds, tier)))
    else:
        _print(display, report, total, seconds, tier, out)
    return 1 if report.count("invalid_request", "infra_error", "malformed") else 0


def _summary(report: Report, total: int, seconds: float, tier: str) -> dict[str, object]:
    return {
        "rows": total,
        **{status: report.count(status) for status in _STATUSES},
        "mean_score": report.mean_score,
        "seconds": round(seconds, 3),
        "tier": tier,
    }


def _print(display: Display, report: Report, total: int, seconds: float, tier: str, out: Path | None) -> None:
    table = Table(title=f"{total} answers in {seconds:.1f} s, sandbox tier {tier}")
    table.add_column("graded as", no_wrap=True)
    for status in _STATUSES:
        table.add_column(status.partition("_")[0], justify="right")
    for method in sorted({method for method, _ in report.statuses}):
        counts = [report.statuses[(method, status)] for status in _STATUSES]
        table.add_row(method or "not graded", *(str(count or "") for count in counts))
    display.console.print(table)
    for (status, reason), count in report.reasons.most_common(12):
        display.say(f"{count:8d}  {status}: {reason}")
    if report.mean_score is not None:
        display.say(f"mean score {report.mean_score:.4f} over {len(report.scores)} answers")
    for fault in report.faults:
        display.say(f"not graded: {fault}")
    if out is not None:
        display.say(f"verdicts: {out}")
