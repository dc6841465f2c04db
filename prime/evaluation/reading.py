"""From a set's file to problems, and to the messages in which they are asked."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from prime.data.actions import prompt_of
from prime.data.problems import load_problems, read_rows
from prime.errors import DataError, SettingsError
from prime.evaluation.sets import EvaluationSet, find_set
from prime.types import Problem

PromptStyle = Literal["plain", "actions"]
"""`plain`: the problem, and in which form to answer. `actions`: after the system prompt of the seven actions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSet:
    """A set: `ProblemSet(name="gsm8k", title="GSM8K", problems=(...), sha256="3730...", num_rows=1319)`."""

    name: str
    title: str
    problems: tuple[Problem, ...]
    sha256: str
    """Of the file."""
    num_rows: int
    """Of the whole set, where `problems` are its first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedSet:
    """A set, and how often each of its problems is asked: `AskedSet(problems=ProblemSet(...), samples=4)`."""

    problems: ProblemSet
    samples: int


def open_sets(
    given: Sequence[str], folder: Path, *, samples: int, style: PromptStyle = "plain", limit: int = 0
) -> list[AskedSet]:
    """Sets as people name them: `gsm8k`, `math500:4` (asked four times), `mine=problems.jsonl:8`.

    `samples`: how often, where nothing else is said.

    Raises:
        SettingsError: a name is not known, is given twice, or its number of samples is none.
        DataError: a file cannot be read.
    """
    asked: dict[str, AskedSet] = {}
    for each in given:
        name, number = _name_and_samples(each, samples)
        problems = open_set(name, folder, style=style, limit=limit)
        if problems.name in asked:
            raise SettingsError(f"the set {problems.name} is given twice")
        asked[problems.name] = AskedSet(problems=problems, samples=number)
    return list(asked.values())


def _name_and_samples(given: str, default: int) -> tuple[str, int]:
    name, separator, number = given.rpartition(":")
    if not separator or not number.isdigit():
        return given, default
    if int(number) < 1:
        raise SettingsError(f"{given}: a problem is asked once or more often")
    return name, int(number)


def open_set(name: str, folder: Path, *, style: PromptStyle = "plain", limit: int = 0) -> ProblemSet:
    """A known set from its file in `folder`, or `NAME=FILE` with a file in the schema of Eurus-2-RL-Data.

    `limit`: the first problems alone; 0: all.

    Raises:
        SettingsError: no set has that name, it is not for policies, or its file is not in the folder.
        DataError: the file is not the one that is known by its digest, or a row cannot be read.
    """
    own_name, is_own, own_file = name.partition("=")
    if is_own:
        path = Path(own_file)
        if not path.exists() and "/" not in own_file:
            raise SettingsError(
                f"{name}: {own_file!r} is no file here, and {own_name!r} no setting of an evaluation; give NAME=FILE, "
                f"NAME=ORG/DATASET, or a setting from docs/settings.md, e.g. rollout.threads=1"
            )
        # Two files may name their problems alike.
        problems = [
            replace(each, problem_id=f"{own_name}-{number}") for number, each in enumerate(load_problems(own_file), 1)
        ]
        title, digest = own_name, digest_of(path) if path.is_file() else ""
    else:
        known = find_set(name)
        if known.ability == "process":
            raise SettingsError(
                f"{name} holds labelled steps for a PRM, not problems for a policy: "
                f"`primectl evaluate-prm --process-bench {folder / known.file}`"
            )
        path = folder / known.file
        if not path.is_file():
            raise SettingsError(f"{path} does not exist; `primectl fetch-set {name} --data {folder}` gets it")
        digest = check_digest(known, path)
        problems, title = read_set(known, path, style), known.title
    return ProblemSet(
        name=own_name,
        title=title,
        problems=tuple(problems[:limit] if limit else problems),
        sha256=digest,
        num_rows=len(problems),
    )


def read_set(known: EvaluationSet, path: Path, style: PromptStyle = "plain") -> list[Problem]:
    """All problems of a set's file.

    Raises:
        DataError: a row cannot be read, or none belongs to the set.
    """
    problems = []
    for number, row in enumerate(read_rows(path), start=1):
        where = f"{path}, row {number}"
        if isinstance(row, str):
            raise DataError(row)
        try:
            question = known.read(row)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{where}: not a row of {known.title}: {error}") from None
        if question is not None:
            problems.append(
                Problem(
                    problem_id=f"{known.name}-{number}",
                    data_source=known.name,
                    ability=known.ability,
                    messages=prompt_of(question.text, known.ability, with_actions=style == "actions"),
                    ground_truth=question.ground_truth,
                )
            )
    if not problems:
        raise DataError(f"{path} holds no problem of {known.title}")
    return problems


def check_digest(known: EvaluationSet, path: Path) -> str:
    """SHA-256 of a set's file.

    Raises:
        DataError: it is not the one that the set is known by.
    """
    found = digest_of(path)
    if known.sha256 and found != known.sha256:
        raise DataError(
            f"{path} is not the file that {known.title} is known by: its SHA-256 begins with {found[:12]}, not "
            f"{known.sha256[:12]}. Delete it and run `primectl fetch-set {known.name}`; a file of your own is given as "
            "NAME=FILE"
        )
    return found


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
