"""Sokoban levels as problems."""

import json
from pathlib import Path

from prime.data.problems import write_jsonl
from prime.environments.registry import ABILITY
from prime.environments.sokoban import draw_levels
from prime.types import Message, Problem

_ROOM_FOR_MISTAKES = 2
"""Turns, as a multiple of the moves that a level needs."""
_RULES = (
    "This is Sokoban: # is a wall, @ you, $ a box, . a goal, * a box on a goal, + you on a goal. Push every box onto a "
    "goal. In each turn say one move: up, down, left or right."
)


def level_problem(level: str, *, moves: int, number: int) -> Problem:
    """A level as a problem that is solved in about `moves` moves."""
    task = {"environment": "sokoban", "task": level, "max_turns": _ROOM_FOR_MISTAKES * moves}
    return Problem(
        problem_id=f"sokoban-{number}",
        data_source="sokoban",
        ability=ABILITY,
        messages=(Message(role="user", content=f"{_RULES}\n\n{level}"),),
        ground_truth=json.dumps(task),
    )


def write_levels(path: Path, *, count: int, size: int, boxes: int, pulls: int, seed: int) -> int:
    """Write different levels as problems; returns how many.

    Raises:
        DataError: a room of this size has not so many.
    """
    levels = draw_levels(count, size=size, boxes=boxes, pulls=pulls, seed=seed)
    numbered = enumerate(levels, start=1)
    write_jsonl([level_problem(level, moves=moves, number=number) for number, (level, moves) in numbered], path)
    return len(levels)
