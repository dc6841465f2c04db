"""Graded groups on disk: a run's batches, to train on again without sampling, for debugging and for benchmarks.

recorded/step_N.jsonl   one group per line
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prime.errors import DataError
from prime.files import write_file
from prime.types import FinishReason, GradedGroup, RolloutGroup, Sample, TokenSpan, VersionSpan
from services.trainer.collector import CollectorState, take_figures
from services.trainer.timeline import Timeline


def record(folder: Path, step: int, groups: Sequence[GradedGroup]) -> None:
    """Write a batch."""
    write_file(folder / f"step_{step}.jsonl", "".join(json.dumps(asdict(graded)) + "\n" for graded in groups))


def recorded_steps(folder: Path) -> list[Path]:
    """The files of a folder's steps, in their order."""
    return sorted(folder.glob("step_*.jsonl"), key=lambda file: int(file.stem.removeprefix("step_")))


class RecordedGroups:
    """Stands in for the collector: the batches that another run recorded, step by step, then from the first again."""

    def __init__(self, folder: Path, *, state: CollectorState) -> None:
        """Look what is there.

        Raises:
            DataError: nothing was recorded in this folder.
        """
        self._files = recorded_steps(folder)
        if not self._files:
            raise DataError(f"{folder} holds no recorded steps (step_N.jsonl); record some with trainer.record = true")
        self.state = state
        self.counts: Counter[str] = Counter()
        self.scores: list[float] = []

    def take_figures(self) -> dict[str, float]:
        """Counts, and the mean score, of what came since this was asked last."""
        return take_figures(self.counts, self.scores)

    async def start(self, on_kept: Callable[[GradedGroup], None], timeline: Timeline) -> int:
        """Nothing has to be dropped."""
        return 0

    async def close(self) -> None:
        """Nothing runs."""

    def advance(self, version: int) -> None:
        """What was recorded does not age."""

    async def fill(self, version: int) -> list[GradedGroup]:
        """The batch of the step after `version`.

        Raises:
            DataError: it cannot be read.
        """
        groups = await asyncio.to_thread(read_recorded, self._files[version % len(self._files)])
        self.counts["kept"] = len(groups)
        self.scores += [sum(each.outcomes) / len(each.outcomes) for each in groups]
        return groups

    def take_back(self, groups: Sequence[GradedGroup]) -> None:
        """They stay where they are."""


def read_recorded(file: Path) -> list[GradedGroup]:
    """The groups of one recorded step.

    Raises:
        DataError: a row is not one; names file and row.
    """
    groups = []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        try:
            groups.append(_graded(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file}, row {number}: is not a recorded group: {error}") from None
    return groups


def _graded(tree: dict[str, Any]) -> GradedGroup:
    group = tree["group"]
    samples = tuple(
        Sample(
            response_ids=tuple(sample["response_ids"]),
            logprobs=tuple(sample["logprobs"]),
            spans=tuple(VersionSpan(**span) for span in sample["spans"]),
            finish_reason=FinishReason(sample["finish_reason"]),
            observed=tuple(TokenSpan(**span) for span in sample.get("observed", ())),
        )
        for sample in group["samples"]
    )
    whole = {key: group[key] for key in ("group_id", "problem_id", "attempt")}
    return GradedGroup(
        group=RolloutGroup(**whole, prompt_ids=tuple(group["prompt_ids"]), samples=samples),
        outcomes=tuple(tree["outcomes"]),
    )
