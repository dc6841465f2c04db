"""The training half of `primectl demo-real`: a real model of 135 million parameters, SFT, and PRIME on school problems.

`make_material` makes model, problems and SFT checkpoint, `train` is one run by the real services. `demo_real_report.py`
measures and reports.
"""

import asyncio
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch

from jobs.gguf import import_gguf
from jobs.sft import SftSettings
from jobs.train_prm import run_train_prm
from prime.adapters.settings import ComputeSettings, cache_folder
from prime.data.problems import write_jsonl
from prime.data.school import draw_school, keys_of
from prime.errors import SettingsError
from primectl.config import RunConfig, load_config
from primectl.display import Display
from primectl.real_model import fetch_real_model
from primectl.refine_prm import settings_of
from primectl.sft import fine_tune, write_sft_data
from primectl.up import train_all, until_signal

_NUM_HELD_OUT, _NUM_HARD, _NUM_TRAIN = 160, 128, 512
_REFINED_STEPS = 8
"""Of the run, whose answers the PRM learns once more: those of a policy near the last one."""
_OUTCOME_ONLY = ("trainer.advantage.process_coef=0",)
_CPU_FACTS = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is done: `FULL` learns, `SHORT` shows within minutes that all parts work with a real model."""

    sft_rows: int
    sft_batch: int
    problems: int
    """Of each set that is evaluated."""
    samples: int
    """Per problem, in the evaluation of what was trained."""
    answer_tokens: int
    overrides: tuple[str, ...] = ()
    """Of `demo_real.toml`."""


FULL = Scale(sft_rows=128, sft_batch=16, problems=160, samples=8, answer_tokens=96)
SHORT = Scale(
    sft_rows=16,
    sft_batch=8,
    problems=4,
    samples=2,
    answer_tokens=32,
    overrides=(
        "trainer.steps=2",
        "trainer.prompts_per_step=2",
        "trainer.samples_per_prompt=2",
        "trainer.evaluation.limit=4",
        "trainer.filter.low=0.0",
        "trainer.filter.high=1.0",
        "trainer.sampling.max_tokens=32",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRuns:
    """What `run_demo_real` leaves behind."""

    material: Path
    """Holds `model`, `sft`, `problems.jsonl`, `held_out.jsonl` and `hard.jsonl`."""
    prime: RunConfig
    prm: Path
    """The PRM of this run, after it has learnt the last answers once more."""
    outcome_only: RunConfig
    """RLOO on outcomes alone, with the same seed, problems and steps."""


def run_demo_real(display: Display, run_path: Path, *, scale: Scale) -> DemoRuns:
    """Make the material, and train with and without process rewards.

    Raises:
        PeerUnavailable: the model is not in the cache folder and cannot be downloaded.
        EngineError: a service ended.
    """
    material = run_path / "material"
    _alone(make_material, material, scale)
    display.say("PRIME: policy and PRM learn together ...")
    prime = train(display, run_path / "prime", material, scale=scale)
    display.say("The PRM learns the last answers once more ...")
    prm = run_path / "prm"
    _alone(_refine, run_path / "prime", prm)
    display.say("The same with outcomes alone (RLOO) ...")
    outcome_only = train(display, run_path / "rloo", material, scale=scale, more=_OUTCOME_ONLY)
    return DemoRuns(material=material, prime=prime, prm=prm, outcome_only=outcome_only)


def _alone(work: Callable[..., None], *arguments: Path | Scale) -> None:
    """Run it in a process of its own, so that the memory that it took is free for what follows."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as alone:
        alone.submit(work, *arguments).result()


def _refine(run: Path, output: Path) -> None:
    # Read by the mean of its own log-probs: what the reference says of an answer counts, and so does what was learnt.
    settings = settings_of(run, output=output, last=_REFINED_STEPS, overrides=["aggregation=mean"])
    run_train_prm(settings, lambda step, of, loss: None)


def fast_dtype() -> str:
    """The dtype in which this machine is quickest: bfloat16 on a GPU, and on CPUs with matrix units (AMX)."""
    has_amx = _CPU_FACTS.is_file() and "amx_bf16" in _CPU_FACTS.read_text(encoding="utf-8")
    return "bfloat16" if has_amx or torch.cuda.is_available() else "float32"


def make_material(material: Path, scale: Scale) -> None:
    """Everything that a run starts from: model, problems, and the SFT checkpoint `sft`.

    Raises:
        PeerUnavailable: the model is not in the cache folder and could not be downloaded.
    """
    display = Display()
    display.say("Reading the model ...")
    import_gguf(fetch_real_model(cache_folder()), material / "model")
    held_out = draw_school(_NUM_HELD_OUT, seed=11)
    train = draw_school(_NUM_TRAIN, seed=12, exclude=keys_of(held_out))
    worked = draw_school(scale.sft_rows, seed=13, exclude=keys_of([*held_out, *train]))
    hard = draw_school(_NUM_HARD, seed=14, hard=True)
    for name, problems in (("held_out", held_out), ("problems", train), ("hard", hard)):
        write_jsonl([problem.problem for problem in problems], material / f"{name}.jsonl")
    write_sft_data(material / "sft.jsonl", ((each.prompt, each.solution) for each in worked))
    fine_tune(
        SftSettings(
            model=material / "model",
            data=material / "sft.jsonl",
            output=material / "sft",
            epochs=1.0,
            batch_size=scale.sft_batch,
            lr=1e-4,
            token_budget=1024,
            threads=1,
            compute=ComputeSettings(dtype=fast_dtype()),
        ),
        display,
    )


def train(display: Display, run_path: Path, material: Path, *, scale: Scale, more: Sequence[str] = ()) -> RunConfig:
    """One run of all services from the SFT checkpoint; returns its settings.

    Raises:
        SettingsError: there is a run in this folder already.
        EngineError: a service ended.
    """
    if run_path.exists():
        raise SettingsError(f"{run_path} exists already; remove it, or choose another folder")
    config = run_config(run_path, material, scale=scale, more=more)
    asyncio.run(until_signal(train_all(config, display, resume=False, num_rollouts=1)))
    return config


def run_config(run_path: Path, material: Path, *, scale: Scale, more: Sequence[str] = ()) -> RunConfig:
    """The settings of `demo_real.toml` for this run."""
    dtype = fast_dtype()
    with resources.as_file(resources.files("primectl") / "demo_real.toml") as file:
        return load_config(
            file,
            [
                f"run.name={run_path.name}",
                f"run.folder={run_path.parent}",
                f"run.model={material / 'sft'}",
                f"trainer.problems={material / 'problems.jsonl'}",
                f"trainer.evaluation.problems={material / 'held_out.jsonl'}",
                f"trainer.compute.dtype={dtype}",
                f"prm.compute.dtype={dtype}",
                f"rollout.dtype={dtype}",
                *scale.overrides,
                *more,
            ],
        )
