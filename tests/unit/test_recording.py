"""Batches on disk: what was recorded comes back whole, and a broken line says where it is."""

from pathlib import Path

import pytest

from prime.errors import DataError
from prime.types import FinishReason, GradedGroup, RolloutGroup, VersionSpan
from services.trainer.collector import CollectorState
from services.trainer.recording import RecordedGroups, record
from tests.builders import graded, sample

FIRST = [graded((1.0, 0.0), ((3, 4, 1), (9, 1)), "0.0-a"), graded((0.0, 0.5), ((30, 1), (5, 1)), "1.0-b")]
SECOND = [
    GradedGroup(
        group=RolloutGroup(
            group_id="2.1-ü",
            problem_id="ü",
            attempt=1,
            prompt_ids=(5,),
            samples=(
                sample((3, 4), truncated=True),
                sample((7, 8, 1), version=3),
            ),
        ),
        outcomes=(0.25, 1.0),
    )
]


def _recorded(folder: Path) -> RecordedGroups:
    return RecordedGroups(folder, state=CollectorState())


async def test_batches_come_back_as_they_were_in_the_order_of_their_steps_and_then_from_the_first(
    tmp_path: Path,
) -> None:
    record(tmp_path, 9, FIRST)
    record(tmp_path, 10, SECOND)
    groups = _recorded(tmp_path)
    assert await groups.fill(0) == FIRST
    assert groups.take_figures() == {"collect/kept": 2.0, "collect/mean_score": 0.375}
    (found,) = await groups.fill(1)
    assert found == SECOND[0]
    assert found.group.samples[0].finish_reason is FinishReason.LENGTH
    assert found.group.samples[1].spans == (VersionSpan(version=3, length=3),)
    assert await groups.fill(2) == FIRST


@pytest.mark.parametrize("damage", ["{", "{}", '{"group": {"samples": [{}]}, "outcomes": []}', "[1]"])
async def test_a_line_that_is_no_group_is_refused_by_file_and_row(tmp_path: Path, damage: str) -> None:
    record(tmp_path, 1, FIRST)
    with (tmp_path / "step_1.jsonl").open("a") as file:
        file.write(damage + "\n")
    with pytest.raises(DataError, match=r"step_1\.jsonl, row 3: is not a recorded group"):
        await _recorded(tmp_path).fill(0)


def test_a_folder_without_recorded_steps_says_how_to_record_some(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no recorded steps.*trainer\.record = true"):
        _recorded(tmp_path)
