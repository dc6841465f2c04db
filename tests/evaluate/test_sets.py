"""The registry of sets: every record reads rows of its kind, and a file that is not the known one is refused."""

import gzip
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from jobs.evaluate.fetch import fetch_set
from prime.data.problems import read_rows
from prime.errors import DataError, PeerUnavailable, SettingsError
from prime.evaluation.reading import open_set, open_sets, read_set
from prime.evaluation.sets import EvaluationSet, find_set, known_sets

_SHARED = Path(__file__).parents[3] / "shared" / "data" / "eval"

_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "aime24": (
        {"question": "Find x.", "answer": "116", "url": "https://x/index.php/2024_AIME_I_Problems/Problem_1"},
        "116",
    ),
    "aime25": ({"problem": "Find x.", "expected_answer": "70"}, "70"),
    "amc": ({"question": "Find x.", "answer": 142.0}, "142"),
    "amc23": ({"question": "Find x.", "answer": 27.5}, "27.5"),
    "math500": ({"problem": "Find x.", "expected_answer": "\\frac{1}{2}"}, "\\frac{1}{2}"),
    "gsm8k": ({"question": "How many?", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"}, "5"),
    "minerva": ({"problem": "How far?", "solution": "So $\\boxed{1}$ and $\\boxed{\\frac{a}{b}} m$."}, "\\frac{a}{b}"),
    "olympiadbench": ({"question": "Find x.", "final_answer": ["$2$", "$\\frac{1}{2}$"]}, "2, \\frac{1}{2}"),
}


@pytest.mark.parametrize("name", _ROWS)
def test_a_row_becomes_a_question_with_its_answer(name: str, tmp_path: Path) -> None:
    row, answer = _ROWS[name]
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    [problem] = read_set(find_set(name), file)
    assert problem.ground_truth == answer
    assert problem.messages[-1].content.startswith(str(row.get("question") or row["problem"]))
    assert "\\boxed" in problem.messages[-1].content
    [asked] = read_set(find_set(name), file, "actions")
    assert asked.messages[0].role == "system"


def test_rows_of_code_become_tests_that_the_verifier_reads(tmp_path: Path) -> None:
    rows: dict[str, dict[str, Any]] = {
        "humaneval": {"prompt": "def f(x):\n", "test": "def check(f):\n  assert f(1)", "entry_point": "f"},
        "mbpp": {"prompt": "Write f.", "test_list": ["assert f(1) == 2"], "test_imports": ["import math"]},
        "leetcode": {"prompt_sft": "Write Solution.", "test": "assert Solution().f(1) == 2"},
        "livecodebench_v2": {
            "question_content": "Add.",
            "contest_date": "2024-01-05T00:00:00",
            "public_test_cases": '[{"input": "1 2", "output": "3", "testtype": "stdin"}]',
        },
    }
    for name, row in rows.items():
        file = tmp_path / f"{name}.jsonl"
        file.write_text(json.dumps(row) + "\n")
        [problem] = read_set(find_set(name), file)
        assert problem.ability == "code"
        assert json.loads(problem.ground_truth)


def test_a_release_of_live_code_bench_is_a_window_of_contests(tmp_path: Path) -> None:
    row = {"question_content": "Add.", "public_test_cases": "[]"}
    file = tmp_path / "rows.jsonl"
    days = ("2023-04-30", "2023-05-01", "2024-05-31", "2024-06-01", "2024-08-03")
    file.write_text("".join(json.dumps({**row, "contest_date": day}) + "\n" for day in days))
    assert [len(read_set(find_set(f"livecodebench_{v}"), file)) for v in ("v2", "v3", "v4")] == [2, 4, 4]


def test_a_row_that_does_not_fit_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"question": "a", "answer": "#### 1"}\n{"question": "b"}\n')
    with pytest.raises(DataError, match="row 2: not a row of GSM8K"):
        read_set(find_set("gsm8k"), file)


def test_files_of_other_kinds_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"x": {"0": 1, "1": 2}, "y": {"0": "a", "1": "b"}}))
    (tmp_path / "b.json").write_text(json.dumps([{"x": 1}, 5]))
    with gzip.open(tmp_path / "c.jsonl.gz", "wt") as file:
        file.write('{"x": 1}\n')
    (tmp_path / "d.json").write_text('{"x": 1}\n{"x": 2}\n')
    assert list(read_rows(tmp_path / "a.json")) == [{"x": 1, "y": "a"}, {"x": 2, "y": "b"}]
    assert list(read_rows(tmp_path / "b.json"))[1] == f"{tmp_path / 'b.json'}, row 2: a row must be a JSON object"
    assert list(read_rows(tmp_path / "c.jsonl.gz")) == [{"x": 1}]
    with pytest.raises(DataError, match="one object per line"):
        list(read_rows(tmp_path / "d.json"))


def test_every_set_says_where_it_comes_from_and_under_which_terms() -> None:
    for name, known in known_sets().items():
        assert known.licence
        assert bool(known.address) == bool(known.sha256)
        assert known.address or known.dataset
        assert name == known.name


@pytest.mark.skipif(not _SHARED.is_dir(), reason="the problem sets are not here")
@pytest.mark.parametrize("name", [each.name for each in known_sets().values() if (_SHARED / each.file).is_file()])
def test_the_real_files_have_the_known_digests_and_as_many_problems_as_are_known(name: str) -> None:
    known = find_set(name)
    assert hashlib.sha256((_SHARED / known.file).read_bytes()).hexdigest() == known.sha256
    if known.ability == "process":
        assert len(list(read_rows(_SHARED / known.file))) == known.rows
        return
    found = open_set(name, _SHARED)
    assert len(found.problems) == known.rows
    assert len({problem.problem_id for problem in found.problems}) == known.rows


# ---------------------------------------------------------------- fetching


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    folder = tmp_path / "site"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def little_set(content: bytes, address: str) -> EvaluationSet:
    return EvaluationSet(
        name="little",
        title="Little",
        ability="math",
        rows=1,
        read=find_set("gsm8k").read,
        licence="MIT",
        file="little.jsonl",
        address=address,
        sha256=hashlib.sha256(content).hexdigest(),
    )


def test_a_file_is_fetched_once_and_kept_only_if_its_digest_is_right(site: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = site
    content = b'{"question": "How many?", "answer": "#### 5"}\n'
    (folder / "set.jsonl").write_bytes(content)
    known = little_set(content, f"{url}/set.jsonl")
    path = fetch_set(known, tmp_path / "sets", from_hub=False, on_progress=lambda size: None)
    assert path.read_bytes() == content
    (folder / "set.jsonl").unlink()
    assert fetch_set(known, tmp_path / "sets", from_hub=False, on_progress=lambda size: None) == path

    path.write_bytes(content + b"\n")
    with pytest.raises(DataError, match="not the file that Little is known by"):
        fetch_set(known, tmp_path / "sets", from_hub=False, on_progress=lambda size: None)
    (folder / "set.jsonl").write_bytes(b"other")
    with pytest.raises(DataError, match="Nothing was kept"):
        fetch_set(known, tmp_path / "more", from_hub=False, on_progress=lambda size: None)
    assert list((tmp_path / "more").iterdir()) == []


def test_a_place_that_is_not_there_is_named(site: tuple[Path, str], tmp_path: Path) -> None:
    known = little_set(b"", f"{site[1]}/nowhere.jsonl")
    with pytest.raises(PeerUnavailable, match="put the file into the folder yourself"):
        fetch_set(known, tmp_path / "sets", from_hub=False, on_progress=lambda size: None)
    with pytest.raises(SettingsError, match="on no hub"):
        fetch_set(known, tmp_path / "sets", from_hub=True, on_progress=lambda size: None)
    with pytest.raises(SettingsError, match="in no repository"):
        fetch_set(find_set("livecodebench_v2"), tmp_path / "sets", from_hub=False, on_progress=lambda size: None)


def test_a_word_that_is_neither_setting_nor_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"threads=1: '1' is no file here, and 'threads' no setting"):
        open_sets(["threads=1"], tmp_path, samples=1)
