"""`make demo-real`: a real model of 135 million parameters, fine-tuned on school problems and improved by PRIME.

The training half: `make_material` (model, problems, SFT checkpoint) and `train` (one run by the real services). The
report is made by whoever calls `run_demo_real`, from the metrics and checkpoints of the runs that it returns.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jobs.gguf import import_gguf
from jobs.sft import SftSettings
from prime.adapters.settings import ComputeSettings, cache_folder
from prime.data.problems import write_jsonl
from prime.data.school import SchoolProblem, draw_school, keys_of
from prime.errors import SettingsError
from primectl.config import RunConfig, load_config
from primectl.display import Display
from primectl.real_model import fetch_real_model
from primectl.sft import fine_tune
from primectl.up import train_all, until_signal

_NUM_HELD_OUT, _NUM_HARD, _NUM_TRAIN, _NUM_SFT = 512, 256, 1536, 384
_SFT_BATCH = 16
_OUTCOME_ONLY = ("trainer.advantage.process_coef=0",)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRuns:
    """What `run_demo_real` leaves behind."""

    material: Path
    """Holds `model`, `sft`, `problems.jsonl`, `held_out.jsonl` and `hard.jsonl`."""
    prime: RunConfig
    outcome_only: RunConfig | None
    """RLOO on outcomes with the same seed, problems and steps; None when it was not asked for."""


def run_demo_real(display: Display, run_path: Path, *, steps: int = 0, compare: bool = False) -> DemoRuns:
    """Make the material and train; `steps` 0: as the settings say. Evaluation and report are the caller's."""
    material = run_path / "material"
    make_material(display, material)
    prime = train(display, run_path / "prime", material, steps=steps)
    outcome_only = train(display, run_path / "rloo", material, steps=steps, more=_OUTCOME_ONLY) if compare else None
    return DemoRuns(material=material, prime=prime, outcome_only=outcome_only)


def make_material(display: Display, material: Path) -> None:
    """Everything that a run starts from: model, problems, and the SFT checkpoint `sft`.

    Raises:
        PeerUnavailable: the model is not in the cache folder and could not be downloaded.
    """
    display.say("Reading the model ...")
    import_gguf(fetch_real_model(cache_folder()), material / "model")
    held_out = draw_school(_NUM_HELD_OUT, seed=1)
    train = draw_school(_NUM_TRAIN, seed=2, exclude=keys_of(held_out))
    worked = draw_school(_NUM_SFT, seed=3, exclude=keys_of([*held_out, *train]))
    hard = draw_school(_NUM_HARD, seed=4, hard=True)
    for name, problems in (("held_out", held_out), ("problems", train), ("hard", hard)):
        write_jsonl([problem.problem for problem in problems], material / f"{name}.jsonl")
    _write_sft(material / "sft.jsonl", worked)
    fine_tune(
        SftSettings(
            model=material / "model",
            data=material / "sft.jsonl",
            output=material / "sft",
            epochs=1.0,
            batch_size=_SFT_BATCH,
            lr=2e-5,
            token_budget=4096,
            threads=1,
            compute=ComputeSettings(dtype="bfloat16"),
        ),
        display,
    )


def train(display: Display, run_path: Path, material: Path, *, steps: int = 0, more: Sequence[str] = ()) -> RunConfig:
    """One run of all services from the SFT checkpoint; returns its settings.

    Raises:
        SettingsError: there is a run in this folder already.
        EngineError: a service ended.
    """
    if run_path.exists():
        raise SettingsError(f"{run_path} exists already; remove it, or choose another folder")
    config = run_config(run_path, material, steps=steps, more=more)
    asyncio.run(until_signal(train_all(config, display, resume=False, num_rollouts=1)))
    return config


def run_config(run_path: Path, material: Path, *, steps: int = 0, more: Sequence[str] = ()) -> RunConfig:
    """The settings of `demo_real.toml` for this run."""
    with resources.as_file(resources.files("primectl") / "demo_real.toml") as file:
        return load_config(
            file,
            [
                f"run.name={run_path.name}",
                f"run.folder={run_path.parent}",
                f"run.model={material / 'sft'}",
                f"trainer.problems={material / 'problems.jsonl'}",
                f"trainer.evaluation.problems={material / 'held_out.jsonl'}",
                *([f"trainer.steps={steps}"] if steps else []),
                *more,
            ],
        )


def _write_sft(path: Path, worked: Sequence[SchoolProblem]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for problem in worked:
            turns = [{"role": "user", "content": problem.prompt}]
            file.write(json.dumps({"prompt": turns, "response": problem.solution}) + "\n")
