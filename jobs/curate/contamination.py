"""Keeps problems of evaluation sets out: by the share of an evaluation problem's word n-grams that a problem holds."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.curate.draft import Draft
from jobs.curate.pipeline import DraftByDraft
from jobs.curate.settings import ContaminationSettings
from jobs.curate.sources import streamed_rows
from prime.data.actions import strip_format_request
from prime.data.problems import FILE_ENDINGS, read_rows
from prime.errors import DataError

NAME = "contamination"
_TOKEN = re.compile(r"\\[a-z]+|[a-z]+|\d+")
_BOILERPLATE = 20
"""An n-gram in more evaluation problems than that tells nothing: "find the remainder when it is divided by"."""
_COLUMNS = ("problem", "question", "prompt", "question_content", "description")


def words_of(text: str) -> list[str]:
    """Lower-case words, numbers and commands; punctuation and layout are no words."""
    return _TOKEN.findall(text.lower())


def grams_of(text: str, ngram: int) -> set[str]:
    """Word n-grams; a shorter text has none."""
    words = words_of(text)
    return {" ".join(words[start : start + ngram]) for start in range(len(words) - ngram + 1)}


def read_evaluation_set(name: str, path: str) -> list[str]:
    """The texts of an evaluation set's problems.

    Raises:
        DataError: it is not there, is empty, or a row has no text; a hole here would let problems through.
    """
    place = Path(path)
    is_file = place.suffix in FILE_ENDINGS
    rows: Iterator[tuple[str, Mapping[str, Any] | str]] = (
        ((f"{path}, row {number}", row) for number, row in enumerate(read_rows(place), start=1))
        if is_file
        else streamed_rows(path)
    )
    texts = [_text_of(row, where) for where, row in rows]
    if not texts:
        raise DataError(f"evaluation set {name}: {path} is empty")
    return texts


def _text_of(row: Mapping[str, Any] | str, where: str) -> str:
    if isinstance(row, str):
        raise DataError(row)
    value: Any = next((row[column] for column in _COLUMNS if row.get(column)), None)
    if isinstance(value, Sequence) and not isinstance(value, str):
        users = [turn.get("content") for turn in value if isinstance(turn, Mapping) and turn.get("role") == "user"]
        value = strip_format_request(users[-1]) if users and isinstance(users[-1], str) else None
    if not isinstance(value, str) or not words_of(value):
        raise DataError(f"{where}: an evaluation problem needs its text in one of {', '.join(_COLUMNS)}")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """What a question shares with an evaluation problem: `Overlap(problem="math500 12", share=0.97)`."""

    problem: str
    share: float
    """Of the evaluation problem's n-grams that the question holds."""


class KnownProblems:
    """An index of evaluation problems by their word n-grams. `sets`: the texts of each set."""

    def __init__(self, settings: ContaminationSettings, sets: Mapping[str, Sequence[str]]) -> None:
        self._settings = settings
        texts_by_name = [
            (f"{name} {number}", text) for name, found in sets.items() for number, text in enumerate(found, 1)
        ]
        grams = [grams_of(text, settings.ngram) for _, text in texts_by_name]
        counts = Counter(gram for found in grams for gram in found)
        self._problems: list[tuple[str, int]] = []
        self._by_gram: dict[str, list[int]] = {}
        self._short: dict[str, str] = {}
        for (name, text), found in zip(texts_by_name, grams, strict=True):
            telling = {gram for gram in found if counts[gram] <= _BOILERPLATE}
            for gram in telling:
                self._by_gram.setdefault(gram, []).append(len(self._problems))
            self._problems.append((name, len(telling)))
            if not telling:
                self._short[" ".join(words_of(text))] = name

    def find(self, question: str) -> Overlap | None:
        """The evaluation problem that a question holds, if any."""
        found: Counter[int] = Counter()
        for gram in grams_of(question, self._settings.ngram):
            found.update(self._by_gram.get(gram, ()))
        for number, count in found.most_common():
            name, total = self._problems[number]
            if count >= self._settings.overlap * total:
                return Overlap(problem=name, share=round(count / total, 3))
        # One that has no n-gram of its own has to be the whole problem: "find x" is part of many.
        same = self._short.get(" ".join(words_of(question)))
        return Overlap(problem=same, share=1.0) if same else None


class Contamination(DraftByDraft):
    """The stage. `sets`: the texts of each evaluation set."""

    name = NAME

    def __init__(self, settings: ContaminationSettings, sets: Mapping[str, Sequence[str]]) -> None:
        self.depends_on: Any = [settings.model_dump(), {name: list(texts) for name, texts in sets.items()}]
        self._known = KnownProblems(settings, sets)

    async def apply(self, drafts: Sequence[Draft]) -> list[Draft]:
        """Drop what an evaluation set holds, and name its problem."""
        return [self._judge(draft) for draft in drafts]

    def _judge(self, draft: Draft) -> Draft:
        overlap = self._known.find(draft.question)
        return draft if overlap is None else draft.drop("in an evaluation set").note(NAME, asdict(overlap))
