"""Builds the package and tries it as users install it: `make package`.

The source distribution and the wheel are built and checked. Then the wheel is installed into a clean environment per
extra, where `primectl --help` has to work and the extra's part has to load.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
LOCK = ROOT / "requirements" / "verifier.txt"

LIGHT: Mapping[str, str] = {
    "": "prime.wire",
    "client": "prime.client",
    "gguf": "gguf",
    "libraries": "sortedcontainers",
    "otel": "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
    "tensorboard": "tensorboard",
    "verifier": "services.verifier.main",
}
"""Extra to a module that needs it. These install without torch, in seconds."""
HEAVY: Mapping[str, str] = {
    "curate": "jobs.curate.run",
    "lm": "prime.lm.model",
    "lora": "peft",
    "prm": "services.prm.main",
    "rollout": "services.rollout.main",
    "trainer": "services.trainer.main",
    "local": "primectl.up",
}


def main() -> None:
    """Build, check, install, try."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extras", nargs="*", help=f"instead of the light ones; also {', '.join(HEAVY)}")
    extras = parser.parse_args().extras or list(LIGHT)
    shutil.rmtree(DIST, ignore_errors=True)
    _run(sys.executable, "-m", "build", "--outdir", DIST, ROOT)
    _run(sys.executable, "-m", "twine", "check", "--strict", *sorted(DIST.iterdir()))
    [wheel] = DIST.glob("*.whl")
    for extra in extras:
        _try(wheel, extra)
    _try_locked(wheel)


def _try(wheel: Path, extra: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        python = _environment(Path(folder))
        if extra in HEAVY:
            # With torch there by exact version, nothing else pulls in a larger build.
            _run(python, "-m", "pip", "install", "--quiet", _torch())
        _run(python, "-m", "pip", "install", "--quiet", f"{wheel}[{extra}]" if extra else wheel)
        _use(python, {**LIGHT, **HEAVY}[extra])
    print(f"package: installs and starts with {f'the extra {extra!r}' if extra else 'no extra'}", flush=True)


def _try_locked(wheel: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        python = _environment(Path(folder))
        _run(python, "-m", "pip", "install", "--quiet", "--require-hashes", "--requirement", LOCK)
        _run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel)
        _use(python, LIGHT["verifier"])
    print(f"package: installs and starts with the versions in {LOCK.relative_to(ROOT)}", flush=True)


def _environment(folder: Path) -> Path:
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def _use(python: Path, module: str) -> None:
    """From another folder than the repository, so that what is imported is what was installed."""
    _run(python, "-m", "pip", "check", cwd=python.parent)
    _run(python.parent / "primectl", "--help", cwd=python.parent)
    _run(python, "-c", f"import {module}", cwd=python.parent)


def _torch() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [pin] = [each for each in project["optional-dependencies"]["lm"] if each.startswith("torch==")]
    return str(pin)


def _run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run a command, and show what it printed only if it failed.

    Raises:
        SystemExit: the command failed.
    """
    shown = " ".join(map(str, command))
    print(f"$ {shown}", flush=True)
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"{result.stdout}{result.stderr}package: the command above failed")


if __name__ == "__main__":
    main()
