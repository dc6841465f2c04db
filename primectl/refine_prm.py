"""`primectl refine-prm`: a run's PRM learns once more from the answers that the run recorded.

A run shows each answer to its PRM once, while the policy that gives the answers changes. Best-of-N asks about answers
of the last policy; the last batches, learnt once more, are nearest to them.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.train_prm import TrainPrmSettings
from prime.adapters.settings import load_settings
from prime.data.problems import load_problems
from prime.data.prompts import response_text
from prime.errors import CheckpointError, DataError
from prime.lm.model import load_tokenizer
from prime.types import GradedGroup, Problem
from primectl.config import RunConfig, load_config
from services.trainer.recording import read_recorded, recorded_steps
from services.trainer.run_folder import RunFolder


def settings_of(run: Path, *, output: Path, last: int, overrides: Sequence[str]) -> TrainPrmSettings:
    """What `train-prm` is told; the candidates are written into the run folder.

    Raises:
        CheckpointError: the folder holds no run, or none with a PRM.
        DataError: it recorded nothing, or episodes, which have no single text.
    """
    file = run / "settings.json"
    if not file.is_file():
        raise CheckpointError(f"{run} holds no run: it has no settings.json")
    config = load_config(file, [])
    model = run / "checkpoints" / f"step_{RunFolder.latest_step(run)}" / "prm"
    if not model.is_dir():
        raise CheckpointError(f"{run} has no PRM: there is no {model}")
    candidates = run / "recorded" / "candidates.jsonl"
    count = _write_candidates(config, run, candidates, last=last)
    if not count:
        raise DataError(f"{run} recorded no answers; set trainer.record = true before it is trained")
    given = {
        "model": str(model),
        "reference": str(config.prm.reference or config.prm.model or config.run.model),
        "data": [str(candidates)],
        "output": str(output),
        "lr": config.prm.lr,
        "token_budget": config.prm.token_budget,
        "threads": config.prm.threads,
        "device": config.prm.device,
        "compute": config.prm.compute.model_dump(),
    }
    return load_settings(TrainPrmSettings, None, [*_as_overrides(given), *overrides])


def _as_overrides(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found += _as_overrides(value, f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key}={value if isinstance(value, str) else json.dumps(value)}")
    return found


def _write_candidates(config: RunConfig, run: Path, file: Path, *, last: int) -> int:
    """The groups of the `last` steps (0: of all), a row each; returns how many."""
    steps = recorded_steps(run / "recorded")
    problems = {each.problem_id: each for each in load_problems(config.trainer.problems)}
    tokenizer = load_tokenizer(config.run.model)
    rows = [
        _row(graded, problems[graded.group.problem_id], tokenizer)
        for step in steps[-last:]
        for graded in read_recorded(step)
    ]
    if rows:
        file.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    return len(rows)


def _row(graded: GradedGroup, problem: Problem, tokenizer: Any) -> dict[str, Any]:
    if any(sample.observed for sample in graded.group.samples):
        raise DataError(f"{problem.problem_id} was played: episodes of several turns have no single text to learn from")
    return {
        "prompt": [{"role": each.role, "content": each.content} for each in problem.messages],
        "completions": [response_text(tokenizer, sample.response_ids) for sample in graded.group.samples],
        "correctness": list(graded.outcomes),
    }
