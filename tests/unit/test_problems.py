"""Problems are read row by row, and a row that cannot be used is named by file, row and column."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pyarrow import Table, parquet
from tokenizers.processors import TemplateProcessing

from prime.data.chain import build_tokenizer
from prime.data.problems import load_problems, row_of, write_jsonl
from prime.data.prompts import TokenTexts, encode_prompt, encode_prompts, response_text, step_ends
from prime.data.tiny import build_byte_tokenizer
from prime.errors import DataError
from prime.types import Message, Problem
from tests.builders import problem

TESTS = json.dumps({"inputs": ["1 2\n"], "outputs": ["3\n"]})
PROBLEMS = [
    problem(1),
    Problem(
        problem_id="p2",
        data_source="taco",
        ability="code",
        messages=(Message(role="system", content="Be brief."), Message(role="user", content="Añade 1 y 2 — 你好")),
        ground_truth=TESTS,
    ),
]


def _row(**changes: Any) -> dict[str, Any]:
    return {**row_of(problem(), 0), **changes}


def _jsonl(path: Path, *rows: object) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def _refused(source: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_problems(source)
    assert source in str(caught.value)


# ---------------------------------------------------------------- good rows


def _same_but_for_ids(loaded: list[Problem]) -> bool:
    def content(each: Problem) -> tuple[object, ...]:
        return each.data_source, each.ability, each.messages, each.ground_truth

    return list(map(content, loaded)) == list(map(content, PROBLEMS))


def test_what_is_written_as_jsonl_is_read_back(tmp_path: Path) -> None:
    write_jsonl(PROBLEMS, tmp_path / "new" / "problems.jsonl")
    loaded = load_problems(str(tmp_path / "new" / "problems.jsonl"))
    assert _same_but_for_ids(loaded)
    assert [each.problem_id for each in loaded] == ["chain-1", "taco-2"]


def test_parquet_rows_read_like_jsonl_rows(tmp_path: Path) -> None:
    path = tmp_path / "problems.parquet"
    parquet.write_table(Table.from_pylist([row_of(each, number) for number, each in enumerate(PROBLEMS)]), path)
    assert _same_but_for_ids(load_problems(str(path)))


def test_columns_beyond_the_schema_are_ignored(tmp_path: Path) -> None:
    row = _row(difficulty=3)
    del row["extra_info"]
    assert len(load_problems(_jsonl(tmp_path / "p.jsonl", row))) == 1


# ---------------------------------------------------------------- bad rows


@pytest.mark.parametrize("column", ["data_source", "prompt", "ability", "reward_model"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    row = _row()
    del row[column]
    _refused(_jsonl(tmp_path / "p.jsonl", _row(), row), f"row 2: column '{column}' is missing")


BAD_ROWS = [
    ({"prompt": []}, "column 'prompt' must be a list of messages"),
    ({"prompt": None}, "column 'prompt' must be a list of messages"),
    ({"prompt": [{"role": "user", "content": " "}]}, "column 'prompt' is empty"),
    ({"prompt": [{"role": "user", "content": None}]}, "column 'prompt' is empty"),
    ({"prompt": [{"role": "system", "content": "only this"}]}, "column 'prompt' is empty"),
    ({"prompt": [{"role": None, "content": "x"}]}, "column 'prompt' is null"),
    ({"reward_model": {"ground_truth": None}}, r"column 'reward_model\.ground_truth' is null"),
    ({"reward_model": {"ground_truth": " "}}, r"column 'reward_model\.ground_truth' is empty"),
    ({"reward_model": {"style": "rule"}}, "column 'reward_model' must be an object with 'ground_truth'"),
    ({"reward_model": None}, "column 'reward_model' must be an object with 'ground_truth'"),
    ({"ability": "music"}, r"column 'ability' is 'music'; it must be one of \['math', 'code', 'environment'\]"),
    ({"ability": None}, "column 'ability' is null"),
    ({"data_source": ""}, "column 'data_source' is empty"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_ROWS)
def test_a_bad_column_is_named_with_file_and_row(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    _refused(_jsonl(tmp_path / "p.jsonl", _row(), _row(), _row(**changes)), f"row 3: {message}")


@pytest.mark.parametrize(
    "changes",
    [
        {"data_source": 7},
        {"prompt": "2+2="},
        {"prompt": [{"role": "user"}]},
        {"prompt": ["2+2="]},
        {"reward_model": "4"},
        {"reward_model": {"ground_truth": 4}},
    ],
)
def test_a_column_of_the_wrong_kind_is_named(tmp_path: Path, changes: dict[str, Any]) -> None:
    (column,) = changes
    _refused(_jsonl(tmp_path / "p.jsonl", _row(**changes)), f"row 1: column '{column}")


@pytest.mark.parametrize(
    ("ground_truth", "message"),
    [
        ("4", "must be an object with the lists 'inputs' and 'outputs'"),
        ("[]", "must be an object with the lists 'inputs' and 'outputs'"),
        ('{"inputs": ["1"]}', "must be an object with the lists 'inputs' and 'outputs'"),
        ('{"inputs": "1", "outputs": "1"}', "must be an object with the lists 'inputs' and 'outputs'"),
        ('{"inputs": ["1", "2"], "outputs": ["1"]}', "has 2 inputs but 1 outputs"),
        ('{"inputs": [], "outputs": []}', "has no tests"),
        ('{"inputs": ["1", "2"], "outputs": [null, null]}', "every test expects null"),
        ('[{"input": "1"}]', "must be an object with the lists 'inputs' and 'outputs'"),
        ("print(4)", "must be JSON"),
    ],
)
def test_a_code_problem_without_usable_tests_is_refused(tmp_path: Path, ground_truth: str, message: str) -> None:
    row = _row(ability="code", reward_model={"ground_truth": ground_truth})
    _refused(_jsonl(tmp_path / "p.jsonl", _row(), row), rf"row 2: column 'reward_model\.ground_truth'.*{message}")


@pytest.mark.parametrize(
    "ground_truth",
    [
        '{"inputs": ["1", "2"], "outputs": ["1", null]}',
        '[{"input": "1", "output": "1", "testtype": "stdin"}]',
        '{"test_cases": [{"input": "1", "output": "1"}]}',
        '{"assert_case": ["assert f(1) == 1"]}',
    ],
)
def test_a_code_problem_may_have_the_form_of_its_data_set(tmp_path: Path, ground_truth: str) -> None:
    row = _row(ability="code", reward_model={"ground_truth": ground_truth})
    assert len(load_problems(_jsonl(tmp_path / "p.jsonl", row))) == 1


def test_a_bad_parquet_row_is_named_like_a_jsonl_row(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    parquet.write_table(Table.from_pylist([_row(), _row(reward_model={"ground_truth": None})]), path)
    _refused(str(path), r"row 2: column 'reward_model\.ground_truth' is null")


# ---------------------------------------------------------------- bad files


@pytest.mark.parametrize("line", ["{torn", "", "'single'"])
def test_a_line_that_is_no_json_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(f"{json.dumps(_row())}\n{line}\n")
    _refused(str(path), "row 2: not JSON")


def test_a_line_that_is_no_object_is_named(tmp_path: Path) -> None:
    _refused(_jsonl(tmp_path / "p.jsonl", _row(), [1, 2]), "row 2: a row must be a JSON object")


def test_files_without_problems_are_refused(tmp_path: Path) -> None:
    _refused(_jsonl(tmp_path / "empty.jsonl"), "holds no problems")
    parquet.write_table(Table.from_pylist([_row()]).slice(0, 0), tmp_path / "empty.parquet")
    _refused(str(tmp_path / "empty.parquet"), "holds no problems")


@pytest.mark.parametrize("name", ["missing.jsonl", "missing.parquet"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    _refused(str(tmp_path / name), "does not exist")


def test_a_file_of_another_kind_and_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("a,b\n")
    for source in (tmp_path / "p.csv", tmp_path):
        _refused(str(source), "is not a file of rows; known are .jsonl, .*.parquet, .arrow")


def test_a_parquet_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_text("a,b\n")
    _refused(str(tmp_path / "p.parquet"), "is not a parquet file")


# ---------------------------------------------------------------- prompts


def test_a_chat_template_shapes_the_prompt_and_asks_for_an_answer() -> None:
    tokenizer = build_byte_tokenizer()
    ids = encode_prompt(tokenizer, (Message(role="system", content="S"), Message(role="user", content="2+2=")))
    assert tokenizer.decode(ids) == "system: S\nuser: 2+2=\nassistant: "


def test_without_a_chat_template_contents_are_joined_by_blank_lines() -> None:
    tokenizer = build_byte_tokenizer()
    tokenizer.chat_template = None
    ids = encode_prompt(tokenizer, (Message(role="system", content="S"), Message(role="user", content="2+2=")))
    assert tokenizer.decode(ids) == "S\n\n2+2="


def test_prompts_keep_their_order_and_their_problems() -> None:
    problems = [problem(number) for number in (3, 1, 2)]
    encoded = encode_prompts(build_tokenizer(), problems, source="p.jsonl", max_tokens=4, drop_long=False)
    assert [each for each, _ in encoded] == problems
    assert all(len(ids) == 4 for _, ids in encoded)


def test_a_prompt_over_the_limit_is_refused_by_name() -> None:
    problems = [problem(1), problem(10)]
    message = re.escape("p.jsonl, row 2: the prompt of 'p10' has 5 tokens, over trainer.max_prompt_tokens = 4")
    with pytest.raises(DataError, match=message):
        encode_prompts(build_tokenizer(), problems, source="p.jsonl", max_tokens=4, drop_long=False)


def test_a_prompt_over_the_limit_is_dropped_on_request() -> None:
    problems = [problem(10), problem(1), problem(11)]
    encoded = encode_prompts(build_tokenizer(), problems, source="p.jsonl", max_tokens=4, drop_long=True)
    assert [each for each, _ in encoded] == [problem(1)]


def test_dropping_every_prompt_is_an_error() -> None:
    with pytest.raises(DataError, match=r"p\.jsonl: no prompt has at most trainer\.max_prompt_tokens = 4 tokens"):
        encode_prompts(build_tokenizer(), [problem(10)], source="p.jsonl", max_tokens=4, drop_long=True)


def test_a_prompt_without_any_token_is_refused() -> None:
    blank = Problem(
        problem_id="b", data_source="d", ability="math", messages=(Message(role="user", content=""),), ground_truth="4"
    )
    with pytest.raises(DataError, match=r"p\.jsonl, row 1: the prompt of 'b' encodes to no token"):
        encode_prompts(build_tokenizer(), [blank], source="p.jsonl", max_tokens=4, drop_long=True)


# ---------------------------------------------------------------- steps


@pytest.mark.parametrize(
    ("text", "delimiter", "ends"),
    [
        ("3+5=8;8+8=6#6", ";", [5]),
        ("1;2;;3", ";", [1, 3, 4]),
        ("one\n\ntwo", "\n\n", [4]),
        ("a\n\n\n\nb", "\n\n", [2, 4]),
        ("a\n\n\nb", "\n\n", [2]),
        ("a\nb\nc", "\n\n", []),
        ("\n\n", "\n\n", [1]),
        ("ababc", "abc", [4]),
        ("", ";", []),
    ],
)
def test_a_step_ends_with_the_token_that_completes_the_delimiter(text: str, delimiter: str, ends: list[int]) -> None:
    tokenizer = build_byte_tokenizer()
    assert step_ends(tokenizer(text)["input_ids"], TokenTexts(tokenizer), delimiter) == ends


def test_a_delimiter_inside_one_token_ends_a_step_there() -> None:
    pieces = {7: "a.\n\nb", 8: "\n", 9: "c"}
    assert step_ends([7, 8, 9, 8, 8, 9], pieces.__getitem__, "\n\n") == [0, 4]


class CountingTokenizer:
    """Decodes a token to its number, and counts."""

    decoded = 0

    def decode(self, ids: list[int]) -> str:
        self.decoded += 1
        return str(ids[0])


def test_a_token_is_decoded_once() -> None:
    tokenizer = CountingTokenizer()
    text_of = TokenTexts(tokenizer)
    assert [text_of(token) for token in (5, 6, 5, 5)] == ["5", "6", "5", "5"]
    assert tokenizer.decoded == 2


def test_an_end_token_that_the_tokenizer_appends_is_no_part_of_the_prompt() -> None:
    tokenizer = build_byte_tokenizer()
    tokenizer.chat_template = None
    plain = encode_prompt(tokenizer, (Message(role="user", content="2+2="),))
    end = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    assert tuple(tokenizer("2+2=")["input_ids"]) == (*plain, tokenizer.eos_token_id)
    assert encode_prompt(tokenizer, (Message(role="user", content="2+2="),)) == plain


def test_special_tokens_inside_a_response_are_graded_and_its_end_token_is_not() -> None:
    tokenizer = build_byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|box|>"]})
    box = tokenizer.convert_tokens_to_ids("<|box|>")
    four = tokenizer("4", add_special_tokens=False)["input_ids"]
    ids = (box, *four, box, tokenizer.eos_token_id)
    assert response_text(tokenizer, ids) == "<|box|>4<|box|>"
    assert response_text(tokenizer, ids[:2]) == "<|box|>4"
    assert response_text(tokenizer, ()) == ""
