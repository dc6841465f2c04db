"""Folders that the service chooses for its zygotes: where programs may write, and which libraries they may read."""

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prime.errors import SandboxError

LIBRARIES = ("numpy", "sortedcontainers")
"""What programs may import by default, where it is installed."""
_PREFIX = "prime-scratch-"
# In tier A the root is the zygote's own, and so is what is mounted at these.
_IN_TIER_A, _ELSE = "/tmp", "/scratch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Libraries that are installed: `Found(places={"numpy": ".../numpy"}, folders=(".../numpy", ".../numpy.libs"))`."""

    places: dict[str, str]
    folders: tuple[str, ...]


def find_libraries(names: Sequence[str]) -> Found:
    """Where those of `names` lie that are installed. None of them is imported."""
    places, folders = {}, []
    for name in names:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        place = os.path.realpath(os.path.dirname(spec.origin) if spec.submodule_search_locations else spec.origin)
        places[name] = place
        # Shared libraries that came with it lie beside it, and are found from there.
        folders += [place, *(beside for beside in (f"{place}.libs",) if os.path.isdir(beside))]
    return Found(places=places, folders=tuple(folders))


def scratch_in_tier_a(folders: Sequence[str]) -> str:
    """Where the scratch folder of a root of its own is mounted: not over any of `folders`."""
    return _ELSE if any(folder.startswith(f"{_IN_TIER_A}/") for folder in folders) else _IN_TIER_A


class ScratchFolder:
    """A folder of the machine that `identity` may write in, in one that only the service may change.

    Raises:
        SandboxError: none can be made.
    """

    def __init__(self, identity: int) -> None:
        try:
            self._above = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
            self._above.chmod(0o711)
            folder = self._above / "scratch"
            folder.mkdir(mode=0o700)
            if os.getuid() == 0:
                os.chown(folder, identity, identity)
        except OSError as error:
            raise SandboxError(
                f"no folder for programs can be made in {tempfile.gettempdir()} ({error.strerror}); tier B needs one "
                "that is writable: mount one, or set TMPDIR"
            ) from None
        self.path = os.path.realpath(folder)

    def remove(self) -> None:
        """With all that is in it."""
        shutil.rmtree(self._above, ignore_errors=True)


def remove_leftovers() -> None:
    """Take away the folders of verifiers that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        if not Path("/proc", folder.name.removeprefix(_PREFIX).partition("-")[0]).exists():
            shutil.rmtree(folder, ignore_errors=True)
