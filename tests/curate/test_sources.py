"""Every public schema, row by row: what becomes of a sound row, and of one that is not."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import Table, parquet

from jobs.curate.draft import Draft
from jobs.curate.settings import CodeSettings, ColumnSettings, CurateSettings, SourceSettings
from jobs.curate.sources import MALFORMED, open_source
from prime.errors import DataError
from tests.curate.corpora import DOUBLE, apps, code_contests, codeforces, eurus, numina, taco, write_lines

PAIRS = [("1", "2"), ("5", "10"), ("7", "14")]
SUITE = {"inputs": [given for given, _ in PAIRS], "outputs": [expected for _, expected in PAIRS]}


def read(tmp_path: Path, kind: Any, *rows: Any, code: CodeSettings | None = None, **settings: Any) -> list[Draft]:
    path = write_lines(tmp_path / "rows.jsonl", rows)
    source = SourceSettings(kind=kind, path=str(path), **settings)
    return list(open_source(source, code or CodeSettings()).read())


# ---------------------------------------------------------------- mathematics


def test_numina_is_named_after_its_sets_and_the_published_ones_alone_are_read(tmp_path: Path) -> None:
    rows = [
        numina("Find $1+1$.", "It is $\\boxed{2}$.", each) for each in ("olympiads", "cn_k12", "orca_math", "gsm8k")
    ]
    drafts = read(tmp_path, "numina", *rows)
    assert [draft.source for draft in drafts] == ["numina_olympiads", "numina_cn_k12", "numina", "numina"]
    assert [draft.dropped for draft in drafts] == ["", "", "another set", "another set"]
    assert drafts[0].question == "Find $1+1$."
    assert drafts[0].solutions == ("It is $\\boxed{2}$.",)
    assert drafts[0].origin == "numina: rows.jsonl, row 1"
    assert [draft.dropped for draft in read(tmp_path, "numina", *rows, sets=("gsm8k",))][3] == ""


@pytest.mark.parametrize(
    "request_for_a_form",
    [
        "Present the answer in LaTex format: \\boxed{Your answer}",
        "Give the final answer in LaTeX, as \\boxed{your answer}.",
    ],
)
def test_eurus_is_read_as_it_is_without_its_prompt_and_its_request_for_a_form(
    tmp_path: Path, request_for_a_form: str
) -> None:
    (draft,) = read(tmp_path, "eurus", eurus(f"Find $1+1$.\n\n{request_for_a_form}", "2"))
    assert (draft.question, draft.answer, draft.source, draft.ability) == (
        "Find $1+1$.",
        "2",
        "numina_olympiads",
        "math",
    )


def test_the_older_layout_of_eurus_is_read_as_well(tmp_path: Path) -> None:
    old = {"id": 1, "task": "Math", "source": "numina_cn_k12", "instruction": "Find $1+1$.", "reference": "2"}
    math, code, unknown = read(
        tmp_path,
        "eurus",
        old,
        {**old, "task": "Coding", "source": "taco", "reference": json.dumps(SUITE)},
        {**old, "task": "Chess"},
    )
    assert (math.question, math.answer, math.source, math.ability) == ("Find $1+1$.", "2", "numina_cn_k12", "math")
    assert (code.ability, json.loads(code.answer)) == ("code", SUITE)
    assert "column 'ability' is missing" in unknown.notes["read"]


def test_eurus_code_keeps_its_tests_and_a_function_its_name(tmp_path: Path) -> None:
    suite = {"inputs": ["[1, 2]\n3"], "outputs": [[1, 2, 3]], "fn_name": "add"}
    content = (
        "Add.\n\nWrite Python code to solve the problem. Present the code in \n```python\nYour code\n```\nat the end."
    )
    (draft,) = read(tmp_path, "eurus", eurus(content, json.dumps(suite), "code"))
    assert draft.question == "Add."
    assert json.loads(draft.answer) == suite


@pytest.mark.parametrize("truth", [None, "", "  ", 4])
def test_a_null_ground_truth_is_reported_as_the_published_data_once_had_it(tmp_path: Path, truth: Any) -> None:
    (draft,) = read(tmp_path, "eurus", eurus("Find it.", truth))
    assert draft.dropped == MALFORMED
    assert "rows.jsonl, row 1: column 'reward_model.ground_truth'" in draft.notes["read"]


def test_any_rows_by_a_mapping_of_columns(tmp_path: Path) -> None:
    columns = ColumnSettings(question="q", answer="a", solution="s")
    (draft, number) = read(
        tmp_path,
        "rows",
        {"q": "Find it.", "a": "2", "s": "So \\boxed{2}.", "more": 1},
        {"q": "Find it.", "a": 7, "s": "x"},
        columns=columns,
        name="mine",
    )
    assert (draft.source, draft.question, draft.answer, draft.solutions) == (
        "mine",
        "Find it.",
        "2",
        ("So \\boxed{2}.",),
    )
    assert number.answer == "7"
    tests = ColumnSettings(question="q", answer="a", ability="code")
    (program,) = read(tmp_path, "rows", {"q": "Double.", "a": SUITE}, columns=tests, name="mine")
    assert json.loads(program.answer) == SUITE


# ---------------------------------------------------------------- programs


def test_apps_programs_and_tests(tmp_path: Path) -> None:
    (draft,) = read(tmp_path, "apps", apps("Double it.", SUITE, [DOUBLE, "print('no')"]))
    assert (draft.question, draft.ability, draft.source) == ("Double it.", "code", "apps")
    assert json.loads(draft.answer) == SUITE
    assert draft.solutions == (f"```python\n{DOUBLE}\n```", "```python\nprint('no')\n```")


def test_apps_functions_lose_the_list_around_what_they_return(tmp_path: Path) -> None:
    suite = {"fn_name": "twice", "inputs": [[1], [2]], "outputs": [[2], [4]]}
    (draft,) = read(
        tmp_path, "apps", apps("Double.", suite, ["def twice(n): return 2*n"], starter_code="def twice(n):")
    )
    assert json.loads(draft.answer) == {"fn_name": "twice", "inputs": [[1], [2]], "outputs": [2, 4]}
    assert draft.question.endswith("```python\ndef twice(n):\n```")
    plain = {"fn_name": "pair", "inputs": [[1], [2]], "outputs": [[2], [4, 4]]}
    (draft,) = read(tmp_path, "apps", apps("Pairs.", plain, []))
    assert json.loads(draft.answer)["outputs"] == [[2], [4, 4]]


def test_taco_has_the_schema_of_apps(tmp_path: Path) -> None:
    (draft,) = read(tmp_path, "taco", taco("Double it.", SUITE, [DOUBLE]))
    assert (draft.source, json.loads(draft.answer)) == ("taco", SUITE)


def test_code_contests_joins_its_three_suites_and_takes_python_3_before_cpp(tmp_path: Path) -> None:
    solutions = {"language": [2, 1, 3, 4], "solution": ["int main(){}", "print 1", DOUBLE, "class A {}"]}
    generated = {"input": ["9"], "output": ["18"]}
    (draft,) = read(
        tmp_path, "codecontests", code_contests("Double it.", PAIRS, solutions=solutions, generated_tests=generated)
    )
    assert json.loads(draft.answer)["outputs"] == ["2", "10", "14", "18"]
    assert draft.solutions == (f"```python\n{DOUBLE}\n```", "```cpp\nint main(){}\n```")
    (files,) = read(tmp_path, "codecontests", code_contests("Double it.", PAIRS, input_file="in.txt"))
    assert files.dropped == "reads or writes files"


def test_codeforces_puts_the_statement_together_and_takes_accepted_submissions_alone(tmp_path: Path) -> None:
    right, wrong = codeforces("Double it.", PAIRS), codeforces("Double it.", PAIRS, verdict="WRONG_ANSWER")
    draft, other = read(tmp_path, "codeforces", right, wrong)
    assert other.dropped == "submission was not accepted"
    assert draft.question == (
        "Double it.\n\nInput\n\nOne integer.\n\nOutput\n\nIts double.\n\nExample 1\n\nInput\n\n1\n\nOutput\n\n2"
    )
    assert draft.solutions == (f"```python\n{DOUBLE}\n```",)


def test_tests_that_were_cut_off_repeated_or_are_too_large_are_left_out(tmp_path: Path) -> None:
    pairs = [("1", "2"), ("1", "2"), ("5 6 7...", "2"), ("6", "1 2 3..."), ("8", None), ("9", "x" * 500), ("3", "6")]
    suite = {"inputs": [given for given, _ in pairs], "outputs": [expected for _, expected in pairs]}
    (draft,) = read(tmp_path, "apps", apps("Q", suite, []), code=CodeSettings(max_test_bytes=200))
    assert json.loads(draft.answer) == {"inputs": ["1", "3"], "outputs": ["2", "6"]}
    (draft,) = read(tmp_path, "apps", apps("Q", SUITE, []), code=CodeSettings(max_tests=2))
    assert json.loads(draft.answer)["inputs"] == ["1", "5"]


def test_a_problem_without_tests_is_dropped(tmp_path: Path) -> None:
    empty: dict[str, Any] = {"inputs": [], "outputs": []}
    for row in (apps("Q", empty, []), apps("Q", SUITE, [], input_output=""), apps("Q", SUITE, [], input_output=None)):
        (draft,) = read(tmp_path, "apps", row)
        assert draft.dropped == "no tests"


# ---------------------------------------------------------------- rows that cannot be read


@pytest.mark.parametrize(
    ("kind", "row", "fault"),
    [
        ("numina", "{torn", "row 2: not JSON"),
        ("numina", "[1]", "a row must be a JSON object"),
        ("numina", {"source": "olympiads", "problem": "Q"}, "column 'solution' is missing"),
        ("numina", numina("", "s"), "column 'problem' must be text"),
        ("numina", {**numina("q", "s"), "problem": 4}, "column 'problem' must be text"),
        ("apps", apps("Q", SUITE, [], input_output="{torn"), "column 'input_output' is not JSON"),
        ("apps", apps("Q", [1], []), "the tests must be an object"),
        ("apps", apps("Q", {"inputs": ["1"], "outputs": []}, []), "1 inputs but 0 outputs"),
        ("apps", apps("Q", SUITE, [], solutions='{"a": 1}'), "column 'solutions' must be a JSON list"),
        ("apps", apps("Q", {"inputs": ["1"], "outputs": [" "]}, []), "every expected output is blank"),
        ("taco", taco("Q", {"inputs": [[1]], "outputs": [[1]], "fn_name": "not a name"}, []), "is not a name"),
        ("codecontests", code_contests("Q", PAIRS, public_tests=[1]), "column 'public_tests'"),
        ("codeforces", codeforces("Q", PAIRS, test_cases="no"), "column 'test_cases'"),
        ("codeforces", codeforces("Q", PAIRS, verdict=None), "column 'verdict' is missing"),
        ("eurus", {**eurus("q", "1"), "prompt": "text"}, "column 'prompt' must be a list"),
        ("eurus", eurus("q", "{torn", "code"), "column 'reward_model.ground_truth' is not JSON"),
    ],
)
def test_a_row_that_cannot_be_read_is_told_with_file_and_row_and_costs_itself_alone(
    tmp_path: Path, kind: Any, row: Any, fault: str
) -> None:
    good = {
        "numina": numina("Q", "s"),
        "apps": apps("Q", SUITE, []),
        "taco": taco("Q", SUITE, []),
        "codecontests": code_contests("Q", PAIRS),
        "codeforces": codeforces("Q", PAIRS),
        "eurus": eurus("Q", "1"),
    }[kind]
    before, bad, after = read(tmp_path, kind, good, row, good)
    assert before.dropped == after.dropped == ""
    assert bad.dropped == MALFORMED
    assert "rows.jsonl, row 2: " in bad.notes["read"]
    assert fault in bad.notes["read"]


def test_parquet_and_folders_are_read_as_jsonl_is(tmp_path: Path) -> None:
    folder = tmp_path / "numina"
    write_lines(folder / "a.jsonl", [numina("First", "s")])
    (folder / "default" / "train").mkdir(parents=True)
    parquet.write_table(Table.from_pylist([numina("Second", "s")]), folder / "default" / "train" / "0.parquet")
    source = open_source(SourceSettings(kind="numina", path=str(folder)), CodeSettings())
    assert [(draft.question, draft.origin) for draft in source.read()] == [
        ("First", "numina: a.jsonl, row 1"),
        ("Second", "numina: default/train/0.parquet, row 1"),
    ]
    with pyarrow.OSFile(str(folder / "test-0.arrow"), "wb") as file:
        table = Table.from_pylist([numina("Third", "s")])
        with pyarrow.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    pattern = open_source(SourceSettings(kind="numina", path=str(folder / "test-*.arrow")), CodeSettings())
    assert [(draft.question, draft.origin) for draft in pattern.read()] == [("Third", "numina: test-0.arrow, row 1")]
    assert len(list(open_source(SourceSettings(kind="numina", path=str(folder), limit=1), CodeSettings()).read())) == 1


@pytest.mark.parametrize("path", ["no.jsonl", "empty", "text.txt", "not a name!", "*.parquet", "text.*"])
def test_a_source_that_is_not_there_is_named(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("x")
    with pytest.raises(DataError, match=r"source .*(does not exist|without|is no|no file fits)"):
        open_source(SourceSettings(kind="numina", path=str(tmp_path / path)), CodeSettings())


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match=r'`columns` is needed for kind = "rows"'):
        SourceSettings(kind="rows", path="x.jsonl")
    twice = [{"kind": "apps", "path": "a.jsonl"}, {"kind": "apps", "path": "b.jsonl"}]
    with pytest.raises(ValueError, match=r"two sources are named 'apps'"):
        CurateSettings.model_validate({"output": "x", "sources": twice})
    validator = {"url": "http://x/v1", "model": "m"}
    with pytest.raises(ValueError, match="the same model"):
        CurateSettings.model_validate(
            {"output": "x", "sources": twice[:1], "validation": {"validators": [validator, validator]}}
        )
