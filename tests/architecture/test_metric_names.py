"""Names of figures are an interface: people draw curves by those in docs/operations.md and docs/trackers.md."""

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from prime.evaluation.summary import SetSummary
from prime.tracking import evaluation_figures
from prime.types import PrmMetrics
from services.trainer.batch import UpdateMetrics
from tests.builders import documented_metrics, evaluation_row

ROOT = Path(__file__).parents[2]
_NAME = re.compile(r"(batch|collect|reward|advantage|prm|policy|push|eval|time|wait|busy)/[a-z_]+")


def _written_names() -> Iterator[str]:
    """Names that stand in the trainer's code, counts of the collector, and fields of records that are taken whole."""
    for file in sorted((ROOT / "services" / "trainer").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Constant(value=str(text)) if _NAME.fullmatch(text):
                    yield text
                case ast.Subscript(value=ast.Attribute(attr="counts"), slice=key):
                    for each in ast.walk(key):
                        if isinstance(each, ast.Constant) and isinstance(each.value, str):
                            yield f"collect/{each.value}"
    yield from (f"policy/{each.name}" for each in fields(UpdateMetrics))
    yield from (f"prm/{each.name}" for each in fields(PrmMetrics))


def test_every_name_that_a_run_writes_is_documented() -> None:
    names = set(_written_names())
    assert {"policy/loss", "prm/pair_accuracy", "collect/too_easy", "push/probe_gap", "batch/skipped"} <= names
    assert sorted(name for name in names if not documented_metrics().fullmatch(name)) == []


def test_every_name_of_an_evaluation_is_documented() -> None:
    row = evaluation_row(3, 0.5)
    summary = row["sets"]["gsm8k"]
    assert set(summary) == {each.name for each in fields(SetSummary)}, "the builder is no longer like the record"
    estimate = summary["average"]
    summary |= {"greedy": estimate, "best_of": {"2": estimate}, "weighted": {"2": estimate}}
    names = set(evaluation_figures(row))
    assert len(names) == 12
    assert sorted(name for name in names if not documented_metrics().fullmatch(name)) == []
