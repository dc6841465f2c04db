"""Text Sokoban: episodes of several turns, from a policy that mostly knows the way."""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.experiment.family import Family
from jobs.sft import SftSettings, run_sft
from prime.data.levels import level_problem
from prime.data.problems import write_jsonl
from prime.data.tiny import write_tiny_model
from prime.environments.sokoban import Sokoban, draw_levels, solution
from prime.types import Message, Problem

_SIZE, _PULLS = 5, 6
_NUM_HELD_OUT, _NUM_TRAIN, _NUM_SHOWN = 64, 192, 128
_CARELESS = 0.25
"""Of the moves that are shown, those that are drawn and not the best."""
_LONGEST_EPISODE = 512
_SFT_BATCH, _SFT_STEPS = 64, 1500


def sokoban() -> Family:
    """Rooms with one box; a step is a turn."""
    return Family(
        name="sokoban",
        write=_write,
        trainer={
            "prompts_per_step": 16,
            "samples_per_prompt": 4,
            "max_prompt_tokens": 64,
            "sampling": {"max_tokens": _LONGEST_EPISODE},
            "optimiser": {"threads": 1, "device": "cpu"},
        },
        prm={"threads": 1, "device": "cpu"},
        max_context=64 + _LONGEST_EPISODE,
        step="turn",
    )


def _write(folder: Path) -> None:
    levels = draw_levels(_NUM_HELD_OUT + _NUM_TRAIN + _NUM_SHOWN, size=_SIZE, boxes=1, pulls=_PULLS, seed=1)
    held_out, train = levels[:_NUM_HELD_OUT], levels[_NUM_HELD_OUT : _NUM_HELD_OUT + _NUM_TRAIN]
    write_jsonl(_problems(held_out), folder / "held_out.jsonl")
    write_jsonl(_problems(train), folder / "problems.jsonl")
    # What is shown has levels of its own and those to train on: what can be learnt from them is how, not yet how well.
    shown = _shown([level for level, _ in levels[_NUM_HELD_OUT:]], seed=2)
    with (folder / "sft.jsonl").open("w", encoding="utf-8") as file:
        for row in islice(shown, _SFT_STEPS * _SFT_BATCH):
            file.write(json.dumps(row) + "\n")
    write_tiny_model(folder / "fresh", hidden=64, context=64 + _LONGEST_EPISODE)
    run_sft(
        SftSettings(
            model=folder / "fresh",
            data=folder / "sft.jsonl",
            output=folder / "sft",
            steps=_SFT_STEPS,
            batch_size=_SFT_BATCH,
            lr=2e-3,
            final_lr_share=0.05,
            device="cpu",
        ),
        lambda step: None,
    )
    (folder / "sft.jsonl").unlink()


def _problems(levels: Sequence[tuple[str, int]]) -> list[Problem]:
    # A tiny model is not told the rules.
    return [
        replace(level_problem(level, moves=moves, number=number), messages=(Message(role="user", content=level),))
        for number, (level, moves) in enumerate(levels, start=1)
    ]


def _shown(levels: Sequence[str], *, seed: int) -> Iterator[dict[str, Any]]:
    """An endless stream of turns: what was seen and said so far, and a move that is mostly the best."""
    draw = random.Random(seed)
    while True:
        room = Sokoban(draw.choice(levels))
        turns = [{"role": "user", "content": room.reset()}]
        for _ in range(draw.randrange(8)):
            move = _move(draw, turns[-1]["content"])
            seen = room.step(move)
            if seen.done:
                break
            turns += [{"role": "assistant", "content": f"{move}<|end|>"}, {"role": "user", "content": seen.text}]
        if best := _move(draw, turns[-1]["content"]):
            yield {"prompt": turns, "response": best}


def _move(draw: random.Random, level: str) -> str:
    """The first letter of the best move, or of any; of any, too, where the box can not be brought home any more."""
    best = solution(level)
    return (best[0] if best and draw.random() >= _CARELESS else draw.choice(("up", "down", "left", "right")))[0]
