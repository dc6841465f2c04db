"""`primectl demo`: from nothing to a better policy and a PRM on the toy task `chain`, by the real services."""

import asyncio
import importlib.util
import json
import time
from collections.abc import Mapping
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

from rich.table import Table

from jobs.sft import SftSettings
from prime.data.chain import READING, draw_chains, problem_of, prompt_of, sft_texts, write_fresh_model
from prime.data.prm_config import write_prm_config
from prime.data.problems import write_jsonl
from prime.errors import EngineError, SettingsError
from primectl.config import RunConfig, load_config
from primectl.display import Display
from primectl.sft import fine_tune, write_sft_data
from primectl.up import train_all, until_signal
from primectl.written import next_free

_LENGTH = 6
_WRONG_SHARE = 0.22
_NUM_TRAIN, _NUM_HELD_OUT = 4096, 512
_SFT_BATCH = 128
# The addition table is learnt within fifty steps from single sums, and in hundreds from careless chains alone.
_SUMS_STEPS, _CHAINS_STEPS = 100, 250
_LAST_STEPS = 10


def run_demo(*, engine: str, steps: int, folder: Path) -> int:
    """Make data and model, fine-tune, run RL, report; the last line on stdout is one JSON object."""
    if steps < 1:
        raise SettingsError(f"--steps {steps}: at least one step is needed")
    if engine == "vllm" and importlib.util.find_spec("vllm") is None:
        raise SettingsError("--engine vllm: vLLM is not installed here; `make demo-vllm` sets up its environment")
    started = time.monotonic()
    display = Display()
    run_path = next_free(folder, "demo")
    material = run_path / "material"
    display.say(
        f"Task: add {_LENGTH} digits modulo 10 step by step. The SFT data is wrong in {_WRONG_SHARE:.0%} of steps on "
        f"purpose, so the SFT policy knows how but is careless.\nEverything goes to {run_path}."
    )
    make_material(display, material)
    config = _config(run_path, material, engine=engine, steps=steps)
    display.say("Starting Redis, verifier, PRM, rollout and trainer, each a process of its own ...")
    asyncio.run(until_signal(train_all(config, display, resume=False, num_rollouts=1)))
    report = _report(config, seconds=time.monotonic() - started)
    _show(display, config, report)
    print(json.dumps(report))
    return 0


def make_material(display: Display, material: Path) -> None:
    """Problems, held-out problems and the SFT checkpoint `sft`, made of nothing."""
    _write_material(material)
    _fine_tune(display, material, start="fresh", data="sums.jsonl", output="sums", steps=_SUMS_STEPS)
    _fine_tune(display, material, start="sums", data="chains.jsonl", output="sft", steps=_CHAINS_STEPS)
    write_prm_config(READING, material / "sft")


def _write_material(material: Path) -> None:
    held_out = draw_chains(_NUM_HELD_OUT, length=_LENGTH, seed=1)
    excluded = frozenset(map(prompt_of, held_out))
    write_jsonl([problem_of(digits) for digits in held_out], material / "held_out.jsonl")
    train = draw_chains(_NUM_TRAIN, length=_LENGTH, seed=2, exclude=excluded)
    write_jsonl([problem_of(digits) for digits in train], material / "problems.jsonl")
    sums = sft_texts(length=2, seed=3, wrong_share=0.0)
    chains = ((p, r) for p, r in sft_texts(length=_LENGTH, seed=4, wrong_share=_WRONG_SHARE) if p not in excluded)
    write_sft_data(material / "sums.jsonl", islice(sums, _SUMS_STEPS * _SFT_BATCH))
    write_sft_data(material / "chains.jsonl", islice(chains, _CHAINS_STEPS * _SFT_BATCH))
    write_fresh_model(material / "fresh", seed=0)


def _fine_tune(display: Display, material: Path, *, start: str, data: str, output: str, steps: int) -> None:
    fine_tune(
        SftSettings(
            model=material / start,
            data=material / data,
            output=material / output,
            steps=steps,
            batch_size=_SFT_BATCH,
            lr=2e-3,
            final_lr_share=0.05,
            token_budget=8192,
        ),
        display,
    )


def _config(run_path: Path, material: Path, *, engine: str, steps: int) -> RunConfig:
    with resources.as_file(resources.files("primectl") / "demo.toml") as file:
        return load_config(
            file,
            [
                f"run.name={run_path.name}",
                f"run.folder={run_path.parent}",
                f"run.model={material / 'sft'}",
                f"rollout.engine={engine}",
                f"trainer.steps={steps}",
                f"trainer.problems={material / 'problems.jsonl'}",
                f"trainer.evaluation.problems={material / 'held_out.jsonl'}",
            ],
        )


def _report(config: RunConfig, *, seconds: float) -> dict[str, Any]:
    lines = (config.run.path / "metrics.jsonl").read_text().splitlines()
    metrics: list[Mapping[str, float]] = [json.loads(line) for line in lines]
    accuracies = [row["eval/accuracy"] for row in metrics if "eval/accuracy" in row]
    trained = [row for row in metrics if "prm/pair_accuracy" in row]
    if not trained or len(accuracies) < 2:
        raise EngineError(f"the run left no trained step in {config.run.path / 'metrics.jsonl'}; see its logs")
    last = trained[-_LAST_STEPS:]
    return {
        "start_accuracy": round(accuracies[0], 4),
        "end_accuracy": round(accuracies[-1], 4),
        "steps": int(metrics[-1]["step"]),
        "seconds": round(seconds, 1),
        "prm_pair_accuracy": round(sum(row["prm/pair_accuracy"] for row in last) / len(last), 4),
        "tokens_per_second": round(
            sum(row["batch/response_tokens"] for row in trained) / sum(row["time/step_seconds"] for row in trained), 1
        ),
        "engine": config.rollout.engine,
    }


def _show(display: Display, config: RunConfig, report: Mapping[str, Any]) -> None:
    table = Table(title=f"{_NUM_HELD_OUT} held-out chains of {_LENGTH} digits, sampled at temperature 1")
    for heading in ("", "before RL", "after RL"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row("accuracy", f"{report['start_accuracy']:.3f}", f"{report['end_accuracy']:.3f}")
    table.add_row(f"PRM pair accuracy, last {_LAST_STEPS} steps", "0.500", f"{report['prm_pair_accuracy']:.3f}")
    display.console.print(table)
    checkpoint = config.run.path / "checkpoints" / f"step_{report['steps']}"
    for kind, path in (
        ("policy", checkpoint / "policy"),
        ("PRM", checkpoint / "prm"),
        ("metrics", config.run.path / "metrics.jsonl"),
        ("rollouts with token rewards", config.run.path / "rollouts"),
        ("logs", config.run.path / "logs"),
    ):
        display.say(f"{kind}: {path}")
