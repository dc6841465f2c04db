"""Reads public corpora, each in its own schema, as drafts. A row that cannot be read is a draft that says why.

numina        AI-MO/NuminaMath-CoT                        source, problem, solution
apps          codeparrot/apps                             question, solutions, input_output (JSON texts), starter_code
codecontests  deepmind/code_contests                      description, public_tests, private_tests, solutions, ...
taco          BAAI/TACO                                   as apps
codeforces    MatrixStudio/Codeforces-Python-Submissions  a row per submission: test_cases, code, verdict, ...
eurus         PRIME-RL/Eurus-2-RL-Data                    the schema of `prime/data/problems.py`
rows          anything                                    by `columns`
"""

import glob
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.curate.draft import Draft
from jobs.curate.pipeline import Source
from jobs.curate.settings import CodeSettings, SourceSettings
from prime.data.actions import strip_format_request
from prime.data.problems import FILE_ENDINGS, dataset_rows, read_rows
from prime.errors import DataError, InvalidInput
from services.verifier.programs.code_tests import parse_code_tests

MALFORMED = "malformed row"
_PYTHON_3 = 3  # of CodeContests' languages
_CPP = 2
_ENDINGS = " or ".join(FILE_ENDINGS)
_MOST_SOLUTIONS = 20  # kept per problem; CodeContests has thousands for some


class _Skip(Exception):
    """A row that is sound and not wanted; carries the reason."""


def open_source(settings: SourceSettings, code: CodeSettings) -> Source:
    """What the pipeline reads first.

    Raises:
        DataError: the path is no file, folder or dataset.
    """
    name = settings.name or settings.kind
    files = _files(settings.path)
    stamps = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    tests = {"max_tests": code.max_tests, "max_test_bytes": code.max_test_bytes}
    return Source(
        name=name,
        depends_on=[settings.model_dump(mode="json"), stamps, tests],
        read=lambda: _drafts(settings, name, code, files),
    )


def _files(path: str) -> list[Path]:
    """Of a dataset's name, none."""
    place = Path(path)
    if glob.has_magic(path):
        found = sorted(map(Path, glob.glob(path, recursive=True)))
        if not found or any(file.suffix not in FILE_ENDINGS for file in found):
            raise DataError(f"source {path}: no file fits, or one that is no {_ENDINGS} file")
        return found
    if place.is_dir():
        # Beside the rows of a dataset lie .json files that describe it.
        found = sorted(file for file in place.rglob("*") if file.suffix in FILE_ENDINGS and file.suffix != ".json")
        if not found:
            raise DataError(f"source {path} is a folder without {_ENDINGS} files")
        return found
    if place.is_file() and place.suffix in FILE_ENDINGS:
        return [place]
    if place.exists():
        raise DataError(f"source {path} is no {_ENDINGS} file")
    if place.suffix in FILE_ENDINGS or not re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", path):
        raise DataError(f"source {path} does not exist, and is no dataset's name either")
    return []


def _drafts(settings: SourceSettings, name: str, code: CodeSettings, files: Sequence[Path]) -> Iterator[Draft]:
    rows = _file_rows(files, Path(settings.path)) if files else streamed_rows(settings.path)
    for where, row in itertools.islice(rows, settings.limit or None):
        yield _draft(f"{name}: {where}", row, settings, name, code)


def _file_rows(files: Sequence[Path], under: Path) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
    for file in files:
        where = file.relative_to(under) if under in file.parents else file.name
        for number, row in enumerate(read_rows(file), start=1):
            yield f"{where}, row {number}", row


def streamed_rows(source: str) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
    """The rows of a dataset, with where each stands."""
    for number, row in enumerate(dataset_rows(source, streaming=True), start=1):
        yield f"{source}, row {number}", row


def _draft(where: str, row: Mapping[str, Any] | str, settings: SourceSettings, name: str, code: CodeSettings) -> Draft:
    blank = Draft(origin=where, source=name, ability="", question="")
    if isinstance(row, str):
        return blank.drop(MALFORMED).note("read", row)
    try:
        return _READERS[settings.kind](row, blank, settings, code)
    except _Skip as reason:
        return blank.drop(str(reason))
    except InvalidInput as error:  # a DataError, or tests that the verifier would refuse
        return blank.drop(MALFORMED).note("read", f"{where}: {error}")


# ---------------------------------------------------------------- mathematics


def _numina(row: Mapping[str, Any], blank: Draft, settings: SourceSettings, code: CodeSettings) -> Draft:
    name = _text(row, "source")
    if name not in settings.sets:
        raise _Skip("another set")
    return _math(blank, f"{blank.source}_{name}", _text(row, "problem"), solution=_text(row, "solution"))


def _math(blank: Draft, source: str, question: str, *, solution: str = "", answer: str = "") -> Draft:
    return Draft(
        origin=blank.origin,
        source=source,
        ability="math",
        question=question.strip(),
        answer=answer.strip(),
        solutions=(solution,) if solution else (),
    )


def _eurus(row: Mapping[str, Any], blank: Draft, settings: SourceSettings, code: CodeSettings) -> Draft:
    if "instruction" in row:  # its older layout
        row = {
            "data_source": row.get("source"),
            "ability": {"Math": "math", "Coding": "code"}.get(_text(row, "task")),
            "prompt": [{"role": "user", "content": row["instruction"]}],
            "reward_model": {"ground_truth": row.get("reference")},
        }
    prompt = row.get("prompt")
    if not isinstance(prompt, Sequence) or isinstance(prompt, str):
        raise DataError("column 'prompt' must be a list of messages")
    turns = [turn.get("content") for turn in prompt if isinstance(turn, Mapping) and turn.get("role") == "user"]
    if len(turns) != 1 or not isinstance(turns[0], str):
        raise DataError("column 'prompt' must hold one user turn")
    reward_model = row.get("reward_model")
    truth = reward_model.get("ground_truth") if isinstance(reward_model, Mapping) else None
    if not isinstance(truth, str) or not truth.strip():
        raise DataError("column 'reward_model.ground_truth' is null or empty")
    question, source = strip_format_request(turns[0]), _text(row, "data_source")
    if _text(row, "ability") == "math":
        return _math(blank, source, question, answer=truth)
    return _code(blank, source, question, _json(truth, "reward_model.ground_truth"), (), code)


def _rows(row: Mapping[str, Any], blank: Draft, settings: SourceSettings, code: CodeSettings) -> Draft:
    columns = settings.columns
    assert columns is not None  # the settings see to it
    question, answer = _text(row, columns.question), row.get(columns.answer)
    solution = _text(row, columns.solution) if columns.solution else ""
    if columns.ability == "code":
        tests = _json(answer, columns.answer)
        return _code(blank, blank.source, question, tests, _blocks([solution] if solution else []), code)
    if not isinstance(answer, str | int | float) or isinstance(answer, bool) or not str(answer).strip():
        raise DataError(f"column {columns.answer!r} must be text or a number, and not empty")
    return _math(blank, blank.source, question, solution=solution, answer=str(answer))


# ---------------------------------------------------------------- programs


def _apps(row: Mapping[str, Any], blank: Draft, settings: SourceSettings, code: CodeSettings) -> Draft:
    if not row.get("input_output"):
        raise _Skip("no tests")
    tests = _json(row["input_output"], "input_output")
    solutions = _json(row["solutions"], "solutions") if row.get("solutions") else []
    if not isinstance(solutions, list) or not all(isinstance(each, str) for each in solutions):
        raise DataError("column 'solutions' must be a JSON list of programs")
    question, starter = _text(row, "question"), row.get("starter_code") or ""
    if isinstance(starter, str) and starter.strip():
        question = f"{question.rstrip()}\n\nBegin with:\n\n```python\n{starter.strip()}\n```"
    return _code(blank, blank.source, question, tests, _blocks(solutions), code)


def _codecontests(row: Mapping[str, Any], blank: Draft, settings: SourceSettings, code: CodeSettings) -> Draft:
    if row.get("input_file") or row.get("output_file"):
        raise _Skip("reads or writes files")
    inputs: list[Any] = []
    outputs: list[Any] = []
    for column in ("public_tests", "private_tests", "generated_tests"):
        part = row.get(column) or {}
        if not isinstance(part, Mapping):
            raise DataError(f"column {column!r} must hold the lists 'input' and 'output'")
        inputs += part.get("input") or []
        outputs += part.get("output") or []
    found = row.get("solutions") or {}
    pairs = list(zip(found.get("language") or [], found.get("solution") or [], strict=False))
    solutions = _blocks([text for language, text in pairs if language == _PYTHON_3])
    solutions += _blocks([text for language, text in pairs if language == _CPP], "cpp")
    tests: dict[str, Any] = {"inputs": inputs, "outputs": outputs}
    return _code(blank, blank.source, _text(row, "description"), tests, solutions, code)


def _codeforces(row: Mapping[str, Any], blank: Draft, settings: SourceSettings, code: CodeSettings) -> Draft:
    if _text(row, "verdict") != "OK":
        raise _Skip("submission was not accepted")
    parts = [_text(row, "problem-description")]
    for column, title in (("input-specification", "Input"), ("output-specification", "Output"), ("note", "Note")):
        if row.get(column):
            parts.append(f"{title}\n\n{_text(row, column)}")
    for number, (given, expected) in enumerate(
        zip(row.get("demo-input") or [], row.get("demo-output") or [], strict=False), start=1
    ):
        parts.insert(3, f"Example {number}\n\nInput\n\n{given}\n\nOutput\n\n{expected}")
    cases = row.get("test_cases")
    if not isinstance(cases, list) or not all(isinstance(case, Mapping) for case in cases):
        raise DataError("column 'test_cases' must be a list of objects with 'input' and 'output'")
    tests = {"inputs": [case.get("input") for case in cases], "outputs": [case.get("output") for case in cases]}
    solutions = _blocks([_text(row, "code")])
    return _code(blank, blank.source, "\n\n".join(parts), tests, solutions, code)


def _code(blank: Draft, source: str, question: str, tests: Any, solutions: Sequence[str], code: CodeSettings) -> Draft:
    return Draft(
        origin=blank.origin,
        source=source,
        ability="code",
        question=question.strip(),
        answer=normal_tests(tests, code),
        solutions=tuple(solutions[:_MOST_SOLUTIONS]),
    )


def normal_tests(tests: Any, settings: CodeSettings) -> str:
    """Tests in the one schema, as JSON text; without those that cannot be used, and without repetitions.

    Left out are tests that were cut off where they were collected (they end in dots), and those that are too large.

    Raises:
        DataError: it is no suite of tests.
        _Skip: none is left.
    """
    if not isinstance(tests, dict) or not all(isinstance(tests.get(key), list) for key in ("inputs", "outputs")):
        raise DataError("the tests must be an object with the lists 'inputs' and 'outputs'")
    if len(tests["inputs"]) != len(tests["outputs"]):
        raise DataError(f"there are {len(tests['inputs'])} inputs but {len(tests['outputs'])} outputs")
    is_call = bool(tests.get("fn_name"))
    kept: dict[str, tuple[Any, Any]] = {}
    for given, expected in zip(tests["inputs"], tests["outputs"], strict=True):
        if given is None or expected is None or _is_cut(given) or _is_cut(expected):
            continue
        if is_call and isinstance(expected, list) and len(expected) == 1 and _wraps(tests["outputs"]):
            expected = expected[0]  # APPS writes what a call returns as a list of one
        text = json.dumps([given, expected])
        if len(text) <= settings.max_test_bytes:
            kept.setdefault(text, (given, expected))
    pairs = list(kept.values())[: settings.max_tests]
    if not pairs:
        raise _Skip("no tests")
    normal: dict[str, Any] = {"inputs": [given for given, _ in pairs], "outputs": [expected for _, expected in pairs]}
    if is_call:
        normal["fn_name"] = tests["fn_name"]
    text = json.dumps(normal, ensure_ascii=False)
    parse_code_tests(text, settings.max_tests)
    return text


def _is_cut(value: Any) -> bool:
    return isinstance(value, str) and value.rstrip().endswith("...")


def _wraps(outputs: Sequence[Any]) -> bool:
    return all(isinstance(each, list) and len(each) == 1 for each in outputs)


def _blocks(programs: Sequence[str], language: str = "python") -> list[str]:
    """As the verifier reads answers: fenced."""
    return [f"```{language}\n{program.strip()}\n```" for program in programs if program.strip()]


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"column {column!r} {'is missing' if value is None else 'must be text, and not empty'}")
    return value


def _json(value: Any, column: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise DataError(f"column {column!r} is not JSON: {error}") from None


_READERS: Mapping[str, Callable[[Mapping[str, Any], Draft, SourceSettings, CodeSettings], Draft]] = {
    "numina": _numina,
    "apps": _apps,
    "codecontests": _codecontests,
    "taco": _apps,
    "codeforces": _codeforces,
    "eurus": _eurus,
    "rows": _rows,
}
