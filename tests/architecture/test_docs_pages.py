"""Pages of `docs/` that are generated are as their generator writes them."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs.sft import SftSettings
from prime.adapters.settings import RunSettings
from primectl.config import RunConfig
from services.trainer.settings import TrainerSettings
from services.verifier.settings import VerifierSettings
from tools.attribute_docs import field_texts
from tools.cli_page import cli_blocks
from tools.docs_pages import DOCS, PAGES, rendered
from tools.markdown import fill
from tools.settings_page import settings_blocks

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", PAGES)
def test_generated_pages_are_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == rendered(name), "run `make docs-pages` and commit the result"


def test_the_settings_page_has_every_key_of_a_run_once() -> None:
    """Counted by what a run dumps, not by the generator's own walk over the models."""
    shown = re.findall(r"^\| `([a-z_.]+)` \|", settings_blocks()["sections"], re.MULTILINE)
    run = RunSettings(name="a", model=Path("sft"))
    keys = list(_leaves(RunConfig(run=run, trainer=TrainerSettings(problems="p.jsonl", steps=1)).model_dump()))
    assert len(keys) > 150
    assert sorted(shown) == sorted(keys)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_a_field_that_is_declared_again_inherits_its_text() -> None:
    texts = field_texts(VerifierSettings)
    assert texts["listen"] == "gRPC address."
    assert texts["workers"].startswith("Programs tested at once")
    assert field_texts(SftSettings)["lr"] == "Highest learning rate."


def test_the_command_line_page_does_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    narrow = cli_blocks()
    monkeypatch.setenv("COLUMNS", "400")
    assert cli_blocks() == narrow


def test_metrics_are_declared_where_the_page_finds_them() -> None:
    found = set()
    for folder in ("prime", "services", "jobs", "primectl"):
        for path in (ROOT / folder).rglob("*.py"):
            calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
            names = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
            if names & {"CounterSpec", "GaugeSpec", "HistogramSpec"}:
                found.add(path.relative_to(ROOT).as_posix())
    services = {f"services/{name}/metric_specs.py" for name in ("trainer", "rollout", "prm", "verifier")}
    assert found == services | {"prime/adapters/telemetry.py"}


def test_a_page_without_a_block_or_with_an_unknown_one_is_refused() -> None:
    page = "a\n<!-- generated: one -->\nold\n<!-- end of generated -->\nb\n"
    assert fill(page, {"one": "new"}) == "a\n<!-- generated: one -->\n\nnew\n\n<!-- end of generated -->\nb\n"
    for blocks in ({}, {"two": "new"}, {"one": "new", "two": "new"}):
        with pytest.raises(ValueError, match="generated blocks"):
            fill(page, blocks)
