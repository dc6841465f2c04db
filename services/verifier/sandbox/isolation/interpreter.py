"""The interpreter's folders, and how a process without rights reaches those that lie in a private home.

A descriptor that was opened before the rights were given up still leads to its folder: `/proc/self/fd/700/json` needs
no permission on the folders above. So nobody has to keep a capability for the sake of an interpreter in `/root`.
"""

import os
import sys
from collections.abc import Mapping, Sequence

from services.verifier.sandbox.isolation.landlock import interpreter_folders

FIRST_DESCRIPTOR = 700
"""Far above what a program may open itself."""
_PREFIXES = ("prefix", "exec_prefix", "base_prefix", "base_exec_prefix", "platlibdir", "_stdlib_dir")


def hold(folders: Sequence[str]) -> dict[str, int]:
    """Descriptors of the interpreter's folders and `folders`, which outlive the right to name them."""
    wanted = without_nested([*interpreter_folders(), *folders])
    held = {}
    for number, folder in enumerate(wanted, FIRST_DESCRIPTOR):
        try:
            descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        except PermissionError:
            continue  # ours neither, so nothing of it is in use
        os.dup2(descriptor, number, inheritable=False)
        os.close(descriptor)
        held[folder] = number
    return held


def keep_unreachable(held: Mapping[str, int]) -> dict[str, str]:
    """Other names of those that can no longer be read by their own; the descriptors of the rest are closed."""
    names = {}
    for folder, number in held.items():
        if os.access(folder, os.R_OK):
            os.close(number)
        else:
            names[folder] = f"/proc/self/fd/{number}"
    return names


def descriptors(names: Mapping[str, str]) -> list[int]:
    """Of the folders that have another name."""
    return [int(name.rpartition("/")[2]) for name in names.values()]


def rename(path: str, names: Mapping[str, str]) -> str:
    """The path as it can be opened."""
    for folder, name in names.items():
        if path == folder or path.startswith(f"{folder}/"):
            return name + path[len(folder) :]
    return path


def rename_everywhere(names: Mapping[str, str]) -> None:
    """Have this interpreter find its modules by the other names."""
    if not names:
        return
    sys.path[:] = [rename(path, names) for path in sys.path]
    sys.path_importer_cache.clear()
    for prefix in _PREFIXES:
        setattr(sys, prefix, rename(getattr(sys, prefix), names))
    for module in list(sys.modules.values()):
        spec = getattr(module, "__spec__", None)
        for owner, names_of_paths in ((module, ("__file__", "__cached__")), (spec, ("origin", "cached"))):
            for attribute in names_of_paths:
                if isinstance(path := getattr(owner, attribute, None), str):
                    setattr(owner, attribute, rename(path, names))
        for paths in (getattr(module, "__path__", None), getattr(spec, "submodule_search_locations", None)):
            if isinstance(paths, list):
                paths[:] = [rename(path, names) for path in paths]


def without_nested(folders: Sequence[str]) -> list[str]:
    """Real paths of those that exist, save what lies in another of them."""
    kept: list[str] = []
    for folder in sorted({os.path.realpath(folder) for folder in folders if os.path.exists(folder)}):
        if not any(folder.startswith(f"{above}/") for above in kept):
            kept.append(folder)
    return kept
