"""`primectl verify`: rows in, verdicts out, and what is wrong with a row costs that row alone."""

import asyncio
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from jobs.verify import Report, parse_answer, read_answers, verify
from prime.errors import DataError
from prime.types import GradeItem, Verdict, VerdictStatus, VerifierInfo

GOOD = {"kind": "math", "response": "5", "ground_truth": "5"}


class EchoVerifier:
    """Passes what is equal to its ground truth; later parts are done first."""

    def __init__(self) -> None:
        self.calls = 0
        self.at_once = 0
        self.most_at_once = 0

    async def grade(self, items: Sequence[GradeItem]) -> list[Verdict]:
        self.calls += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0.02 / self.calls)
        self.at_once -= 1
        return [self._verdict(item) for item in items]

    def _verdict(self, item: GradeItem) -> Verdict:
        if not item.ground_truth:
            return Verdict(status=VerdictStatus.INVALID_REQUEST, score=None, reason="empty gold", milliseconds=0.1)
        right = item.response == item.ground_truth
        return Verdict(
            status=VerdictStatus.PASSED if right else VerdictStatus.FAILED,
            score=float(right),
            reason="all_tests" if right else "wrong_output:3",
            milliseconds=0.1,
            method="code:stdin",
        )

    async def info(self) -> VerifierInfo:
        return VerifierInfo(graders=(), isolation=(), workers=1)


def write(folder: Path, rows: Sequence[object]) -> Path:
    path = folder / "answers.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


async def run(path: Path) -> tuple[Report, list[dict[str, object]], EchoVerifier]:
    verifier, out = EchoVerifier(), io.StringIO()
    report = await verify(read_answers(path), verifier, out, lambda done, report: None)
    return report, [json.loads(line) for line in out.getvalue().splitlines()], verifier


async def test_verdicts_come_in_the_order_of_the_rows_from_several_calls_at_once(tmp_path: Path) -> None:
    rows = [{**GOOD, "response": str(number % 7), "ground_truth": "3", "id": f"r{number}"} for number in range(300)]
    report, lines, verifier = await run(write(tmp_path, rows))
    assert [line["id"] for line in lines] == [f"r{number}" for number in range(300)]
    assert [line["score"] for line in lines] == [float(number % 7 == 3) for number in range(300)]
    assert 1 < verifier.most_at_once <= 4
    assert report.count("passed") == sum(number % 7 == 3 for number in range(300))
    assert report.reasons[("failed", "wrong_output")] == report.count("failed")


async def test_a_row_that_cannot_be_read_or_graded_costs_itself_alone(tmp_path: Path) -> None:
    rows = [GOOD, "{broken", "[1]", {**GOOD, "response": None}, {**GOOD, "ground_truth": ""}, {**GOOD, "answer": "5"}]
    report, lines, _ = await run(write(tmp_path, [*rows, GOOD]))
    assert [line["status"] for line in lines] == [
        "passed",
        "malformed",
        "malformed",
        "malformed",
        "invalid_request",
        "malformed",
        "passed",
    ]
    assert report.mean_score == 1.0
    assert [fault.partition(":")[0].split()[-1] for fault in report.faults] == ["2", "3", "4", "5", "6"]


REFUSED: dict[str, tuple[Mapping[str, object], str]] = {
    "no response": ({"ground_truth": "5"}, "'response' is missing"),
    "no ground truth": ({"response": "5"}, "'ground_truth' is missing"),
    "a number as response": ({**GOOD, "response": 5}, "'response' must be text"),
    "a misspelt column": ({**GOOD, "optoins": []}, "'optoins' is not known"),
    "options that are no list": ({**GOOD, "options": "two_decimals"}, "'options'"),
    "binary that is no truth value": ({**GOOD, "binary": "yes"}, "'binary'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_malformed_row_is_refused_by_its_column(name: str) -> None:
    row, said = REFUSED[name]
    with pytest.raises(DataError, match=said):
        parse_answer(row, 1)


def test_rows_are_read_in_the_schema_of_the_problems_too(tmp_path: Path) -> None:
    row = {
        "data_source": "taco",
        "ability": "code",
        "prompt": [{"role": "user", "content": "?"}],
        "response": "r",
        "reward_model": {"ground_truth": '{"inputs": [""], "outputs": ["1"]}', "style": "rule"},
        "extra_info": {"index": 1},
    }
    item = parse_answer(row, 4)
    assert (item.item_id, item.data_source, item.ground_truth) == ("4", "taco", '{"inputs": [""], "outputs": ["1"]}')
    assert parse_answer({**GOOD, "ground_truth": {"inputs": []}}, 1).ground_truth == '{"inputs": []}'
    parquet.write_table(pyarrow.Table.from_pylist([dict(GOOD)] * 3), tmp_path / "answers.parquet")
    assert [found.item.response for found in read_answers(tmp_path / "answers.parquet") if found.item] == ["5"] * 3


@pytest.mark.parametrize("name", ["missing.jsonl", "answers.csv"])
def test_a_file_that_is_not_there_or_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=name):
        list(read_answers(tmp_path / name))
