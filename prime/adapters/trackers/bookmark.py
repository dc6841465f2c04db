"""Which of a tracker's runs is this run's, and how far it was told: kept in the run folder for the next life.

trackers/NAME.json   {"target": ..., "id": ..., "step": ..., "version": ...}
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from prime.errors import TrackerError
from prime.files import write_file
from prime.tracking import TrackedRun


class Bookmark:
    """So that a tracker may be told everything again: what it holds is not logged twice.

    `target` is where the tracker's run is stored (server, project). With another target the bookmark starts afresh.
    """

    def __init__(self, run: TrackedRun, tracker: str, *, target: str) -> None:
        """Read what an earlier life of the run left.

        Raises:
            TrackerError: the file cannot be read.
        """
        self.file = run.folder / "trackers" / f"{tracker}.json"
        # An address may carry a password, so only its digest is written.
        self._target = hashlib.sha256(target.encode()).hexdigest()[:16]
        self.id, self.step, self._version = "", -1, -1
        if self.file.is_file():
            try:
                tree = json.loads(self.file.read_text(encoding="utf-8"))
                if tree["target"] == self._target:
                    self.id, self.step, self._version = str(tree["id"]), int(tree["step"]), int(tree["version"])
            except (ValueError, KeyError, TypeError) as error:
                raise TrackerError(
                    f"{self.file} cannot be read: {error}; remove it, and {tracker} gets a new run"
                ) from None

    def keep_id(self, run_id: str) -> None:
        """The id by which the tracker knows the run."""
        self.id = run_id
        self._write()

    def take_back(self, first_step: int) -> None:
        """The tracker has forgotten this step and later ones."""
        self.step, self._version = min(self.step, first_step - 1), min(self._version, first_step - 1)

    def has_step(self, row: Mapping[str, float]) -> bool:
        """Whether the tracker holds this step already."""
        return int(row["step"]) <= self.step

    def has_evaluation(self, row: Mapping[str, Any]) -> bool:
        """Whether the tracker holds this evaluation already."""
        return int(row["version"]) <= self._version

    def pass_step(self, row: Mapping[str, float]) -> None:
        """The tracker has taken this step."""
        self.step = int(row["step"])
        self._write()

    def pass_evaluation(self, row: Mapping[str, Any]) -> None:
        """The tracker has taken this evaluation."""
        self._version = int(row["version"])
        self._write()

    def _write(self) -> None:
        tree = {"target": self._target, "id": self.id, "step": self.step, "version": self._version}
        write_file(self.file, json.dumps(tree))
