"""A whole run in an environment: episodes of several turns are sampled, verified, scored by turn and learnt from."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from jobs.sft import SftSettings, run_sft
from prime.data.problems import write_jsonl
from prime.data.tiny import write_tiny_model
from prime.environments.registry import ABILITY, read_task, task_of
from prime.environments.sokoban import Sokoban
from prime.types import Message, Problem
from primectl.config import RunConfig
from primectl.stack import local_stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

STEPS = 32
"""Four seeds went from 0.41 to 0.53 before to 0.91 to 1.0 after them; after 24 one machine stood at 0.78."""
CORRIDORS = ("#@$ .#", "#@ $.#", "#@$.#", "#@  $.#", "#@$  .#", "# @$ .#", "# @$.#", "#@ $ .#")
"""To the right is always right, and the model has to find out."""


def _problem(number: int, level: str) -> Problem:
    task = {"environment": "sokoban", "task": level, "max_turns": 5}
    return Problem(
        problem_id=f"corridor-{number}",
        data_source="corridor",
        ability=ABILITY,
        messages=(Message(role="user", content=level),),
        ground_truth=json.dumps(task),
    )


def _episode(stream: random.Random) -> dict[str, Any]:
    """A few random moves, and one more as the response: the model learns to say one letter, not which."""
    level = Sokoban(stream.choice(CORRIDORS))
    turns = [{"role": "user", "content": level.reset()}]
    for _ in range(stream.randrange(3)):
        move = stream.choice("rl")
        turns += [
            {"role": "assistant", "content": move + "<|end|>"},
            {"role": "user", "content": level.step(move).text},
        ]
    return {"prompt": turns, "response": stream.choice("rl")}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    write_jsonl([_problem(number, level) for number, level in enumerate(CORRIDORS, 1)], folder / "problems.jsonl")
    stream = random.Random(0)
    (folder / "sft.jsonl").write_text("".join(json.dumps(_episode(stream)) + "\n" for _ in range(512)))
    write_tiny_model(folder / "fresh", hidden=32, context=256)
    run_sft(
        SftSettings(
            model=folder / "fresh",
            data=folder / "sft.jsonl",
            output=folder / "sft",
            steps=60,
            batch_size=32,
            lr=5e-3,
            device="cpu",
        ),
        lambda step: None,
    )
    return folder


async def test_a_policy_learns_to_push_the_box(material: Path, tmp_path: Path) -> None:
    config = RunConfig.model_validate(
        {
            "run": {"name": "sokoban", "folder": str(tmp_path), "model": str(material / "sft")},
            "trainer": {
                "problems": str(material / "problems.jsonl"),
                "steps": STEPS,
                "prompts_per_step": 8,
                "samples_per_prompt": 8,
                "max_prompt_tokens": 64,
                "max_lag": 0,
                "sampling": {"max_tokens": 160},
                "filter": {"low": 0.0, "high": 1.0, "max_rounds": 1},
                "advantage": {"granularity": "turn", "process_coef": 0.3},
                "optimiser": {"lr": 1e-3, "threads": 1},
                "evaluation": {"problems": str(material / "problems.jsonl"), "samples": 8, "every": STEPS},
                "peers": {"stall_seconds": 120},
            },
            "prm": {"lr": 1e-3, "threads": 1},
            "rollout": {"max_context": 256},
        }
    )
    async with local_stack(config) as stack:
        async for _ in stack.train(resume=False):
            pass
    rows = [json.loads(line) for line in (config.run.path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(STEPS + 1))
    assert rows[-1]["eval/accuracy"] > rows[0]["eval/accuracy"] + 0.2
    # Sampler and trainer see the same tokens, so in strict mode their log-probs agree.
    assert max(row["policy/sampler_gap"] for row in rows[1:]) < 1e-4
    first = [json.loads(line) for line in (config.run.path / "rollouts" / "step_1.jsonl").read_text().splitlines()]
    played = next(sample for sample in first if sample["observed"])
    start, length = played["observed"][0]
    assert all(reward == 0.0 for _, reward in played["token_rewards"][start : start + length])
    read = "".join(piece for piece, _ in played["token_rewards"][start : start + length])
    assert read.startswith("\nuser: ")
    assert read.endswith("assistant: ")


def test_the_problems_are_read_as_tasks() -> None:
    task = task_of(_problem(1, CORRIDORS[0]))
    assert task is not None
    assert task == read_task(_problem(1, CORRIDORS[0]).ground_truth)
    assert task.max_turns == 5
