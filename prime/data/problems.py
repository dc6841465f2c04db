"""Reads problems in the schema of Eurus-2-RL-Data from files or a dataset name, and checks every row.

data_source    text            names the grader's dialect, e.g. "numina_olympiads", "apps"
prompt         list of {role, content}
ability        "math" | "code" | "environment"
reward_model   {"ground_truth": text, ...}   for code a JSON text {"inputs": [...], "outputs": [...]}, for environments
               {"environment": name, "task": text, "max_turns": int}
extra_info     {"index": int, ...}           optional
"""

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prime.environments.registry import ABILITY, read_task
from prime.errors import DataError
from prime.types import Message, Problem

REQUIRED_COLUMNS = ("data_source", "prompt", "ability", "reward_model")
ABILITIES = ("math", "code", "environment")


def load_problems(source: str) -> list[Problem]:
    """All problems of a file (`.jsonl`, `.json`, `.parquet`, ...), or of a dataset `name` or `name:split`.

    Raises:
        DataError: the source does not exist, is empty, or a row breaks the schema; names source, row and column.
    """
    problems = [parse_row(row, f"{source}, row {number}", number) for number, row in enumerate(_rows(source), start=1)]
    if not problems:
        raise DataError(f"{source} holds no problems")
    return problems


def parse_row(row: Mapping[str, Any], where: str, number: int) -> Problem:
    """One row as a problem.

    Raises:
        DataError: a column is missing, null, empty or of the wrong kind; `where` and the column are named.
    """
    missing = [column for column in REQUIRED_COLUMNS if column not in row]
    if missing:
        raise DataError(f"{where}: column {missing[0]!r} is missing; it has {sorted(row)}")
    data_source = _text(row["data_source"], f"{where}: column 'data_source'")
    ability = _text(row["ability"], f"{where}: column 'ability'")
    if ability not in ABILITIES:
        raise DataError(f"{where}: column 'ability' is {ability!r}; it must be one of {list(ABILITIES)}")
    reward_model = row["reward_model"]
    if not isinstance(reward_model, Mapping) or "ground_truth" not in reward_model:
        raise DataError(f"{where}: column 'reward_model' must be an object with 'ground_truth'")
    ground_truth = _text(reward_model["ground_truth"], f"{where}: column 'reward_model.ground_truth'")
    if ability == "code":
        check_tests(ground_truth, f"{where}: column 'reward_model.ground_truth'")
    if ability == ABILITY:
        try:
            read_task(ground_truth)
        except DataError as error:
            raise DataError(f"{where}: column 'reward_model.ground_truth': {error}") from None
    return Problem(
        problem_id=f"{data_source}-{number}",
        data_source=data_source,
        ability=ability,
        messages=_messages(row["prompt"], f"{where}: column 'prompt'"),
        ground_truth=ground_truth,
    )


def check_tests(ground_truth: str, where: str) -> None:
    """Check that a code ground truth is a usable suite of tests.

    Raises:
        DataError: no JSON of tests, no tests, lists of unequal length, or only null expectations.
    """
    try:
        tests = json.loads(ground_truth)
    except json.JSONDecodeError as error:
        raise DataError(f"{where} of a code problem must be JSON: {error}") from None
    if _is_row_of_a_data_set(tests):
        return  # the verifier reads it, and says what is wrong with it
    if not isinstance(tests, dict) or not all(isinstance(tests.get(key), list) for key in ("inputs", "outputs")):
        raise DataError(
            f"{where} of a code problem must be an object with the lists 'inputs' and 'outputs', or 'assertions'"
        )
    inputs, outputs = tests["inputs"], tests["outputs"]
    if len(inputs) != len(outputs):
        raise DataError(f"{where} has {len(inputs)} inputs but {len(outputs)} outputs")
    if not inputs:
        raise DataError(f"{where} has no tests; an answer that nothing checks is never right")
    if all(output is None for output in outputs):
        raise DataError(f"{where}: every test expects null")


_OTHER_FORMS = (
    *("assertions", "assert_case", "test_cases", "verification_info", "input_output", "public_tests"),
    *("private_tests", "generated_tests", "public_test_cases", "private_test_cases"),
)
"""Keys by which the verifier knows other forms of tests; `docs/grading.md` has them."""


def _is_row_of_a_data_set(tests: Any) -> bool:
    if isinstance(tests, list):
        return bool(tests) and all(isinstance(test, dict) and {"input", "output"} <= test.keys() for test in tests)
    return isinstance(tests, dict) and any(tests.get(key) for key in _OTHER_FORMS)


def row_of(problem: Problem, index: int) -> dict[str, Any]:
    """The inverse of `parse_row`: a row in the schema."""
    return {
        "data_source": problem.data_source,
        "prompt": [{"role": message.role, "content": message.content} for message in problem.messages],
        "ability": problem.ability,
        "reward_model": {"style": "rule", "ground_truth": problem.ground_truth},
        "extra_info": {"split": "dummy", "index": index},
    }


def write_jsonl(problems: list[Problem], path: Path) -> None:
    """Write problems in the schema, one JSON object per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row_of(problem, index), ensure_ascii=False) for index, problem in enumerate(problems))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_rows(path: Path) -> Iterator[Mapping[str, Any] | str]:
    """The rows of a file; in place of a line that is no JSON object, what is wrong with it.

    Raises:
        DataError: the file does not exist, or is of another kind.
    """
    if path.suffix not in _FILES:
        raise DataError(f"{path} is not a file of rows; known are {', '.join(_FILES)}")
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    return _FILES[path.suffix](path)


def _rows(source: str) -> Iterator[Mapping[str, Any]]:
    path = Path(source)
    if path.suffix not in _FILES and not path.exists():
        yield from dataset_rows(source)
        return
    for row in read_rows(path):
        if isinstance(row, str):
            raise DataError(row)
        yield row


def _jsonl_rows(path: Path) -> Iterator[Mapping[str, Any] | str]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line.strip())
            except (ValueError, RecursionError) as error:
                yield f"{path}, row {number}: not JSON: {error}"
                continue
            yield row if isinstance(row, dict) else f"{path}, row {number}: a row must be a JSON object"


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any] | str]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path} is not a parquet file: {error}") from None


def _arrow_rows(path: Path) -> Iterator[Mapping[str, Any] | str]:
    """As `datasets` keeps them: a stream of batches."""
    import pyarrow

    try:
        with pyarrow.memory_map(str(path)) as source, pyarrow.ipc.open_stream(source) as batches:
            for batch in batches:
                for start in range(0, len(batch), 1024):
                    yield from batch.slice(start, 1024).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path} is not a stream of Arrow batches: {error}") from None


def _json_rows(path: Path) -> Iterator[Mapping[str, Any] | str]:
    """A list of objects, or an object of columns, each an object by row."""
    try:
        tree = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}; a file of one object per line is called .jsonl") from None
    if isinstance(tree, dict) and tree and all(isinstance(column, dict) for column in tree.values()):
        places = list(next(iter(tree.values())))
        tree = [{name: column.get(place) for name, column in tree.items()} for place in places]
    if not isinstance(tree, list):
        raise DataError(f"{path} must hold a list of objects, or an object of columns")
    for number, row in enumerate(tree, start=1):
        yield row if isinstance(row, dict) else f"{path}, row {number}: a row must be a JSON object"


_FILES = {
    ".jsonl": _jsonl_rows,
    ".gz": _jsonl_rows,
    ".json": _json_rows,
    ".parquet": _parquet_rows,
    ".arrow": _arrow_rows,
}
FILE_ENDINGS = tuple(_FILES)


def dataset_rows(source: str, *, streaming: bool = False) -> Iterator[Mapping[str, Any]]:
    """The rows of a dataset `name` or `name:split`; `streaming`: without keeping it on disk.

    Raises:
        DataError: there is none of that name that can be reached.
    """
    import datasets

    name, _, split = source.partition(":")
    try:
        yield from datasets.load_dataset(name, split=split or "train", streaming=streaming)
    except (datasets.exceptions.DatasetNotFoundError, FileNotFoundError, ConnectionError, ValueError) as error:
        raise DataError(f"{source} is no file here, and no dataset that can be loaded: {error}") from error


def _messages(value: Any, where: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise DataError(f"{where} must be a list of messages with 'role' and 'content', and not empty")
    messages = []
    for turn in value:
        if not isinstance(turn, Mapping) or "role" not in turn or "content" not in turn:
            raise DataError(f"{where}: every message needs 'role' and 'content'")
        content = turn["content"]
        if not isinstance(content, str | None):
            raise DataError(f"{where}: 'content' must be text, not {type(content).__name__}")
        messages.append(Message(role=_text(turn["role"], where), content=content or ""))
    if not any(message.content.strip() for message in messages if message.role != "system"):
        raise DataError(f"{where} is empty")
    return tuple(messages)


def _text(value: Any, where: str) -> str:
    if value is None:
        raise DataError(f"{where} is null")
    if not isinstance(value, str):
        raise DataError(f"{where} must be text, not {type(value).__name__}")
    if not value.strip():
        raise DataError(f"{where} is empty")
    return value
