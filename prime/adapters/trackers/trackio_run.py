"""trackio: a local database, or a Hugging Face Space that `TRACKIO_SPACE_ID` names (with the hub's own login)."""

from collections.abc import Mapping
from typing import Any

from prime.adapters.settings import TrackerSettings
from prime.adapters.trackers.bookmark import Bookmark
from prime.adapters.trackers.translation import translated
from prime.tracking import Outcome, TrackedRun, evaluation_figures, step_figures


class TrackioTracker:
    """One trackio run, which a resumed run goes on with. Figures of evaluations have the evaluated version as step."""

    name = "trackio"

    def __init__(self, settings: TrackerSettings) -> None:
        self._project = settings.project

    @translated(name)
    def start(self, run: TrackedRun) -> str:
        """Begin, or go on with the project's newest run of this name."""
        import trackio

        self._bookmark = Bookmark(run, self.name, target=self._project)
        self._run: Any = trackio.init(
            project=self._project,
            name=run.name,
            resume="must" if self._bookmark.id else "never",
            config=dict(run.settings),
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
        self._bookmark.keep_id(self._run.id)
        return f"project {self._project}, run {run.name}; trackio show --project {self._project}"

    @translated(name)
    def log_step(self, row: Mapping[str, float]) -> None:
        """A step that trackio has stays as it is, since it would keep both."""
        if not self._bookmark.has_step(row):
            self._run.log(step_figures(row), step=int(row["step"]))
            self._bookmark.pass_step(row)

    @translated(name)
    def log_evaluation(self, row: Mapping[str, Any]) -> None:
        """A row of its own, at the evaluated version."""
        if not self._bookmark.has_evaluation(row):
            self._run.log(evaluation_figures(row), step=int(row["version"]))
            self._bookmark.pass_evaluation(row)

    @translated(name)
    def finish(self, outcome: Outcome) -> None:
        """Write out what waits."""
        self._run.finish()
