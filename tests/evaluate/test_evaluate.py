"""`primectl evaluate` as people run it: real HTTP, a real verifier, processes that are killed."""

import json
import math
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from jobs.evaluate.compare import compare
from primectl.main import main
from tests.evaluate.answer_server import AnswerServer, Choice, boxed, problem_row

pytestmark = [pytest.mark.timeout(300)]

_K = 10
_COMMON = ("verifier.min_tier=B", "verifier.workers=1")


@pytest.fixture
def serve() -> Iterator[Callable[..., AnswerServer]]:
    servers: list[AnswerServer] = []

    def start(plan: Callable[[int], Sequence[Choice]], **options: Any) -> AnswerServer:
        servers.append(AnswerServer(plan, **options))
        return servers[-1]

    yield start
    for each in servers:
        each.close()


def write_problems(path: Path, count: int, *, start: int = 1) -> Path:
    path.write_text("".join(f"{json.dumps(problem_row(number))}\n" for number in range(start, start + count)))
    return path


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """Run the command in this process; what its last line says."""
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *map(str, arguments), *_COMMON])
    captured = capsys.readouterr()
    assert ended.value.code == 0, captured.err
    found: dict[str, Any] = json.loads(captured.out.splitlines()[-1])
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *map(str, arguments), *_COMMON])
    assert ended.value.code == 1
    return capsys.readouterr().err


def right_and_wrong(problem: int) -> list[Choice]:
    """Of ten answers `problem % 11` are right; of the others two are one wrong answer, and the rest all differ."""
    right = problem % (_K + 1)
    wrong = [boxed(problem + (1 if place < 2 else 10 + place)) for place in range(_K - right)]
    return [*[boxed(problem)] * right, *wrong]


def test_ten_thousand_planned_answers_give_the_closed_forms(
    serve: Callable[..., AnswerServer], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    problems = write_problems(tmp_path / "planned.jsonl", 1000)
    url = serve(right_and_wrong).url
    found = evaluate(
        capsys, f"planned={problems}", "--endpoint", url, "--samples", _K, "--output", tmp_path / "out", "at_once=160"
    )
    assert found["samples"] == 1000 * _K
    report = json.loads((tmp_path / "out" / "report.json").read_text())["sets"]["planned"]
    right = [number % (_K + 1) for number in range(1, 1001)]
    assert report["average"]["mean"] == pytest.approx(fmean(each / _K for each in right), abs=1e-12)
    for size in range(1, _K + 1):
        closed = fmean(1 - math.comb(_K - each, size) / math.comb(_K, size) for each in right)
        assert report["pass_at"][str(size)]["mean"] == pytest.approx(closed, abs=1e-12)
    # The common wrong answer has two votes, or what is left; at two votes each the right one came first.
    won = [each >= 2 or each == _K for each in right]
    assert report["majority"][str(_K)]["mean"] == pytest.approx(fmean(won), abs=1e-12)
    assert report["counts"] == {
        "right": sum(right),
        "wrong": sum(_K - each for each in right),
        "no_answer": 0,
        "truncated": 0,
        "undecided": 0,
    }


def test_what_became_of_answers_is_told_apart_and_none_is_folded_into_wrong(
    serve: Callable[..., AnswerServer], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def plan(problem: int) -> list[Choice]:
        return [
            boxed(problem),
            boxed(problem + 1),
            ("I do not know.", "stop"),
            ("First I think, and", "length"),
            (f"So \\boxed{{{problem}}}. And then", "length"),
            ("", "stop"),
        ]

    problems = write_problems(tmp_path / "p.jsonl", 5)
    arguments = (f"own={problems}", "--endpoint", serve(plan).url, "--samples", 6, "--output", tmp_path / "out")
    evaluate(capsys, *arguments)
    report = json.loads((tmp_path / "out" / "report.json").read_text())["sets"]["own"]
    assert report["counts"] == {"right": 10, "wrong": 5, "no_answer": 10, "truncated": 5, "undecided": 0}
    assert report["truncated_share"] == pytest.approx(2 / 6)
    assert report["mean_tokens"] == 7
    page = (tmp_path / "out" / "report.md").read_text()
    for named in ("no answer", "undecided", "at most 1024 new", "0.333"):
        assert named in page
    assert (tmp_path / "out" / "report.html").read_text().count("<svg") == 1


def test_killed_three_times_no_sample_is_made_twice(serve: Callable[..., AnswerServer], tmp_path: Path) -> None:
    problems = write_problems(tmp_path / "p.jsonl", 120)
    server = serve(right_and_wrong, seconds=0.05)
    command = [sys.executable, "-m", "primectl", "evaluate", f"own={problems}", "--endpoint", server.url]
    command += ["--samples", str(_K), "--output", str(tmp_path / "out"), "at_once=20", *_COMMON]
    samples = tmp_path / "out" / "samples.jsonl"
    before = 0
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while lines(samples) < before + 10 * _K and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[1].decode()
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.communicate()
        before = lines(samples)
        assert before < 120 * _K, "it was killed in the middle"
    with samples.open("a") as file:
        file.write('{"problem_id": "own-1", "number": 3, "te')  # a line that a kill cut off
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["kept"] == before
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    assert Counter((row["problem_id"], row["number"]) for row in rows) == Counter(
        (f"own-{problem}", number) for problem in range(1, 121) for number in range(_K)
    )
    # What was under way at a kill was asked again; nothing that had been kept was.
    assert sum(server.given.values()) - 120 * _K <= 3 * 20


def lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def test_grading_again_gives_the_same_table_and_samples_nothing(
    serve: Callable[..., AnswerServer], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    problems = write_problems(tmp_path / "p.jsonl", 30)
    server = serve(right_and_wrong)
    arguments = (f"own={problems}:4", "--endpoint", server.url, "--greedy", "--output", tmp_path / "out")
    first = evaluate(capsys, *arguments)
    table, asked = (tmp_path / "out" / "report.md").read_text(), sum(server.given.values())
    again = evaluate(capsys, *arguments, "--regrade")
    assert first["sets"] == again["sets"]
    assert "greedy" in first["sets"]["own"]
    assert (tmp_path / "out" / "report.md").read_text() == table
    assert sum(server.given.values()) == asked == 30 * 5
    assert Counter(body["temperature"] for body in server.bodies) == {0.0: 30, 1.0: 30}


def test_more_samples_and_sets_can_be_asked_for_later_and_other_settings_cannot(
    serve: Callable[..., AnswerServer], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    problems, more = write_problems(tmp_path / "p.jsonl", 8), write_problems(tmp_path / "q.jsonl", 8, start=50)
    server = serve(right_and_wrong)
    arguments = ("--endpoint", server.url, "--output", tmp_path / "out")
    evaluate(capsys, f"own={problems}", *arguments, "--samples", 2)
    found = evaluate(capsys, f"own={problems}", f"more={more}", *arguments, "--samples", 4)
    assert found["kept"] == 16
    assert sum(server.given.values()) == 64
    assert found["mean"] is not None
    words = refused(capsys, f"own={problems}", *arguments, "--temperature", 0.5)
    assert "another sampling" in words
    problems.write_text(problems.read_text() + json.dumps(problem_row(99)) + "\n")
    assert "another file of own" in refused(capsys, f"own={problems}", *arguments)


def test_two_evaluations_are_compared_problem_by_problem(
    serve: Callable[..., AnswerServer], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    problems = write_problems(tmp_path / "p.jsonl", 40)

    def better(problem: int) -> list[Choice]:
        return [boxed(problem)] * 3 + [boxed(problem + 1)]

    def worse(problem: int) -> list[Choice]:
        return [boxed(problem)] + [boxed(problem + 1)] * 3

    for name, plan in (("worse", worse), ("better", better)):
        url = serve(plan).url
        evaluate(capsys, f"own={problems}", "--endpoint", url, "--samples", 4, "--output", tmp_path / name)
    found = compare(tmp_path / "worse", tmp_path / "better")
    assert (found.sets["own"].first, found.sets["own"].second) == (0.25, 0.75)
    difference = found.sets["own"].difference
    assert difference.mean == 0.5
    assert 0 < difference.low < 0.5 < difference.high
    assert difference.p < 1e-6
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(tmp_path / "worse"), str(tmp_path / "better"), "--out", str(tmp_path / "table.md")])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["sets"]["own"]["mean"] == 0.5
    assert "+0.500" in (tmp_path / "table.md").read_text()


def test_stop_texts_end_an_answer_and_problems_of_the_training_file_are_counted(
    serve: Callable[..., AnswerServer], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def plan(problem: int) -> list[Choice]:
        return [(f"<think>\n\nQ: hm</think> \\boxed{{{problem}}}\n\nQ: next? \\boxed{{7777}}", "stop")]

    problems = write_problems(tmp_path / "p.jsonl", 4)
    training = write_problems(tmp_path / "t.jsonl", 3)
    found = evaluate(
        capsys, f"own={problems}", "--endpoint", serve(plan).url, "--output", tmp_path / "out", "--training", training,
        'stop=["\\n\\nQ:"]',
    )  # fmt: skip
    assert found["sets"]["own"]["average"] == 1.0
    page = (tmp_path / "out" / "report.md").read_text()
    assert "own: 3 of 4" in page


def test_a_tiny_model_from_its_folder_is_sampled_by_an_engine_of_ours_and_scored_by_a_prm(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit):
        main(["tiny-model", str(tmp_path / "model")])
    problems = write_problems(tmp_path / "p.jsonl", 3)
    arguments = (
        f"own={problems}", "--model", tmp_path / "model", "--samples", 4, "--greedy", "--max-tokens", 12,
        "--prm", tmp_path / "model", "--reference", tmp_path / "model", "--output", tmp_path / "out",
    )  # fmt: skip
    found = evaluate(capsys, *arguments)
    assert {"average", "greedy", "best_of", "weighted", "majority", "pass_at_k"} <= found["sets"]["own"].keys()
    rows = [json.loads(line) for line in (tmp_path / "out" / "graded.jsonl").read_text().splitlines()]
    assert all(len(row["scores"]) == 5 for row in rows)
    texts = {(row["problem_id"], row["number"]): row["text"] for row in map(json.loads, open_lines(tmp_path / "out"))}
    table = (tmp_path / "out" / "report.md").read_text()
    regraded = evaluate(capsys, *arguments[:8], "--regrade", "--output", tmp_path / "out")
    assert regraded["sets"] == found["sets"], "scores of the PRM are kept where none is asked"
    assert (tmp_path / "out" / "report.md").read_text() == table
    other = evaluate(capsys, *arguments[:-1], tmp_path / "other", "at_once=4")
    assert other["sets"].keys() == found["sets"].keys()
    again = {(row["problem_id"], row["number"]): row["text"] for row in map(json.loads, open_lines(tmp_path / "other"))}
    assert again == texts, "a sample depends on its seed, not on its neighbours"


def test_a_prompt_that_is_too_long_for_the_model_is_told_apart(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit):
        main(["tiny-model", str(tmp_path / "model")])
    problems = write_problems(tmp_path / "p.jsonl", 2)
    row = problem_row(3)
    row["prompt"][0]["content"] += " x" * 1500  # 3,000 bytes, and the model has 2,048 positions
    with problems.open("a") as file:
        file.write(json.dumps(row) + "\n")
    found = evaluate(
        capsys, f"own={problems}", "--model", tmp_path / "model", "--max-tokens", 8, "--output", tmp_path / "out"
    )
    assert found["samples"] == 3
    rows = {row["problem_id"]: row for row in map(json.loads, open_lines(tmp_path / "out"))}
    assert "exceed the model's context of 2048" in rows["own-3"]["refusal"]
    graded = [json.loads(line) for line in (tmp_path / "out" / "graded.jsonl").read_text().splitlines()]
    assert {row["problem_id"]: row["outcomes"] for row in graded}["own-3"] == ["no_answer"]


def open_lines(folder: Path) -> list[str]:
    return (folder / "samples.jsonl").read_text().splitlines()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gsm9k", "--endpoint", "http://127.0.0.1:1/v1"), "no evaluation set is called 'gsm9k'; known are aime,"),
        (("gsm8k", "--endpoint", "http://127.0.0.1:1/v1"), "fetch-set gsm8k"),
        (("processbench_math", "--endpoint", "http://127.0.0.1:1/v1"), "evaluate-prm --process-bench"),
        (("gsm8k",), "nobody is there to answer"),
        (("gsm8k", "--model", "nowhere", "--endpoint", "http://x/v1"), "not both"),
        (("own=nowhere.jsonl", "--endpoint", "http://127.0.0.1:1/v1"), "nowhere.jsonl"),
        ((), "sets"),
    ],
)
def test_a_mistake_is_named_before_anything_is_sampled(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert words in refused(capsys, *arguments, "--output", tmp_path / "out", "--data", tmp_path / "sets")
    assert not (tmp_path / "out").exists()


def test_an_engine_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    problems = write_problems(tmp_path / "p.jsonl", 2)
    words = refused(
        capsys, f"own={problems}", "--endpoint", "http://127.0.0.1:1/v1", "--endpoint-model", "m", "patience_seconds=0",
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert "http://127.0.0.1:1/v1 cannot be reached" in words
