"""The versions of other projects' clients that docs/prm-api.md names are those that are tested."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = ("tests/clients/requirements.txt", "tests/clients/requirements-alone.txt", "pyproject.toml")
PINS = dict(
    found
    for file in FILES
    for found in re.findall(r'^[ "]*([\w-]+)(?:\[\w+\])?==([\d.]+)', (ROOT / file).read_text(), re.MULTILINE)
    if file != "pyproject.toml" or found[0] in ("openai", "cohere")
)


@pytest.mark.parametrize("package", PINS)
def test_the_documented_version_of_a_client_is_the_tested_one(package: str) -> None:
    documented = re.findall(rf"`{package}` ([\d.]+\d)", (ROOT / "docs" / "prm-api.md").read_text())
    assert documented == [PINS[package]]
