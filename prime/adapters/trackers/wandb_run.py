"""Weights & Biases. The key comes from `WANDB_API_KEY` or `wandb login`."""

import secrets
from collections.abc import Mapping
from typing import Any

from prime.adapters.settings import TrackerSettings
from prime.adapters.trackers.bookmark import Bookmark
from prime.adapters.trackers.translation import translated
from prime.tracking import Outcome, TrackedRun, evaluation_figures, step_figures

_INIT_SECONDS = 30.0


class WandbTracker:
    """One W&B run, which a resumed run goes on with. Evaluations have `evaluation/version` as their x-axis."""

    name = "wandb"

    def __init__(self, settings: TrackerSettings) -> None:
        self._settings = settings

    @translated(name)
    def start(self, run: TrackedRun) -> str:
        """Log in and begin or go on; offline, files in `run.folder/wandb`."""
        import wandb

        settings = self._settings
        self._bookmark = Bookmark(run, self.name, target=f"{settings.entity}/{settings.project}")
        self._run: Any = wandb.init(
            project=settings.project,
            entity=settings.entity or None,
            name=run.name,
            id=self._bookmark.id or secrets.token_hex(4),
            resume="allow",
            # Not the process's one global run.
            reinit="create_new",
            dir=run.folder,
            mode="offline" if settings.offline else None,
            config=dict(run.settings),
            allow_val_change=True,
            settings=wandb.Settings(
                # The logs are ours. The command line, which W&B would keep, may hold a password.
                console="off",
                silent=True,
                disable_code=True,
                disable_git=True,
                x_disable_meta=True,
                # The exit of the process waits for both, the second without end unless it is bounded.
                init_timeout=_INIT_SECONDS,
                finish_timeout=settings.flush_seconds,
            ),
        )
        self._bookmark.keep_id(self._run.id)
        self._run.define_metric("evaluation/*", step_metric="evaluation/version")
        return str(self._run.settings.sync_dir if self._run.offline else self._run.url)

    @translated(name)
    def log_step(self, row: Mapping[str, float]) -> None:
        """One line of the run's history; a step that W&B has stays as it is, since it takes none back."""
        if not self._bookmark.has_step(row):
            self._run.log(step_figures(row), step=int(row["step"]))
            self._bookmark.pass_step(row)

    @translated(name)
    def log_evaluation(self, row: Mapping[str, Any]) -> None:
        """In the row of the newest step, since W&B refuses to write to earlier ones; a row has room for one."""
        if not self._bookmark.has_evaluation(row):
            figures = {"evaluation/version": float(row["version"]), **evaluation_figures(row)}
            self._run.log(figures, step=max(self._bookmark.step, self._run.step, 0))
            self._bookmark.pass_evaluation(row)

    @translated(name)
    def finish(self, outcome: Outcome) -> None:
        """Upload the rest, for `flush_seconds` at most."""
        self._run.finish(exit_code=1 if outcome == "failed" else 0)
