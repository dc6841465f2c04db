"""`primectl doctor`: what this machine has, what it lacks, and what that means."""

import asyncio
import importlib.metadata
import importlib.util
import os
import platform
import shutil

from rich.table import Table

from prime.errors import SandboxError, SettingsError
from primectl.display import Display
from primectl.redis_server import find_redis_server

_YES, _NO, _NOTE = "[green]yes[/]", "[red]no[/]", "[yellow]no[/]"


def examine() -> int:
    """Print a table; 1 when something that every run needs is missing."""
    display = Display()
    table = Table(title=f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}")
    for heading in ("", "here", "what it means"):
        table.add_column(heading)
    needed = [_python(), _package("torch"), _package("transformers"), _package("math-verify"), _redis(), _sandbox()]
    wished = [_compiler(), _gpu(), _vllm(), _docker()]
    for name, ok, text in needed:
        table.add_row(name, _YES if ok else _NO, text)
    for name, ok, text in wished:
        table.add_row(name, _YES if ok else _NOTE, text)
    display.console.print(table)
    return 0 if all(ok for _, ok, _ in needed) else 1


Finding = tuple[str, bool, str]


def _python() -> Finding:
    ok = (3, 11) <= tuple(map(int, platform.python_version_tuple()[:2])) < (3, 13)
    return "Python 3.11 or 3.12", ok, "" if ok else "make a virtual environment with one of them"


def _package(name: str) -> Finding:
    try:
        return name, True, importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return name, False, "pip install 'prime-services[local]'"


def _redis() -> Finding:
    try:
        return "Redis", True, str(find_redis_server())
    except SettingsError as error:
        return "Redis", False, str(error)


def _sandbox() -> Finding:
    """The verifier's own boot check: hostile and honest programs through the real path, in the best tier there is."""
    from prime.adapters.telemetry import Meters
    from services.verifier.main import open_verifier
    from services.verifier.sandbox.zygotes import Tier
    from services.verifier.settings import VerifierSettings

    async def prove(tier: Tier) -> str:
        async with open_verifier(VerifierSettings(min_tier=tier), Meters()) as parts:
            return ", ".join(parts.sandbox.layers)

    try:
        return "sandbox, tier A", True, asyncio.run(prove(Tier.A))
    except SandboxError as error:
        missing = str(error)
    try:
        layers = asyncio.run(prove(Tier.B))
    except SandboxError as error:
        return "sandbox", False, str(error)
    return "sandbox, tier B", True, f"{layers}; choose it with `verifier.min_tier = 'B'`. No tier A: {missing}"


def _compiler() -> Finding:
    found = shutil.which("/usr/bin/g++")
    return "C++ compiler", found is not None, found or "install g++ to have C++ programs graded"


def _gpu() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return "CUDA GPU", False, "torch is not installed"
    import torch

    if torch.cuda.is_available():
        return "CUDA GPU", True, torch.cuda.get_device_name(0)
    return "CUDA GPU", False, "everything runs on the CPU: fine for small models"


def _vllm() -> Finding:
    if importlib.util.find_spec("vllm") is not None:
        return "vLLM", True, "rollout.engine = 'vllm' can be used"
    return "vLLM", False, "rollout.engine = 'transformers' is used; see docs/vllm.md for an environment with vLLM"


def _docker() -> Finding:
    found = shutil.which("docker")
    return "Docker client", found is not None, found or "only needed for docker compose"
