"""MLflow. Who may write comes from its own variables (`MLFLOW_TRACKING_USERNAME`, `MLFLOW_TRACKING_TOKEN`, ...)."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from prime.adapters.settings import TrackerSettings
from prime.adapters.trackers.bookmark import Bookmark
from prime.adapters.trackers.translation import translated
from prime.tracking import Outcome, TrackedRun, evaluation_figures, step_figures

_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
# MLflow's own limit per call.
_PARAMS_AT_ONCE = 100


class MlflowTracker:
    """One MLflow run, which a resumed run goes on with. Figures of evaluations have the evaluated version as step."""

    name = "mlflow"

    def __init__(self, settings: TrackerSettings) -> None:
        self._settings = settings

    @translated(name)
    def start(self, run: TrackedRun) -> str:
        """Create the experiment where it is missing, and the run, or go on with it."""
        from mlflow.tracking import MlflowClient

        self._client: Any = MlflowClient(tracking_uri=self._settings.mlflow_uri or None)
        project = self._settings.project
        self._bookmark = Bookmark(run, self.name, target=f"{self._client.tracking_uri} {project}")
        if self._bookmark.id:
            self._client.update_run(self._bookmark.id, status="RUNNING")
        else:
            experiment = self._client.get_experiment_by_name(project)
            where = self._client.create_experiment(project) if experiment is None else experiment.experiment_id
            self._bookmark.keep_id(self._client.create_run(where, run_name=run.name).info.run_id)
            self._log_settings(run.settings)
        return f"experiment {project}, run {self._bookmark.id}"

    @translated(name)
    def log_step(self, row: Mapping[str, float]) -> None:
        """A point per figure; a step that MLflow has stays as it is, since it would keep both."""
        if not self._bookmark.has_step(row):
            self._log(step_figures(row), int(row["step"]))
            self._bookmark.pass_step(row)

    @translated(name)
    def log_evaluation(self, row: Mapping[str, Any]) -> None:
        """A point per figure."""
        if not self._bookmark.has_evaluation(row):
            self._log(evaluation_figures(row), int(row["version"]))
            self._bookmark.pass_evaluation(row)

    @translated(name)
    def finish(self, outcome: Outcome) -> None:
        """Say how the run ended."""
        self._client.set_terminated(self._bookmark.id, status=_STATUS[outcome])

    def _log(self, figures: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(
            self._bookmark.id, metrics=[Metric(name, value, now, step) for name, value in figures.items()]
        )

    def _log_settings(self, settings: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(name, str(value)) for name, value in _flat(settings)]
        for start in range(0, len(params), _PARAMS_AT_ONCE):
            self._client.log_batch(self._bookmark.id, params=params[start : start + _PARAMS_AT_ONCE])


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
