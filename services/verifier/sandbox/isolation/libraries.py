"""Libraries that programs may import besides the standard one: found by name, each in its own folder.

The folder that holds them is not put on `sys.path`: it may hold much else, which programs are not to see.
"""

import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from types import ModuleType


class Finder:
    """A finder for `sys.meta_path`: `Finder({"numpy": "/opt/venv/lib/python3.11/site-packages/numpy"})`."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = dict(places)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As the import system asks for it."""
        place = self._places.get(name)
        if place is None:
            return None
        if place.endswith(".py"):
            return spec_from_file_location(name, place)
        return spec_from_file_location(name, f"{place}/__init__.py", submodule_search_locations=[place])


def offer(places: Mapping[str, str]) -> None:
    """Let `import` find them."""
    if places:
        sys.meta_path.append(Finder(places))


def load_named(source: bytes, places: Mapping[str, str]) -> bool:
    """Import the libraries that a program names, once for all its tests; whether there are any.

    One that cannot be loaded is left out.
    """
    # The plain look comes first, since most programs name none.
    named = [name for name in places if name.encode() in source and re.search(rb"\b" + name.encode() + rb"\b", source)]
    for name in named:
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001 - the program finds out by its own import
            continue
    return bool(named)


def draw_anew() -> None:
    """Seed the random numbers of a freshly forked process, so that no two processes have the same."""
    for name in ("random", "numpy.random"):
        if name in sys.modules:
            sys.modules[name].seed()
