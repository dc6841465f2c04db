"""From a tracker's name in the settings to its adapter. No library is loaded before its tracker starts."""

import importlib.util
from collections.abc import Sequence

from prime.adapters.settings import TrackerSettings
from prime.adapters.trackers.mlflow_run import MlflowTracker
from prime.adapters.trackers.tensorboard_events import TensorboardTracker
from prime.adapters.trackers.trackio_run import TrackioTracker
from prime.adapters.trackers.wandb_run import WandbTracker
from prime.errors import SettingsError
from prime.ports import Tracker

TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")
"""Each is the name of its library and of the extra that installs it."""


def check_installed(names: Sequence[str]) -> None:
    """Look for the libraries without loading any.

    Raises:
        SettingsError: one is missing; names the extra.
    """
    for name in names:
        spec = importlib.util.find_spec(name)
        # W&B leaves a folder `wandb` where it runs, which would pass for a package without code.
        if spec is None or spec.origin is None:
            raise SettingsError(
                f"the tracker {name!r} needs a library that is not installed here: pip install 'prime-services[{name}]'"
            )


def open_trackers(settings: TrackerSettings) -> list[Tracker]:
    """The trackers in use, not started yet.

    Raises:
        SettingsError: the library of one is missing.
    """
    check_installed(settings.use)
    return [_open(name, settings) for name in dict.fromkeys(settings.use)]


def _open(name: str, settings: TrackerSettings) -> Tracker:
    match name:
        case "tensorboard":
            return TensorboardTracker()
        case "wandb":
            return WandbTracker(settings)
        case "mlflow":
            return MlflowTracker(settings)
        case "trackio":
            return TrackioTracker(settings)
    raise SettingsError(f"no tracker is called {name!r}; there are {', '.join(TRACKERS)}")
