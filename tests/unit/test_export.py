"""`primectl export`: the figures of a run's folder, in a tracker, afterwards."""

import json
from pathlib import Path

import pytest

from prime.adapters.trackers.jsonl_files import JsonlTracker
from prime.tracking import METRICS, TrackedRun
from primectl.main import main
from tests.builders import evaluation_row


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that crashed while it wrote step 3."""
    folder = tmp_path / "demo-1"
    folder.mkdir()
    record = JsonlTracker()
    record.start(TrackedRun(name="demo-1", folder=folder, settings={}))
    for step in range(3):
        record.log_step({"step": step, "policy/loss": step / 2})
    record.log_evaluation(evaluation_row(0, 0.25))
    record.log_evaluation(evaluation_row(2, 0.5))
    with (folder / METRICS).open("a") as file:
        file.write('{"step": 3, "policy/lo')
    settings = {
        "run": {"name": "demo-1", "redis_url": "redis://:secret@host"},
        "trainer": {"steps": 9, "peers": {"prm": "host:1"}},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    return folder


def _export(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["export", *map(str, arguments)])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def _curve(folder: Path, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_a_crashed_run_is_exported_up_to_its_last_whole_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _export(run, "--to", "tensorboard") == 0
    assert _curve(run / "export", "policy/loss") == [(0, 0.0), (1, 0.5), (2, 1.0)]
    assert _curve(run / "export", "evaluation/gsm8k/average") == [(0, 0.25), (2, 0.5)]
    assert "3 steps and 2 evaluations to tensorboard" in " ".join(capsys.readouterr().out.split())
    events = next((run / "export" / "tensorboard").iterdir()).read_bytes()
    assert b'"steps": 9' in events
    assert b"secret" not in events
    assert b"host" not in events.partition(b'"run"')[2]


def test_a_run_that_went_on_is_exported_again_without_doubles(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert _export(run, "--to", "tensorboard", "--out", out) == 0
    record = JsonlTracker()
    record.start(TrackedRun(name="demo-1", folder=run, settings={}, first_step=3))
    record.log_step({"step": 3, "policy/loss": 1.5})
    assert _export(run, "--to", "tensorboard", "--out", out) == 0
    assert _curve(out, "policy/loss") == [(0, 0.0), (1, 0.5), (2, 1.0), (3, 1.5)]
    assert not (run / "export").exists()


def test_wandb_offline_leaves_a_file_to_sync(run: Path) -> None:
    pytest.importorskip("wandb")
    assert _export(run, "--to", "wandb", "--offline", "--project", "p") == 0
    assert len(list(run.glob("export/wandb/offline-run-*/run-*.wandb"))) == 1


def test_the_runs_name_and_project_can_be_chosen(run: Path, tmp_path: Path) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert _export(run, "--to", "mlflow", "--project", "p", "--name", "again", "--mlflow-uri", uri) == 0
    client = tracking.MlflowClient(tracking_uri=uri)
    (found,) = client.search_runs([client.get_experiment_by_name("p").experiment_id])
    assert found.info.run_name == "again"
    assert found.data.metrics["policy/loss"] == 1.0
    assert found.data.params == {"run.name": "demo-1", "trainer.steps": "9"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / METRICS).unlink(), "holds no metrics.jsonl: give the folder of a run"),
        (lambda folder: [each.unlink() for each in folder.glob("*.jsonl")], "holds no metrics.jsonl"),
        (lambda folder: (folder / METRICS).write_text("{broken\n{}\n"), "metrics.jsonl, row 1: is no object"),
        (lambda folder: (folder / "settings.json").write_text("{"), "settings.json cannot be read"),
    ],
)
def test_what_cannot_be_exported_is_said_and_nothing_is_written(
    spoil: object, message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(spoil)
    spoil(run)
    assert _export(run, "--to", "tensorboard") == 1
    assert message in capsys.readouterr().err
    assert not (run / "export").exists()


def test_a_run_without_a_whole_step_is_not_exported(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / METRICS).write_text('{"step": 0')
    (run / "evaluation.jsonl").unlink()
    assert _export(run, "--to", "tensorboard") == 1
    assert "holds no whole step yet" in capsys.readouterr().err


def test_an_unknown_tracker_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _export(run, "--to", "excel") == 2
    assert "tensorboard" in capsys.readouterr().err
