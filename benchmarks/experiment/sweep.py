"""Runs many jobs, one per process at a time and with one thread each, and keeps a file per finished run.

A sweep that was stopped goes on where it was: what has its file is not run again.
"""

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from benchmarks.experiment.arms import BY_NAME
from benchmarks.experiment.families import Machine, family_of
from benchmarks.experiment.one_run import Job, run_one

KEPT = (
    "eval/accuracy",
    "collect/graded",
    "collect/kept",
    "collect/mean_score",
    "batch/response_tokens",
    "time/step_seconds",
    "prm/pair_accuracy",
    "prm/loss",
    "reward/step_auc",
    "reward/step_auc_over_shuffled",
    "reward/end_token_share",
    "reward/largest_token",
    "reward/trust",
    "policy/entropy",
    "policy/kl_to_old",
    "policy/grad_norm",
)
"""Columns of a result beside the job's own and the step; what an arm does not have is null."""


def sweep(jobs: Sequence[Job], *, machine: Machine, folder: Path, processes: int) -> None:
    """Run what has no result in `folder / "runs"` yet. A run that fails is said and left out; the others go on."""
    results = folder / "runs"
    results.mkdir(parents=True, exist_ok=True)
    for name in sorted({job.family for job in jobs}):
        family_of(name, machine).material(folder / "material")
    missing = [job for job in jobs if not _file(results, job).is_file()]
    started = time.monotonic()
    with ProcessPoolExecutor(max_workers=processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(_run_and_keep, job, machine, folder): job for job in missing}
        for number, done in enumerate(as_completed(running), start=1):
            error = done.exception()
            said = running[done].name if error is None else f"{running[done].name} FAILED: {error!r}"
            minutes = (time.monotonic() - started) / 60
            print(f"{number}/{len(missing)}  {minutes:.1f} min  {said}", file=sys.stderr, flush=True)


def _file(results: Path, job: Job) -> Path:
    return results / f"{job.name}.parquet"


def _run_and_keep(job: Job, machine: Machine, folder: Path) -> None:
    structlog.configure(processors=[_drop])
    family, file = family_of(job.family, machine), _file(folder / "runs", job)
    with tempfile.TemporaryDirectory(prefix="experiment-") as scratch:
        rows = run_one(
            job,
            family,
            BY_NAME[job.arm],
            material=family.material(folder / "material"),
            folder=Path(scratch) / "run",
        )
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    pq.write_table(pa.Table.from_pylist([_kept(job, row) for row in rows], schema=_SCHEMA), unfinished)
    unfinished.replace(file)


def _kept(job: Job, row: dict[str, float]) -> dict[str, object]:
    return {**asdict(job), "step": int(row["step"]), **{name: row.get(name) for name in KEPT}}


_SCHEMA = pa.schema(
    [
        ("family", pa.string()),
        ("arm", pa.string()),
        ("seed", pa.int32()),
        ("lr", pa.float64()),
        ("prm_lr", pa.float64()),
        ("steps", pa.int32()),
        ("step", pa.int32()),
        *((name, pa.float32()) for name in KEPT),
    ]
)


def _drop(*_: object) -> NoReturn:
    raise structlog.DropEvent


def gather(folder: Path) -> pa.Table:
    """All results of a folder as one table."""
    files = sorted((folder / "runs").glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder / 'runs'} holds no results")
    return pa.concat_tables(pq.read_table(file) for file in files)
