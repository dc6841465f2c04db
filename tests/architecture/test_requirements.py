"""The locked versions are those that `pyproject.toml` asks for."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(?P<version>[^\s;\\]+)", re.MULTILINE)


def _asked(*extras: str) -> Iterator[str]:
    """The requirements of the project with these extras, and with the extras that they name."""
    groups = PROJECT["optional-dependencies"]
    yield from PROJECT["dependencies"]
    waiting, seen = list(extras), set()
    while waiting:
        extra = waiting.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for each in groups[extra]:
            if own := re.fullmatch(r"prime-services\[(.*)\]", each):
                waiting += own[1].split(",")
            else:
                yield each


def _pins(text: str) -> set[tuple[str, str]]:
    """Names with versions; a name has several where they depend on the Python version."""
    return {(match["name"].lower().replace("_", "-"), match["version"]) for match in _PIN.finditer(text)}


@pytest.mark.parametrize(
    ("file", "extras"), [("verifier.txt", ("verifier", "libraries")), ("development.txt", ("dev",))]
)
def test_locked_versions_are_those_of_the_project(file: str, extras: tuple[str, ...]) -> None:
    asked = {(name, version) for name, version in _pins("\n".join(_asked(*extras))) if name != "torch"}
    assert len(asked) > 10
    assert asked - _pins((ROOT / "requirements" / file).read_text()) == set(), "run `make lock`"


def test_the_development_lock_leaves_torch_and_its_gpu_libraries_out() -> None:
    locked = {name for name, _ in _pins((ROOT / "requirements" / "development.txt").read_text())}
    assert "transformers" in locked
    parts = [name for name in locked if re.match(r"torch$|triton|nvidia|cuda", name)]
    assert parts == [], "add them to TORCH_PARTS in the Makefile"


def test_every_locked_package_has_a_hash() -> None:
    for file in sorted((ROOT / "requirements").glob("*.txt")):
        text = file.read_text()
        assert len(re.findall(r"^[a-z].*\\$\n    --hash=sha256:", text, re.MULTILINE)) == len(_pins(text))
