"""`primectl export`: a run's figures to an experiment tracker, whether the run goes on, has ended or has crashed.

It reads `metrics.jsonl` and `evaluation.jsonl` and writes through the adapters that the trainer has. Exported again, a
run gets what has come since.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prime.adapters.settings import TrackerSettings, load_settings
from prime.adapters.trackers.choice import open_trackers
from prime.adapters.trackers.jsonl_files import read_entries
from prime.errors import CheckpointError
from prime.tracking import METRICS, Outcome, TrackedRun, settings_to_show
from primectl.display import Display

# A batch of steps is no run to wait for: whatever the tracker needs to upload, it gets.
_UPLOAD_SECONDS = 600.0


def tracker_settings(to: str, given: Mapping[str, Any]) -> TrackerSettings:
    """The settings of one tracker.

    Raises:
        SettingsError: a value does not fit.
    """
    tree = {"use": [to], "flush_seconds": _UPLOAD_SECONDS, **given}
    return load_settings(TrackerSettings, None, [f"{key}={json.dumps(value)}" for key, value in tree.items()])


def run_export(folder: Path, settings: TrackerSettings, *, out: Path | None, name: str) -> int:
    """Write a run's steps and evaluations.

    Raises:
        CheckpointError: the folder holds no run, or no step yet.
        DataError: a line cannot be read.
        SettingsError: the tracker's library is missing.
        TrackerError: the tracker refuses the figures or cannot be reached.
    """
    if not (folder / METRICS).is_file():
        raise CheckpointError(f"{folder} holds no {METRICS}: give the folder of a run, e.g. runs/demo-1")
    entries = read_entries(folder)
    if not entries:
        raise CheckpointError(f"{folder / METRICS} holds no whole step yet; export the run again after its first step")
    run = TrackedRun(name=name or folder.resolve().name, folder=out or folder / "export", settings=_settings_of(folder))
    display = Display()
    for tracker in open_trackers(settings):
        place = tracker.start(run)
        outcome: Outcome = "failed"
        try:
            for entry in entries:
                (tracker.log_evaluation if entry.is_evaluation else tracker.log_step)(entry.row)
            outcome = "finished"
        finally:
            tracker.finish(outcome)
        evaluations = sum(entry.is_evaluation for entry in entries)
        display.say(f"{len(entries) - evaluations} steps and {evaluations} evaluations to {tracker.name}: {place}")
    return 0


def _settings_of(folder: Path) -> dict[str, Any]:
    """What `primectl up` left of the run's settings; a service that was started alone leaves none."""
    file = folder / "settings.json"
    if not file.is_file():
        return {}
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        return settings_to_show(tree["run"], tree["trainer"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}; remove it to export without settings") from None
