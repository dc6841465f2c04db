"""A task of the trial: what a run starts from, and the settings that its arms have in common."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A task: `chain(16)`."""

    name: str
    write: Callable[[Path], None]
    """Writes `sft` (the checkpoint), `problems.jsonl` and `held_out.jsonl` into a folder."""
    trainer: Mapping[str, Any]
    """Settings that all arms share."""
    prm: Mapping[str, Any]
    max_context: int
    device: str = "cpu"
    dtype: str = "float32"
    """Of the sampler."""
    step: Literal["step", "turn"] = "step"
    """What an arm with credit by steps means by one."""

    def material(self, folder: Path) -> Path:
        """The folder with what a run starts from, made when it is not there."""
        place = folder / self.name
        if not (place / "done").is_file():
            shutil.rmtree(place, ignore_errors=True)  # what was left unfinished
            place.mkdir(parents=True, exist_ok=True)
            self.write(place)
            (place / "done").touch()
        return place
