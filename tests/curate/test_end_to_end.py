"""Raw rows of six corpora through `primectl curate`: real HTTP, a real sandbox, a model server that misbehaves.

The server stands for the rewriting model and two validators: it answers, is slow, is at its limit, hangs up, talks
garbage. One run is left alone; the other is killed in the middle and started again. Both come to the same data set, and
no request is answered twice.
"""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from jobs.curate.settings import CurateSettings
from prime.adapters.settings import load_settings
from prime.data.problems import load_problems
from tests.curate.corpora import DOUBLE, apps, code_contests, codeforces, eurus, numina, taco, write_lines
from tests.curate.model_server import ModelServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
PAIRS = [("1", "2"), ("5", "10"), ("7", "14")]
SUITE = {"inputs": [given for given, _ in PAIRS], "outputs": [expected for _, expected in PAIRS]}
NO = "\\text{no solution}"
ANSWERED_BEFORE_THE_KILL = 40


def sums(count: int, animal: str, *, start: int) -> Iterator[dict[str, Any]]:
    """Different problems with right answers, one kind of animal each."""
    for number in range(start, start + count):
        text = f"On day {number} the {animal} of village {number + 3} eats {2 * number} grains, how many in all?"
        total = number + number + 3 + 2 * number
        yield numina(text, f"We add. So $\\boxed{{{total}}}$.", ("cn_k12", "aops_forum", "olympiads")[number % 3])


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    rows: list[Any] = [
        *sums(8, "hen", start=10),
        *sums(2, "moon", start=30),
        *sums(2, "cat", start=40),
        *sums(2, "dog", start=50),
        *sums(2, "bird", start=60),
        next(sums(1, "hen", start=10)),  # the same once more
        numina("A wrong sum: 1 + 1 of 5 cows?", "So $\\boxed{9}$.", "cn_k12"),  # the source is wrong
        numina("In the figure, add 1 and 2.", "So $\\boxed{3}$.", "cn_k12"),
        numina("Prove that 1 + 2 is 3.", "So $\\boxed{3}$.", "olympiads"),
        numina("Add 1 and 2 without a box.", "It is 3.", "olympiads"),
        "{torn",
        {"source": "olympiads", "problem": "no solution column"},
        numina("Add 20 and 22 apples. (A) 40 (B) 42 (C) 44", "So $\\boxed{B}$.", "amc_aime"),
        numina("Add 20 and 23 fish. (A) 43 (B) 42 (C) 44", "So $\\boxed{A}$.", "amc_aime"),
        numina("Which of the following is even? (A) 1 (B) 2 (C) 3", "So $\\boxed{B}$.", "amc_aime"),
        numina(
            "The evaluation set asks for the sum of all even numbers between three and ninety exactly.", "$\\boxed{1}$"
        ),
    ]
    write_lines(folder / "numina.jsonl", rows)
    write_lines(folder / "evaluation.jsonl", [{"problem": rows[-1]["problem"]}])
    constant = {"inputs": ["1", "2"], "outputs": ["1", "1"]}
    write_lines(
        folder / "apps.jsonl",
        [
            apps("Read one number of apples and print its double.", SUITE, ["print 1", DOUBLE]),
            apps("Print what nobody knows.", SUITE, ["print(3)"]),
            apps("Print one, always one.", constant, ["print(1)"]),
            apps("Broken row.", SUITE, [], input_output="{torn"),
        ],
    )
    write_lines(
        folder / "codecontests.jsonl", [code_contests("Given the weight of a parcel, output twice of it.", PAIRS)]
    )
    function = {"fn_name": "twice", "inputs": [[1], [3]], "outputs": [[2], [6]]}
    write_lines(
        folder / "taco.jsonl",
        [
            taco("Write a function that doubles its argument.", function, ["def twice(n):\n    return 2 * n"]),
            taco("Print any of the valid doubles.", SUITE, [DOUBLE]),
        ],
    )
    submissions = [
        codeforces("A robot walks twice as far as its number says.", PAIRS, code="print 2 * input()"),
        codeforces("A robot walks twice as far as its number says.", PAIRS, verdict="WRONG_ANSWER"),
        codeforces("A robot walks twice as far as its number says.", PAIRS),
    ]
    write_lines(folder / "codeforces.jsonl", submissions)
    write_lines(
        folder / "eurus.jsonl",
        [eurus("Add 3 and 4 eagles.\n\nPresent the answer in LaTex format: \\boxed{Your answer}", "7")],
    )
    return folder


def write_config(corpora: Path, output: Path, url: str) -> Path:
    sources = "".join(
        f'[[sources]]\nkind = "{kind}"\npath = "{corpora / kind}.jsonl"\n'
        for kind in ("numina", "apps", "codecontests", "taco", "codeforces", "eurus")
    )
    models = "".join(
        f'[[validation.validators]]\nurl = "{url}"\nmodel = "{model}"\nat_once = 4\npatience_seconds = 20\n'
        "price_in = 1.0\nprice_out = 2.0\n"
        for model in ("qwq", "qwen")
    )
    config = output.with_suffix(".toml")
    config.write_text(
        f'output = "{output}"\npart_rows = 7\nheld_out = 2\n{sources}'
        f'[contamination.sets]\nmine = "{corpora / "evaluation.jsonl"}"\n'
        f'[maths.rewrite]\nurl = "{url}"\nmodel = "llama"\nmax_tokens = 2048\npatience_seconds = 20\n'
        f'[verifier]\nmin_tier = "B"\n[validation]\nprobe = 2\n{models}'
    )
    return config


def command(config: Path) -> list[str]:
    return [sys.executable, "-m", "primectl", "curate", "--config", str(config)]


def run(config: Path) -> tuple[dict[str, Any], str]:
    done = subprocess.run(command(config), cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stdout


@pytest.fixture(scope="module")
def undisturbed(
    corpora: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[str, Any], str, ModelServer]]:
    server, output = ModelServer(), tmp_path_factory.mktemp("undisturbed") / "data"
    summary, text = run(write_config(corpora, output, server.url))
    yield output, summary, text, server
    server.close()


def rows_of(output: Path, split: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(output / "data" / f"{split}.parquet").to_pylist()
    return rows


def test_what_is_kept_and_why_the_others_are_not(undisturbed: tuple[Path, dict[str, Any], str, ModelServer]) -> None:
    output, summary, text, _ = undisturbed
    rows = rows_of(output, "train") + rows_of(output, "validation")
    questions = {row["prompt"][1]["content"].partition("\n")[0] for row in rows}
    assert {question for question in questions if "hen" not in question} == {
        "Add 20 and 22 apples.",
        "Add 3 and 4 eagles.",
        "Read one number of apples and print its double.",
        "Given the weight of a parcel, output twice of it.",
        "Write a function that doubles its argument.",
        "A robot walks twice as far as its number says.",
    }
    assert len(questions) == len(rows) == summary["kept"] == 8 + 6
    dropped = parquet.read_table(output / "data" / "dropped.parquet").to_pylist()
    assert Counter((row["stage"], row["reason"]) for row in dropped) == {
        ("read", "malformed row"): 3,
        ("read", "submission was not accepted"): 1,
        ("maths", "figure"): 1,
        ("maths", "proof"): 1,
        ("maths", "no answer"): 1,
        ("duplicates", "same problem"): 2,
        ("contamination", "in an evaluation set"): 1,
        ("choices", "options cannot be removed"): 1,
        ("choices", "asks about its options"): 1,
        ("programs", "own solution fails"): 1,
        ("programs", "solved by a stub"): 1,
        ("programs", "needs a checker"): 1,
        ("validation", "too few attempts find an answer"): 4,
        ("validation", "answer differs from the source"): 3,
        ("validation", "attempts disagree"): 2,
    }
    assert summary["read"] == len(rows) + len(dropped)
    assert "numina.jsonl, row 22: not JSON" in text
    assert "apps.jsonl, row 4: column 'input_output' is not JSON" in text


def test_rows_are_in_the_published_schema_with_their_provenance(
    undisturbed: tuple[Path, dict[str, Any], str, ModelServer],
) -> None:
    output, _, _, _ = undisturbed
    for split in ("train", "validation"):
        rows, problems = rows_of(output, split), load_problems(str(output / "data" / f"{split}.parquet"))
        assert [row["extra_info"] for row in rows] == [{"index": n, "split": split} for n in range(len(rows))]
        assert [problem.ground_truth for problem in problems] == [row["reward_model"]["ground_truth"] for row in rows]
        assert {row["reward_model"]["style"] for row in rows} == {"rule"}
        assert all([turn["role"] for turn in row["prompt"]] == ["system", "user"] for row in rows)
    assert Counter(row["ability"] for row in rows_of(output, "validation")) == {"math": 2, "code": 2}
    apple = next(
        row for row in rows_of(output, "train") + rows_of(output, "validation") if "22 apples" in str(row["prompt"])
    )
    assert apple["reward_model"]["ground_truth"] == "42"
    assert apple["prompt"][1]["content"].endswith("Give the final answer in LaTeX, as \\boxed{your answer}.")
    provenance = json.loads(apple["provenance"])
    assert provenance["origin"] == "numina: numina.jsonl, row 24"
    assert provenance["choices"]["letter"] == "B"
    assert [each["matching"] for each in provenance["validation"]["validators"]] == [1.0, 1.0]


def test_card_funnel_and_report_tell_the_same_numbers(
    undisturbed: tuple[Path, dict[str, Any], str, ModelServer],
) -> None:
    output, summary, _, server = undisturbed
    data = output / "data"
    card, report = (data / "README.md").read_text(), json.loads((data / "report.json").read_text())
    kept = sum(report["stages"][-1]["entered"].values()) - 9
    assert kept == summary["kept"]
    assert f"{kept} problems in the schema" in card
    assert "path: train.parquet" in card
    assert "path: validation.parquet" in card
    last = next(line for line in card.splitlines() if line.startswith("| after validation |"))
    assert last.endswith(f"| {kept} |")
    assert (data / "funnel.png").read_bytes().startswith(b"\x89PNG")
    probe = {each["model"]: each for each in report["probe"]}
    assert set(probe) == {"qwq", "qwen"}
    assert probe["qwq"]["recall"] == 0.0  # these models add whatever they see
    assert sum(each["paid"] for each in summary["endpoints"]) == sum(server.answered.values())
    assert all(each["cost"] > 0 for each in summary["endpoints"] if each["model"] != "llama")


def test_no_request_is_answered_twice_and_those_that_failed_are_asked_again(
    undisturbed: tuple[Path, dict[str, Any], str, ModelServer],
) -> None:
    *_, server = undisturbed
    assert set(server.answered.values()) == {1}
    assert max(server.tried.values()) == 2


def test_a_second_run_asks_nothing_and_writes_the_same(
    corpora: Path, undisturbed: tuple[Path, dict[str, Any], str, ModelServer]
) -> None:
    output, summary, _, server = undisturbed
    before, files = sum(server.tried.values()), {path: path.stat().st_mtime_ns for path in output.glob("stages/*/*")}
    rows = rows_of(output, "train")
    again, _ = run(output.with_suffix(".toml"))
    assert sum(server.tried.values()) == before
    assert {path: path.stat().st_mtime_ns for path in output.glob("stages/*/*")} == files
    assert rows_of(output, "train") == rows
    assert again["kept"] == summary["kept"]


def test_killed_and_started_again_it_comes_to_the_same_and_pays_nothing_twice(
    corpora: Path, undisturbed: tuple[Path, dict[str, Any], str, ModelServer], tmp_path: Path
) -> None:
    server, output = ModelServer(), tmp_path / "data"
    server.hold_after = ANSWERED_BEFORE_THE_KILL
    config = write_config(corpora, output, server.url)
    process = subprocess.Popen(command(config), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert server.held.wait(timeout=120)
        wait_until_kept(output / "responses.sqlite", ANSWERED_BEFORE_THE_KILL)
        finished = {path: path.stat().st_mtime_ns for path in output.glob("stages/*/*.parquet")}
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert finished
    assert sum(server.answered.values()) == ANSWERED_BEFORE_THE_KILL
    server.hold_after = 10**9
    run(config)
    assert set(server.answered.values()) == {1}
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    for split in ("train", "validation", "dropped"):
        assert rows_of(output, split) == rows_of(undisturbed[0], split)
    server.close()


def wait_until_kept(database: Path, count: int) -> None:
    """What the server has answered also lies on disk: in between, a kill may lose it."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        kept = sqlite3.connect(database).execute("select count(*) from responses").fetchone()[0]
        if kept == count:
            return
        time.sleep(0.05)
    pytest.fail(f"{kept} of {count} answers were kept")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('kind = "apps"', "setting 'sources.0.kind'"),
        ("numina.jsonl", "does not exist"),
        ("[contamination.sets]", "unknown setting"),
    ],
)
def test_mistakes_cost_nothing(corpora: Path, tmp_path: Path, change: str, message: str) -> None:
    replaced = {
        'kind = "apps"': ('kind = "numina"', 'kind = "nuimna"'),
        "numina.jsonl": ("numina.jsonl", "nuimna.jsonl"),
        "[contamination.sets]": ("[contamination.sets]", "[contaminations.sets]"),
    }[change]
    config = write_config(corpora, tmp_path / "data", "http://127.0.0.1:9/v1")
    config.write_text(config.read_text().replace(*replaced))
    done = subprocess.run(command(config), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_the_examples_are_what_the_code_takes() -> None:
    whole = load_settings(CurateSettings, ROOT / "examples" / "curate-prime.toml", [])
    assert [source.kind for source in whole.sources] == ["numina", "apps", "codecontests", "taco", "codeforces"]
    assert [each.model for each in whole.validation.validators] == [
        "Qwen/QwQ-32B-Preview",
        "Qwen/Qwen2.5-Math-72B-Instruct",
    ]
    asked = [(each.temperature, each.top_p, each.max_tokens) for each in whole.validation.validators]
    assert asked == [(0.8, 0.95, 16384)] * 2
    assert whole.validation.attempts == 5


def test_the_example_runs_without_any_model(tmp_path: Path) -> None:
    arguments = ["curate", "--config", "examples/curate.toml", f"output={tmp_path / 'data'}", "verifier.min_tier=B"]
    done = subprocess.run(
        [sys.executable, "-m", "primectl", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["read"], summary["kept"], summary["endpoints"]) == (13, 4, [])


def test_a_folder_that_holds_something_else_is_not_written_to(corpora: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").write_text("mine")
    config = write_config(corpora, tmp_path / "data", "http://127.0.0.1:9/v1")
    done = subprocess.run(command(config), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert "holds something else; choose another folder" in done.stderr
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["thesis.tex"]
