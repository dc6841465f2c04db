"""TensorBoard: event files in the run folder, so that `tensorboard --logdir runs` shows all runs."""

import json
from collections.abc import Mapping
from typing import Any

from prime.adapters.trackers.bookmark import Bookmark
from prime.adapters.trackers.translation import translated
from prime.tracking import Outcome, TrackedRun, evaluation_figures, step_figures


class TensorboardTracker:
    """Scalars, with the step as the x-axis; of evaluations, with the evaluated version as the x-axis."""

    name = "tensorboard"

    @translated(name)
    def start(self, run: TrackedRun) -> str:
        """A new event file; of `run.first_step` and later steps, TensorBoard then shows what comes alone."""
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / "tensorboard"
        is_known = any(folder.glob("events.out.tfevents.*"))
        self._writer = SummaryWriter(str(folder), purge_step=run.first_step if is_known else None)
        self._bookmark = Bookmark(run, self.name, target="")
        self._bookmark.take_back(run.first_step)
        text = json.dumps(run.settings, indent=2, default=str)
        self._writer.add_text("settings", "".join(f"    {line}\n" for line in text.splitlines()), run.first_step)
        return str(folder)

    @translated(name)
    def log_step(self, row: Mapping[str, float]) -> None:
        """A scalar per figure."""
        if not self._bookmark.has_step(row):
            self._add(step_figures(row), int(row["step"]))
            self._bookmark.pass_step(row)

    @translated(name)
    def log_evaluation(self, row: Mapping[str, Any]) -> None:
        """A scalar per figure."""
        if not self._bookmark.has_evaluation(row):
            self._add(evaluation_figures(row), int(row["version"]))
            self._bookmark.pass_evaluation(row)

    @translated(name)
    def finish(self, outcome: Outcome) -> None:
        """Close the event file."""
        self._writer.close()

    def _add(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        # At once: a run that is killed loses no step.
        self._writer.flush()
