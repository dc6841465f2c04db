"""Which families of models are packed on this device, and whether that is what `docs/models.md` says."""

import tempfile
import time
from pathlib import Path

from transformers.utils import logging

from benchmarks.gpu.job import Figures, Job
from prime.lm.compute import Compute
from prime.lm.model import CausalLM
from tests.families import FAMILIES, Family

_PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def run(job: Job) -> Figures:
    """The proof at load (`prime/lm/proof.py`) of a tiny model of each family, as long as the time lasts.

    In float32 it has to come out as documented. In bfloat16 the flash kernel asks for head sizes that tiny models do
    not all have, so what is not packed there is reported, and is no problem.
    """
    logging.disable_progress_bar()
    expected = documented_layouts()
    ends_at = time.monotonic() + job.seconds
    rows: list[dict[str, str]] = []
    for family in FAMILIES[: job.size(len(FAMILIES), 3)]:
        if rows and time.monotonic() > ends_at:
            break
        rows.append(_prove(family, job) | {"documented": expected[family.title]})
    wrong = [row for row in rows if row["float32"] != row["documented"]]
    return {
        "families": len(rows),
        "of": len(FAMILIES),
        "packed_in_float32": sum(row["float32"] == "packed" for row in rows),
        "packed_in_bfloat16": sum(row["bfloat16"] == "packed" for row in rows),
        "rows": rows,
        "problems": [f"{row['family']} is computed {row['float32']}: {row['because']}" for row in wrong],
    }


def documented_layouts() -> dict[str, str]:
    """Of every family `packed` or `row by row`, as the table of `docs/models.md` has it."""
    lines = [line.split("|") for line in _PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    layouts = {cells[1].strip(): cells[3].strip() for cells in lines if len(cells) == 6}
    return {title: layout for title, layout in layouts.items() if title != "family"}


def _prove(family: Family, job: Job) -> dict[str, str]:
    found = {"family": family.title}
    with tempfile.TemporaryDirectory() as folder:
        family.write(Path(folder))
        because = []
        for dtype in ("float32", "bfloat16"):
            lm = CausalLM(Path(folder), device=job.device, compute=Compute(dtype=dtype))
            found[dtype] = "row by row" if lm.slow_because else "packed"
            if lm.slow_because:
                because.append(f"{dtype}: {lm.slow_because}")
    return found | {"because": "; ".join(because)}
