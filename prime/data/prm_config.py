"""`prm_config.json` beside a PRM's weights: how it wants to be read. A folder without one has its kind's defaults."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from prime.errors import CheckpointError
from prime.scoring import Activation, Aggregation, PrmConfig, StepValue

PRM_CONFIG_FILE = "prm_config.json"


def read_prm_config(folder: Path, default: PrmConfig = PrmConfig()) -> PrmConfig:  # noqa: B008  frozen
    """The configuration in a model folder; `default` holds the fields that it leaves out.

    Raises:
        CheckpointError: the file is no JSON object, or a key or value is not one that we know.
    """
    path = folder / PRM_CONFIG_FILE
    if not path.is_file():
        return default
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        config = _parse(tree, default)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    return config


def write_prm_config(config: PrmConfig, folder: Path) -> None:
    """Write it into a model folder."""
    (folder / PRM_CONFIG_FILE).write_text(json.dumps(asdict(config), indent=2) + "\n", encoding="utf-8")


def _parse(tree: Any, default: PrmConfig) -> PrmConfig:
    if not isinstance(tree, Mapping):
        raise ValueError("must hold a JSON object")
    known = [each.name for each in fields(PrmConfig)]
    unknown = sorted(set(tree) - set(known))
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; known are {', '.join(known)}")
    config = PrmConfig(
        beta=float(tree.get("beta", default.beta)),
        aggregation=Aggregation(tree.get("aggregation", default.aggregation)),
        step_value=StepValue(tree.get("step_value", default.step_value)),
        activation=Activation(tree.get("activation", default.activation)),
        separators=tuple(map(str, tree.get("separators", default.separators))),
        end_token=bool(tree.get("end_token", default.end_token)),
        prompt_pattern=str(tree.get("prompt_pattern", default.prompt_pattern)),
        step_mark=str(tree.get("step_mark", default.step_mark)),
        closing=str(tree.get("closing", default.closing)),
        trained_with=dict(tree.get("trained_with", {})),
    )
    if config.beta <= 0:
        raise ValueError(f"beta must be above 0, not {config.beta}")
    if not config.separators or not all(config.separators):
        raise ValueError("separators must be a list of texts that are not empty")
    try:
        re.compile(config.prompt_pattern)
    except re.error as error:
        raise ValueError(f"prompt_pattern is no regular expression: {error}") from None
    if config.aggregation is Aggregation.PROD and config.activation is not Activation.SIGMOID:
        raise ValueError("aggregation 'prod' needs activation 'sigmoid': rewards are no probabilities")
    return config
