"""What is told to a tracker can be read back from it: the same cases on every tracker whose library is installed."""

import importlib
import importlib.util
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from prime.adapters.memory import MemoryTracker
from prime.adapters.settings import TrackerSettings, is_ci
from prime.adapters.trackers.choice import TRACKERS, open_trackers
from prime.adapters.trackers.jsonl_files import JsonlTracker, read_entries
from prime.errors import TrackerError
from prime.ports import Tracker
from prime.tracking import TrackedRun, evaluation_figures, step_figures
from tests.builders import evaluation_row

Curves = dict[str, dict[int, float]]
"""By name, then by step."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A way to track, and a way to read what was tracked."""

    open: Callable[[], Tracker]
    read: Callable[[Path], tuple[Curves, Curves]]
    """The curves of steps and of evaluations; each step once, or it fails."""
    takes_steps_back: bool
    """Whether a step that is logged again replaces the one before."""


@pytest.fixture(scope="module", autouse=True)
def _at_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the libraries' own files outside the tests' folders, and no message to anybody."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        for name in ("TRACKIO_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
            patch.setenv(name, str(home / name.lower()))
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield


@pytest.fixture(params=["memory", "jsonl", *TRACKERS])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    name = request.param
    if name == "memory":
        tracker = MemoryTracker()
        return Kind(open=lambda: tracker, read=lambda _: _of_memory(tracker), takes_steps_back=True)
    if name == "jsonl":
        return Kind(open=JsonlTracker, read=_of_jsonl, takes_steps_back=True)
    if importlib.util.find_spec(name) is None:
        assert name != "tensorboard" or not is_ci(), "tensorboard belongs to the development environment"
        pytest.skip(f"{name} is not installed (the extra {name!r})")
    settings = TrackerSettings(
        use=(name,), project=tmp_path.name, mlflow_uri=f"sqlite:///{tmp_path / 'mlflow.db'}", offline=True
    )
    read = {"tensorboard": _of_tensorboard, "wandb": _of_wandb, "mlflow": _of_mlflow, "trackio": _of_trackio}[name]
    return Kind(open=lambda: open_trackers(settings)[0], read=read, takes_steps_back=name == "tensorboard")


def _run(folder: Path, *, first_step: int = 0, steps: int = 1) -> TrackedRun:
    settings = {"run": {"name": "demo"}, "trainer": {"steps": steps, "loss": {"clip": 0.2}}}
    return TrackedRun(name="demo", folder=folder, settings=settings, first_step=first_step)


def _row(step: int, loss: float) -> dict[str, float]:
    return {"step": step, "policy/loss": loss, "eval/gsm8k/accuracy": 0.5}


def test_steps_and_evaluations_can_be_read_back(kind: Kind, tmp_path: Path) -> None:
    tracker = kind.open()
    assert tracker.start(_run(tmp_path))
    tracker.log_step(_row(0, 0.5))
    tracker.log_evaluation(evaluation_row(0, 0.25))
    tracker.log_step(_row(1, -0.25))
    tracker.log_step(_row(2, 0.125))
    # Measured while the run went on: the version is behind the step.
    tracker.log_evaluation(evaluation_row(1, 0.75))
    tracker.finish("finished")
    steps, evaluations = kind.read(tmp_path)
    assert steps == {"policy/loss": {0: 0.5, 1: -0.25, 2: 0.125}, "eval/gsm8k/accuracy": {0: 0.5, 1: 0.5, 2: 0.5}}
    assert evaluations["evaluation/gsm8k/average"] == {0: 0.25, 1: 0.75}
    assert set(evaluations) == set(evaluation_figures(evaluation_row(0, 0.25)))


def test_a_run_that_is_resumed_from_an_older_checkpoint_has_no_step_twice(kind: Kind, tmp_path: Path) -> None:
    first = kind.open()
    first.start(_run(tmp_path, steps=3))
    first.log_evaluation(evaluation_row(0, 0.25))
    for step in range(4):
        first.log_step(_row(step, 0.5))
    first.log_evaluation(evaluation_row(3, 0.25))
    first.finish("stopped")
    # A larger trainer.steps prolongs the run: settings may differ.
    again = kind.open()
    again.start(_run(tmp_path, first_step=2, steps=6))
    for step in range(2, 6):
        again.log_step(_row(step, 0.75))
    again.log_evaluation(evaluation_row(3, 0.5))
    again.log_evaluation(evaluation_row(5, 0.5))
    again.finish("finished")
    steps, evaluations = kind.read(tmp_path)
    redone = 0.75 if kind.takes_steps_back else 0.5
    assert steps["policy/loss"] == {0: 0.5, 1: 0.5, 2: redone, 3: redone, 4: 0.75, 5: 0.75}
    assert evaluations["evaluation/gsm8k/average"] == {0: 0.25, 3: 0.5 if kind.takes_steps_back else 0.25, 5: 0.5}


def test_what_a_tracker_missed_is_filled_in_when_all_is_told_again(kind: Kind, tmp_path: Path) -> None:
    first = kind.open()
    if isinstance(first, JsonlTracker):
        pytest.skip("the run's own record misses nothing")
    first.start(_run(tmp_path))
    first.log_step(_row(0, 0.5))
    first.log_step(_row(1, 0.5))
    # Killed here, with two steps and an evaluation on their way.
    first.finish("failed")
    again = kind.open()
    again.start(_run(tmp_path, first_step=4))
    for step in range(6):
        again.log_step(_row(step, 0.5))
        if step > 1:
            again.log_evaluation(evaluation_row(step, 0.25))
    again.finish("finished")
    steps, evaluations = kind.read(tmp_path)
    assert steps["policy/loss"] == dict.fromkeys(range(6), 0.5)
    assert evaluations["evaluation/gsm8k/average"] == dict.fromkeys(range(2, 6), 0.25)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_torn_bookmark_is_named_and_not_guessed(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    (tmp_path / "trackers").mkdir()
    (tmp_path / "trackers" / f"{name}.json").write_text('{"id": ')
    settings = TrackerSettings(use=(name,), mlflow_uri=f"sqlite:///{tmp_path / 'm.db'}", offline=True)
    with pytest.raises(TrackerError, match=rf"trackers/{name}\.json cannot be read.*remove it"):
        open_trackers(settings)[0].start(_run(tmp_path))


def test_mlflow_says_when_the_run_to_go_on_with_is_gone(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    settings = TrackerSettings(use=("mlflow",), mlflow_uri=f"sqlite:///{tmp_path / 'm.db'}")
    first = open_trackers(settings)[0]
    first.start(_run(tmp_path))
    first.finish("finished")
    bookmark = tmp_path / "trackers" / "mlflow.json"
    tree = json.loads(bookmark.read_text())
    bookmark.write_text(json.dumps({**tree, "id": "0" * 32}))
    with pytest.raises(TrackerError, match=r"mlflow: .*0{32}.*not found"):
        open_trackers(settings)[0].start(_run(tmp_path))


def test_mlflow_keeps_the_settings_and_how_the_run_ended(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    settings = TrackerSettings(use=("mlflow",), mlflow_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    tracker = open_trackers(settings)[0]
    tracker.start(_run(tmp_path))
    tracker.finish("stopped")
    run = _mlflow_run(tmp_path)[1]
    assert run.info.status == "KILLED"
    assert run.data.params == {"run.name": "demo", "trainer.steps": "1", "trainer.loss.clip": "0.2"}


# ---------------------------------------------------------------- reading back


def _once(curves: Curves, name: str, step: int, value: float) -> None:
    curve = curves.setdefault(name, {})
    assert step not in curve, f"{name} has step {step} twice"
    curve[step] = value


def _split(curves: Curves) -> tuple[Curves, Curves]:
    return (
        {name: curve for name, curve in curves.items() if not name.startswith("evaluation/")},
        {name: curve for name, curve in curves.items() if name.startswith("evaluation/")},
    )


def _of_memory(tracker: MemoryTracker) -> tuple[Curves, Curves]:
    curves: Curves = {}
    for rows in (tracker.steps, tracker.evaluations):
        for step, figures in rows.items():
            for name, value in figures.items():
                _once(curves, name, step, value)
    return _split(curves)


def _of_jsonl(folder: Path) -> tuple[Curves, Curves]:
    curves: Curves = {}
    for entry in read_entries(folder):
        for name, value in (evaluation_figures if entry.is_evaluation else step_figures)(entry.row).items():
            _once(curves, name, entry.number, value)
    return _split(curves)


def _of_tensorboard(folder: Path) -> tuple[Curves, Curves]:
    reader = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(folder / "tensorboard"), size_guidance={reader.SCALARS: 0})
    events.Reload()
    assert "settings/text_summary" in events.Tags()["tensors"]
    curves: Curves = {}
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            _once(curves, name, event.step, event.value)
    return _split(curves)


def _of_mlflow(folder: Path) -> tuple[Curves, Curves]:
    client, run = _mlflow_run(folder)
    curves: Curves = {}
    for name in run.data.metrics:
        for point in client.get_metric_history(run.info.run_id, name):
            _once(curves, name, point.step, point.value)
    return _split(curves)


def _mlflow_run(folder: Path) -> tuple[Any, Any]:
    tracking = importlib.import_module("mlflow.tracking")
    client = tracking.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    return client, client.get_run(run.info.run_id)


def _of_trackio(folder: Path) -> tuple[Curves, Curves]:
    storage = importlib.import_module("trackio.sqlite_storage").SQLiteStorage
    (run,) = importlib.import_module("trackio").Api().runs(folder.name)
    curves: Curves = {}
    for row in storage.get_logs(folder.name, run.name, run_id=run.id):
        for name, value in row.items():
            if name not in ("timestamp", "step"):
                _once(curves, name, row["step"], value)
    return _split(curves)


def _of_wandb(folder: Path) -> tuple[Curves, Curves]:
    """Offline files of all lives in their order, as `wandb sync` uploads them to one run."""
    steps: Curves = {}
    evaluations: Curves = {}
    # W&B's own process may still write; this ends it.
    importlib.import_module("wandb").teardown()
    files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda file: file.stat().st_mtime_ns)
    assert len({file.name for file in files}) == 1, "a resumed run has one id"
    records = importlib.import_module("wandb.proto.wandb_internal_pb2").Record
    for record in (records.FromString(data) for file in files for data in _wandb_records(file.read_bytes())):
        items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        version = int(items.get("evaluation/version", -1))
        for name, value in items.items():
            if name.startswith("evaluation/") and name != "evaluation/version":
                _once(evaluations, name, version, value)
            elif not name.startswith(("_", "evaluation/")):
                _once(steps, name, record.history.step.num, value)
    return steps, evaluations


def _wandb_records(data: bytes) -> Iterator[bytes]:
    """The format is LevelDB's log after a header of 7 bytes: blocks of 32 KiB; checksum, length and kind per piece."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, piece_kind = struct.unpack_from("<HB", data, place + 4)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if piece_kind in (1, 4):  # whole, or the last of several
            yield whole
            whole = b""


def test_names_of_evaluations_come_out_flat() -> None:
    row: Mapping[str, Any] = evaluation_row(3, 0.25)
    assert evaluation_figures(row) == {
        "evaluation/gsm8k/average": 0.25,
        "evaluation/gsm8k/average_low": 0.25,
        "evaluation/gsm8k/average_high": 0.25,
        "evaluation/gsm8k/pass_at_1": 0.25,
        "evaluation/gsm8k/pass_at_2": 0.25,
        "evaluation/gsm8k/majority_2": 0.25,
        "evaluation/gsm8k/mean_tokens": 12.0,
        "evaluation/gsm8k/truncated_share": 0.0,
        "evaluation/gsm8k/undecided": 1.0,
    }
