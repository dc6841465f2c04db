"""The tasks of the trial by name."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.experiment.boxes import sokoban
from benchmarks.experiment.chains import chain, control, habits, wordy
from benchmarks.experiment.family import Family
from benchmarks.experiment.school_problems import school
from prime.errors import SettingsError

_SIZED = {"chain": chain, "wordy": wordy, "control": control, "habits": habits}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where runs take place: `Machine(device="cuda", model=Path("smollm2"))`."""

    device: str = "cpu"
    """Of the families with the real model; the others are quickest on a CPU."""
    model: Path | None = None
    """The real model's folder, where a family needs it."""


def family_of(name: str, machine: Machine) -> Family:
    """A family by its name: `chain-16`, `habits-16`, `wordy-16`, `control-16`, `sokoban`, `school`.

    Raises:
        SettingsError: there is none, or it needs the real model.
    """
    kind, _, size = name.partition("-")
    if kind in _SIZED and size.isdigit() and int(size) > 0:
        return _SIZED[kind](int(size))
    if name == "sokoban":
        return sokoban()
    if name == "school":
        if machine.model is None:
            raise SettingsError("the family 'school' starts from the real model: give its folder with --model")
        return school(machine.model, device=machine.device)
    raise SettingsError(
        f"the trial has no family {name!r}; it has chain-N, habits-N, wordy-N and control-N, of N steps, and sokoban "
        "and school"
    )
