"""One TOML file per run: a section for the run and one per service."""

from importlib import resources
from pathlib import Path

from prime.adapters.settings import RunSettings, Settings, load_settings, peek_setting
from services.prm.settings import PrmSettings
from services.rollout.settings import RolloutSettings
from services.trainer.settings import TrainerSettings
from services.verifier.settings import VerifierSettings

_PAPER = "paper"


class RunConfig(Settings):
    """The whole file. Every service reads `[run]` and its own section."""

    run: RunSettings
    trainer: TrainerSettings
    rollout: RolloutSettings = RolloutSettings()
    prm: PrmSettings = PrmSettings()
    verifier: VerifierSettings = VerifierSettings()


def load_config(path: Path, overrides: list[str]) -> RunConfig:
    """Read and check a run's settings, those of `run.preset` beneath.

    Raises:
        SettingsError: anything that does not fit; names the setting.
    """
    if peek_setting(path, overrides, "run.preset") != _PAPER:
        return load_settings(RunConfig, path, overrides)
    with resources.as_file(resources.files("primectl") / f"{_PAPER}.toml") as base:
        return load_settings(RunConfig, path, overrides, base=base)
