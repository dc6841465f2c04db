"""`primectl curate`: raw corpora in, problems with verified answers out. Started again, it goes on where it was."""

import asyncio
import json
import time
from importlib.util import find_spec
from pathlib import Path

from rich.table import Table

from jobs.curate.run import Curated, Progress, curate
from jobs.curate.settings import CurateSettings
from prime.errors import SettingsError
from primectl.display import Display
from primectl.verifiers import open_verifier_of


def run_curate(settings: CurateSettings, *, token_file: Path | None) -> int:
    """0 when the data set is written; the last line on stdout is one JSON object.

    Raises:
        SettingsError: what curation needs beyond the services is not installed.
    """
    missing = next((name for name in ("datasketch", "matplotlib", "httpx") if find_spec(name) is None), None)
    if missing is not None:
        raise SettingsError(f"primectl curate needs {missing}: pip install 'prime-services[curate]'")
    display = Display()
    started = time.monotonic()

    async def work() -> Curated:
        async with open_verifier_of(settings.verifier_address, token_file, settings.verifier, "curate") as verifier:
            with display.stages() as show:
                return await curate(settings, verifier, lambda at: show(at.stage, at.done, at.of, _asked(at)))

    curated = asyncio.run(work())
    _print(display, curated, time.monotonic() - started)
    print(json.dumps(_summary(curated, time.monotonic() - started)))
    return 0


def _asked(progress: Progress) -> str:
    return "  ".join(
        f"{each['model']}: {each['paid']:,} asked, {each['prompt_tokens'] + each['completion_tokens']:,} tokens"
        + (f", cost {each['cost']:.2f}" if each["cost"] else "")
        for each in progress.usage
        if each["paid"]
    )


def _summary(curated: Curated, seconds: float) -> dict[str, object]:
    first, last = curated.reports[0], curated.reports[-1]
    return {
        "read": sum(first.entered.values()),
        "kept": sum(last.left.values()),
        "seconds": round(seconds, 1),
        "endpoints": list(curated.usage),
        "output": str(curated.output / "data"),
    }


def _print(display: Display, curated: Curated, seconds: float) -> None:
    table = Table(title=f"Curated in {seconds:.0f} s")
    for title in ("stage", "left", "dropped", "mostly because of"):
        table.add_column(title, justify="right" if title in ("left", "dropped") else "left")
    for report in curated.reports:
        mostly = ", ".join(f"{reason} ({count:,})" for reason, count in report.reasons.most_common(3))
        table.add_row(report.stage, f"{sum(report.left.values()):,}", f"{report.reasons.total():,}", mostly)
    display.console.print(table)
    for fault in curated.faults:
        display.say(f"not read: {fault}")
    for each in curated.probe:
        precision = "-" if each["precision"] is None else f"{each['precision']:.2f}"
        display.say(f"unsolvable problems, {each['model']}: precision {precision}, recall {each['recall']:.2f}")
    for each in curated.usage:
        display.say(
            f"{each['model']}: {each['paid']:,} requests paid, {each['kept']:,} kept from before, "
            f"{each['refused']:,} refused, "
            f"{each['prompt_tokens']:,} + {each['completion_tokens']:,} tokens, cost {each['cost']}"
        )
    display.say(f"data set: {curated.output / 'data'}")
