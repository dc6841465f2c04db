"""A run of the trial, in one process, against the same run by the services: the same figures."""

import asyncio
import json
from pathlib import Path

import pytest

from benchmarks.experiment.arms import BY_NAME
from benchmarks.experiment.family import Family
from benchmarks.experiment.one_run import Job, run_one, settings_of
from primectl.config import RunConfig
from primectl.stack import local_stack
from tests.e2e.tiny_policy import write_tiny_policy

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

TIMED = ("time/", "wait/", "busy/", "push/")


def _write(folder: Path) -> None:
    """A model that has seen a few chains: right often enough that groups differ."""
    write_tiny_policy(
        folder,
        length=2,
        problems=16,
        held_out=8,
        wrong_share=0.3,
        hidden=32,
        steps=60,
        batch_size=32,
        lr=5e-3,
    )


FAMILY = Family(
    name="tiny",
    write=_write,
    trainer={
        "prompts_per_step": 4,
        "samples_per_prompt": 4,
        "max_prompt_tokens": 8,
        "sampling": {"max_tokens": 12},
        "filter": {"low": 0.0, "high": 1.0},
        "advantage": {"step_delimiter": ";"},
        "optimiser": {"threads": 1, "device": "cpu"},
        "peers": {"stall_seconds": 120},
    },
    prm={"threads": 1, "device": "cpu"},
    max_context=32,
)


@pytest.mark.parametrize("arm", ["rloo", "best"])
async def test_a_run_in_one_process_has_the_figures_of_the_services(arm: str, tmp_path: Path) -> None:
    material = FAMILY.material(tmp_path / "material")
    job = Job(family="tiny", arm=arm, seed=0, lr=1e-3, prm_lr=1e-3, steps=3, evaluate_every=3)
    trainer, prm = settings_of(job, FAMILY, BY_NAME[arm], material)
    config = RunConfig.model_validate(
        {
            "run": {"name": "services", "folder": str(tmp_path), "model": str(material / "sft"), "seed": job.seed},
            "trainer": trainer.model_dump(exclude_unset=True),
            "prm": prm.model_dump(exclude_unset=True),
            "rollout": {"max_context": FAMILY.max_context, "max_groups": 16, "threads": 1, "device": "cpu"},
        }
    )
    async with local_stack(config) as stack:
        async for _ in stack.train(resume=False):
            pass
    theirs = [json.loads(line) for line in (config.run.path / "metrics.jsonl").read_text().splitlines()]
    # It has an event loop of its own.
    ours = await asyncio.to_thread(run_one, job, FAMILY, BY_NAME[arm], material=material, folder=tmp_path / "one")
    assert len(ours) == len(theirs) == 4
    for mine, other in zip(ours, theirs, strict=True):
        figures = {name for name in mine.keys() | other.keys() if not name.startswith(TIMED)}
        assert {name: mine.get(name) for name in figures} == pytest.approx({name: other.get(name) for name in figures})
    assert theirs[-1]["policy/grad_norm"] > 0
