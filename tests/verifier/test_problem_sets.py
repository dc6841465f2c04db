"""HumanEval and MBPP, where they lie beside the tree: reference solutions pass their tests, and broken ones fail."""

import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from prime.adapters.telemetry import Meters
from prime.types import GradeItem
from services.verifier.main import open_verifier
from services.verifier.settings import VerifierSettings

_FOLDER = Path(__file__).parents[3] / "shared" / "data" / "eval"
_HUMANEVAL, _MBPP = _FOLDER / "humaneval.jsonl.gz", _FOLDER / "mbpp.json"
_SAME = "type('Same', (), {'__eq__': lambda s, o: True, '__lt__': lambda s, o: True, '__sub__': lambda s, o: s})()"
_WRONG = (_SAME, "None", _SAME, "12345", _SAME, "'-'", "[]")

pytestmark = pytest.mark.asyncio(loop_scope="module")


def humaneval() -> list[tuple[str, dict[str, Any], str]]:
    """Program, ground truth, and the name of the function."""
    with gzip.open(_HUMANEVAL, "rt") as file:
        rows = [json.loads(line) for line in file]
    return [
        (
            row["prompt"] + row["canonical_solution"],
            {"assertions": [row["test"]], "fn_name": row["entry_point"]},
            row["entry_point"],
        )
        for row in rows
    ]


def mbpp() -> list[tuple[str, dict[str, Any], str]]:
    """The same; each assertion counts by itself, after the imports of the test."""
    found = []
    for row in json.loads(_MBPP.read_text()):
        imports = "\n".join(row["test_imports"])
        assertions = [f"{imports}\n{assertion}" for assertion in row["test_list"]]
        defined = re.findall(r"^def (\w+)", row["code"], re.MULTILINE)
        asked = next(name for name in defined if name in assertions[0])
        found.append((row["code"], {"assertions": assertions}, asked))
    return found


def item(program: str, tests: dict[str, Any], number: int) -> GradeItem:
    return GradeItem(
        item_id=str(number),
        data_source="eval",
        ability="code",
        response=f"```python\n{program}\n```",
        ground_truth=json.dumps(tests),
        binary=True,
    )


async def scores(items: Sequence[GradeItem]) -> list[float | None]:
    settings = VerifierSettings(workers=2, cpu_seconds=20, wall_seconds=120)  # one of them takes seconds
    async with open_verifier(settings, Meters()) as parts:
        verdicts = await parts.grader.grade(items)
    return [verdict.score for verdict in verdicts]


@pytest.mark.skipif(not (_HUMANEVAL.exists() and _MBPP.exists()), reason="the problem sets are not here")
@pytest.mark.parametrize("problems", [humaneval, mbpp])
async def test_every_reference_solution_passes_and_every_broken_one_fails(problems: Any) -> None:
    rows = problems()
    right = [item(program, tests, number) for number, (program, tests, _) in enumerate(rows)]
    broken = [
        item(f"{program}\ndef {name}(*a, **k): return {_WRONG[number % len(_WRONG)]}", tests, number)
        for number, (program, tests, name) in enumerate(rows)
    ]
    found = await scores([*right, *broken])
    assert [rows[number][2] for number, score in enumerate(found[: len(right)]) if score != 1.0] == []
    assert [each.response[-200:] for each, score in zip(broken, found[len(right) :], strict=True) if score != 0.0] == []
