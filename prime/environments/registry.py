"""Environments by name, and the tasks that problems name in their ground truth."""

import json
from collections.abc import Callable, Mapping, Sequence

from prime.environments.base import Environment
from prime.environments.sokoban import Sokoban
from prime.errors import DataError
from prime.types import EnvironmentTask, Problem

ABILITY = "environment"
"""Of problems that are played."""
_ENVIRONMENTS: Mapping[str, Callable[[str], Environment]] = {"sokoban": Sokoban}


def open_environment(task: EnvironmentTask) -> Environment:
    """A fresh episode.

    Raises:
        DataError: no environment has this name, or it cannot read the task.
    """
    if task.name not in _ENVIRONMENTS:
        raise DataError(f"no environment is called {task.name[:40]!r}; there are {', '.join(_ENVIRONMENTS)}")
    return _ENVIRONMENTS[task.name](task.task)


def read_task(ground_truth: str) -> EnvironmentTask:
    """What a problem of ability `environment` has as its ground truth.

    Example: `{"environment": "sokoban", "task": "#@$.#", "max_turns": 6}`.

    Raises:
        DataError: it is no such object, or the environment cannot read the task.
    """
    try:
        tree = json.loads(ground_truth)
        task = EnvironmentTask(name=str(tree["environment"]), task=str(tree["task"]), max_turns=int(tree["max_turns"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"an environment's ground truth is an object with `environment`, `task` and `max_turns`: {error!r}"
        ) from None
    if task.max_turns < 1:
        raise DataError(f"max_turns = {task.max_turns}: an episode needs a turn at least")
    open_environment(task)
    return task


def task_of(problem: Problem) -> EnvironmentTask | None:
    """The task of a problem that is played; None of one that is answered."""
    return read_task(problem.ground_truth) if problem.ability == ABILITY else None


def play(task: EnvironmentTask, actions: Sequence[str]) -> float:
    """The score of an episode with these actions.

    Raises:
        DataError: the task cannot be read.
    """
    environment = open_environment(task)
    environment.reset()
    for action in actions[: task.max_turns]:
        if environment.step(action).done:
            break
    return environment.score
