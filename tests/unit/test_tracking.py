"""Trackers beside a run: one that is slow, away or broken loses figures, and the run loses nothing."""

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog

from prime.adapters.memory import MemoryTracker
from prime.adapters.trackers.choice import check_installed, open_trackers
from prime.adapters.trackers.jsonl_files import JsonlTracker, read_entries
from prime.adapters.trackers.translation import translated
from prime.errors import DataError, SettingsError, TrackerError
from prime.tracking import METRICS, TrackedRun, settings_to_show
from services.trainer.settings import TrainerSettings
from services.trainer.tracking import Tracking
from tests.builders import evaluation_row

_LONG = 60.0
"""For what ends at once; nothing waits that long unless it fails."""


class BrokenTracker(MemoryTracker):
    """Fails at the start, or at every step in `fails_at`."""

    def __init__(self, *, at_start: bool = False, fails_at: tuple[int, ...] = ()) -> None:
        super().__init__("broken")
        self._at_start = at_start
        self._fails_at = fails_at

    def start(self, run: TrackedRun) -> str:
        if self._at_start:
            raise TrackerError("broken: no key")
        return super().start(run)

    @translated("broken")
    def log_step(self, row: Mapping[str, float]) -> None:
        if row["step"] in self._fails_at:
            raise ConnectionResetError("the server hung up")
        super().log_step(row)


class StuckTracker(MemoryTracker):
    """Hangs in its first step until it is let go."""

    def __init__(self) -> None:
        super().__init__("stuck")
        self.hangs = threading.Event()
        self.may_go = threading.Event()

    def log_step(self, row: Mapping[str, float]) -> None:
        self.hangs.set()
        self.may_go.wait()
        super().log_step(row)


def _tracking(folder: Path, *trackers: MemoryTracker, capacity: int = 100) -> tuple[Tracking, Counter[str]]:
    lost: Counter[str] = Counter()
    run = TrackedRun(name="x", folder=folder, settings={"trainer": {"steps": 3}})
    record = JsonlTracker()
    return Tracking(run, record, trackers, on_lost=lambda name: lost.update([name]), capacity=capacity), lost


def _steps(folder: Path) -> list[int]:
    return [each.number for each in read_entries(folder) if not each.is_evaluation]


def test_every_tracker_gets_everything_in_order(tmp_path: Path) -> None:
    one, two = MemoryTracker("one"), MemoryTracker("two")
    tracking, lost = _tracking(tmp_path, one, two)
    tracking.start(first_step=0)
    tracking.log_step({"step": 0, "eval/accuracy": 0.5})
    tracking.log_evaluation(evaluation_row(0, 0.5))
    tracking.log_step({"step": 1, "policy/loss": 0.25})
    tracking.close("stopped", patience_s=_LONG)
    for tracker in (one, two):
        assert tracker.steps == {0: {"eval/accuracy": 0.5}, 1: {"policy/loss": 0.25}}
        assert list(tracker.evaluations) == [0]
        assert tracker.outcome == "stopped"
        assert tracker.runs[0].settings == {"trainer": {"steps": 3}}
    assert _steps(tmp_path) == [0, 1]
    assert not lost


def test_a_tracker_that_fails_now_and_then_is_warned_of_once_and_counted(tmp_path: Path) -> None:
    broken, well = BrokenTracker(fails_at=(1, 2)), MemoryTracker("well")
    tracking, lost = _tracking(tmp_path, broken, well)
    with structlog.testing.capture_logs() as logs:
        tracking.start(first_step=0)
        for step in range(4):
            tracking.log_step({"step": step})
        tracking.close("finished", patience_s=_LONG)
    assert list(broken.steps) == [0, 3]
    assert list(well.steps) == _steps(tmp_path) == [0, 1, 2, 3]
    assert lost == {"broken": 2}
    (warning,) = [each for each in logs if each["log_level"] == "warning"]
    assert warning["tracker"] == "broken"
    assert warning["reason"] == "broken: ConnectionResetError: the server hung up"
    assert "primectl export" in warning["advice"]


def test_a_tracker_that_does_not_start_loses_all_and_the_run_goes_on(tmp_path: Path) -> None:
    broken = BrokenTracker(at_start=True)
    tracking, lost = _tracking(tmp_path, broken)
    with structlog.testing.capture_logs() as logs:
        tracking.start(first_step=0)
        for step in range(3):
            tracking.log_step({"step": step})
        tracking.close("finished", patience_s=_LONG)
    assert _steps(tmp_path) == [0, 1, 2]
    assert broken.steps == {}
    assert lost == {"broken": 3}
    assert [each["reason"] for each in logs if each["log_level"] == "warning"] == ["broken: no key"]


def test_a_tracker_that_hangs_holds_up_neither_a_step_nor_the_end(tmp_path: Path) -> None:
    stuck, well = StuckTracker(), MemoryTracker("well")
    tracking, lost = _tracking(tmp_path, stuck, well)
    tracking.start(first_step=0)
    tracking.log_step({"step": 0})
    assert stuck.hangs.wait(_LONG)
    tracking.log_step({"step": 1})
    tracking.close("finished", patience_s=0.0)
    assert _steps(tmp_path) == [0, 1]
    # Step 0, step 1 and the end are not known to have arrived.
    assert lost["stuck"] == 3
    stuck.may_go.set()


def test_a_full_queue_drops_rows_instead_of_growing(tmp_path: Path) -> None:
    stuck = StuckTracker()
    tracking, lost = _tracking(tmp_path, stuck, capacity=2)
    tracking.start(first_step=0)
    tracking.log_step({"step": 0})
    assert stuck.hangs.wait(_LONG)
    for step in range(1, 6):
        tracking.log_step({"step": step})
    assert lost == {"stuck": 3}
    stuck.may_go.set()
    tracking.close("finished", patience_s=_LONG)
    assert list(stuck.steps) == [0, 1, 2]
    assert stuck.outcome == "finished"
    assert _steps(tmp_path) == [0, 1, 2, 3, 4, 5]


def test_the_end_of_a_run_that_never_started_waits_for_nothing(tmp_path: Path) -> None:
    tracking, lost = _tracking(tmp_path, MemoryTracker())
    tracking.close("failed", patience_s=_LONG)
    assert not lost


def test_a_resumed_run_forgets_the_lines_after_its_checkpoint_and_a_torn_one(tmp_path: Path) -> None:
    tracking, _ = _tracking(tmp_path)
    tracking.start(first_step=0)
    for step in range(4):
        tracking.log_step({"step": step})
        tracking.log_evaluation(evaluation_row(step, 0.5))
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 4, "policy/lo')
    again, _ = _tracking(tmp_path)
    again.start(first_step=3)
    assert _steps(tmp_path) == [0, 1, 2]
    assert [each.number for each in read_entries(tmp_path) if each.is_evaluation] == [0, 1, 2]


def test_a_resumed_run_tells_its_trackers_what_they_missed(tmp_path: Path) -> None:
    broken = BrokenTracker(at_start=True)
    tracking, _ = _tracking(tmp_path, broken)
    tracking.start(first_step=0)
    for step in range(4):
        tracking.log_step({"step": step, "policy/loss": float(step)})
    tracking.log_evaluation(evaluation_row(2, 0.5))
    tracking.close("failed", patience_s=_LONG)
    well = MemoryTracker()
    again, lost = _tracking(tmp_path, well)
    again.start(first_step=3)
    again.log_step({"step": 3, "policy/loss": 0.5})
    again.close("finished", patience_s=_LONG)
    assert well.steps == {step: {"policy/loss": loss} for step, loss in enumerate((0.0, 1.0, 2.0, 0.5))}
    assert list(well.evaluations) == [2]
    assert not lost


@pytest.mark.parametrize("line", ['{"step": 1, "policy/lo', "7", '{"policy/loss": 0.5}', '{"step": "one"}'])
def test_a_line_that_is_no_step_is_named_unless_it_is_still_being_written(tmp_path: Path, line: str) -> None:
    (tmp_path / METRICS).write_text(f'{{"step": 0}}\n{line}\n{{"step": 2}}\n{{"step": 3')
    with pytest.raises(DataError, match=rf"{METRICS}, row 2: .*'step'.*take the line out"):
        read_entries(tmp_path)
    (tmp_path / METRICS).write_text(f'{{"step": 0}}\n{line}')
    assert _steps(tmp_path) == [0]


@pytest.mark.parametrize("folder_in_the_way", [False, True])
def test_a_missing_library_is_named_with_its_extra(
    folder_in_the_way: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B leaves a folder `wandb` in the working directory, which Python would import as an empty package."""
    missing = "prime_no_such_tracker"
    if folder_in_the_way:
        (tmp_path / missing).mkdir()
        monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SettingsError, match=rf"'{missing}'.*pip install 'prime-services\[{missing}\]'"):
        check_installed(["tensorboard", missing])


def test_no_library_is_loaded_before_its_tracker_starts() -> None:
    program = (
        "import sys\n"
        "from prime.adapters.settings import TrackerSettings\n"
        "from prime.adapters.trackers.choice import open_trackers\n"
        "open_trackers(TrackerSettings(use=('tensorboard',)))\n"
        "print('LOADED', *({'torch', 'tensorboard', 'wandb', 'mlflow', 'trackio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["LOADED"]


def test_a_tracker_that_is_named_twice_is_opened_once() -> None:
    settings = TrainerSettings.model_validate(
        {"problems": "x", "steps": 1, "trackers": {"use": ["tensorboard", "tensorboard"]}}
    )
    assert [each.name for each in open_trackers(settings.trackers)] == ["tensorboard"]


def test_trackers_are_shown_no_address_and_no_password() -> None:
    run = {"name": "x", "seed": 0, "redis_url": "redis://:secret@host", "tls_folder": "/tls"}
    trainer: dict[str, Any] = TrainerSettings.model_validate(
        {"problems": "x", "steps": 1, "trackers": {"mlflow_uri": "http://me:secret@host"}}
    ).model_dump(mode="json")
    shown = settings_to_show(run, trainer)
    assert shown["run"] == {"name": "x", "seed": 0}
    assert shown["trainer"]["loss"]["clip"] == 0.2
    assert "secret" not in str(shown)
    assert not {"peers", "listen", "ops_listen", "trackers"} & set(shown["trainer"])
