"""`primectl demo-real`: trains the real model, measures it before and after, and reports."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.evaluate.report import with_p
from prime.adapters.settings import is_ci
from prime.data.problems import load_problems
from prime.errors import PeerUnavailable
from prime.evaluation.sets import find_set
from primectl.before_after import Found, Stage, Trial, difference, markdown, measure, shown_answers
from primectl.config import RunConfig
from primectl.demo_real import SHORT, DemoRuns, Scale, run_demo_real
from primectl.display import Display
from primectl.scorers import ScorerOptions
from primectl.written import next_free

_HELD_OUT, _HARD, _GSM8K = "held_out", "hard", "gsm8k"
_HARD_SAMPLES = 1


def run_demo_real_command(*, folder: Path, scale: Scale, data: Path) -> int:
    """Train, evaluate, report; the last line on stdout is one JSON object.

    Raises:
        PeerUnavailable: the model is not in the cache, and the package registry cannot be reached.
    """
    started = time.monotonic()
    display = Display()
    run_path = next_free(folder, "demo-real")
    display.say(f"Everything goes to {run_path}.")
    try:
        runs = run_demo_real(display, run_path, scale=scale)
    except PeerUnavailable as error:
        if scale is not SHORT or is_ci():
            raise
        display.say(f"skipped: {error}")
        return 0
    trial = _trial(runs, run_path, scale, data)
    found = measure(_stages(runs, scale), trial, display)
    report = _report(found, trial, runs, seconds=time.monotonic() - started)
    page = _page(found, trial, runs, report)
    (run_path / "report.md").write_text(page, encoding="utf-8")
    display.say(page)
    display.say(f"report: {run_path / 'report.md'}; every sample: {trial.folder}")
    print(json.dumps(report))
    return 0


def _stages(runs: DemoRuns, scale: Scale) -> list[Stage]:
    end = _checkpoint(runs.prime)
    prm = ScorerOptions(
        model=runs.prm,
        reference="none",
        overrides=(f"threads={runs.prime.prm.threads}", f"compute.dtype={runs.prime.prm.compute.dtype}"),
    )
    rloo = _checkpoint(runs.outcome_only) / "policy"
    # Best-of-N is asked of the last policy alone, so half the samples do for the others.
    fewer = scale.samples // 2
    return [
        Stage(name="base", title="as it comes", model=runs.material / "model", samples=1),
        Stage(name="start", title="after SFT", model=runs.material / "sft", samples=fewer, prm=prm),
        Stage(name="end", title="after PRIME", model=end / "policy", samples=scale.samples, prm=prm),
        Stage(name="rloo", title="after RLOO, outcomes alone", model=rloo, samples=fewer),
    ]


def _checkpoint(config: RunConfig) -> Path:
    return config.run.path / "checkpoints" / f"step_{config.trainer.steps}"


def _trial(runs: DemoRuns, run_path: Path, scale: Scale, data: Path) -> Trial:
    rollout = runs.prime.rollout
    has_gsm8k = (data / find_set(_GSM8K).file).is_file()
    return Trial(
        folder=run_path / "evaluation",
        sets=(
            f"{_HELD_OUT}={runs.material / 'held_out.jsonl'}",
            f"{_HARD}={runs.material / 'hard.jsonl'}:{_HARD_SAMPLES}",
            # Not part of the project: measured where `primectl fetch-set gsm8k` was run.
            *([f"{_GSM8K}:1"] if has_gsm8k else []),
        ),
        main=_HELD_OUT,
        common={
            "data": data,
            "limit": scale.problems,
            "sampling": {"max_tokens": scale.answer_tokens},
            "rollout": {"engine": rollout.engine, "dtype": rollout.dtype, "threads": rollout.threads},
            "verifier": {"min_tier": "B", "workers": 1},
        },
    )


def _report(found: Found, trial: Trial, runs: DemoRuns, *, seconds: float) -> dict[str, Any]:
    gain = difference(trial, "start", "end", _HELD_OUT)
    harder = difference(trial, "start", "end", _HARD)
    chosen = found.reports["end"].sets[_HELD_OUT]
    best, best_gain = chosen.best_of, chosen.best_of_gain
    assert best_gain is not None, "the last policy's samples are scored"
    figures = {
        "base_accuracy": found.average("base", _HELD_OUT).mean,
        "start_accuracy": found.average("start", _HELD_OUT).mean,
        "end_accuracy": found.average("end", _HELD_OUT).mean,
        "gain": gain.mean,
        "gain_low": gain.low,
        "harder_gain": harder.mean,
        "rloo_gain": difference(trial, "start", "rloo", _HELD_OUT).mean,
        "best_of_8": best[max(best)].mean,
        "single": best[1].mean,
        "best_of_8_gain_low": best_gain.low,
        "tokens_per_second": _tokens_per_second(runs.prime),
    }
    return {
        **{name: round(value, 4) for name, value in figures.items()},
        "seconds": round(seconds, 1),
        "engine": f"{runs.prime.rollout.engine}, {runs.prime.rollout.dtype}",
        "steps": runs.prime.trainer.steps,
    }


def _tokens_per_second(config: RunConfig) -> float:
    """Response tokens learnt from per second of a step."""
    lines = (config.run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows: list[Mapping[str, float]] = [json.loads(line) for line in lines]
    trained = [row for row in rows if row.get("batch/response_tokens")]
    seconds = sum(row["time/step_seconds"] for row in trained)
    return sum(row["batch/response_tokens"] for row in trained) / seconds if seconds else 0.0


def _page(found: Found, trial: Trial, runs: DemoRuns, report: Mapping[str, Any]) -> str:
    problems = load_problems(str(runs.material / "held_out.jsonl"))
    questions = {f"{_HELD_OUT}-{number}": each.messages[-1].content for number, each in enumerate(problems, 1)}
    gain = difference(trial, "start", "end", _HELD_OUT)
    return (
        "\n\n".join(
            [
                "# A real model before and after PRIME",
                markdown(found, trial).strip(),
                f"Gain on held-out problems: {with_p(gain)}.",
                "Three held-out problems, first sample each:",
                shown_answers(trial, found, questions).strip(),
                f"```\n{json.dumps(report)}\n```",
            ]
        )
        + "\n"
    )
