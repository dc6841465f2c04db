"""Removes problems that are there already: the same text, or nearly the same (MinHash, then the true similarity).

Broder, "On the resemblance and containment of documents" (1997). The first of several stays. Two mathematics problems
that read alike are only the same when their numbers and their answers are: `3 + 4` is not `3 + 5`, and asking for the
product is not asking for the sum.
"""

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy
from numpy.typing import NDArray

from jobs.curate.draft import Draft
from jobs.curate.settings import DuplicateSettings
from jobs.grading import answer_item
from prime.ports import Verifier
from prime.types import VerdictStatus

_IGNORED = re.compile(r"[\s$]+|\\[,;!]|\\(?:left|right|quad|displaystyle)(?![a-zA-Z])")
_TOKEN = re.compile(r"\\[a-zA-Z]+|[a-z]+|\d+(?:\.\d+)?|[^\sa-z\d]", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SOLUTIONS_KEPT = 5  # of the problems that were the same


@dataclass(slots=True)
class _First:
    """The one that stays of those with one text."""

    origin: str
    answer: str
    ability: str
    solutions: list[str] = field(default_factory=list)
    """Of the others."""


def same_text(text: str) -> str:
    """What two texts share that differ in blanks, dollars and other matters of layout."""
    return _IGNORED.sub("", text.lower()).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")


def shingles(text: str, ngram: int) -> NDArray[numpy.uint32]:
    """Hashes of the word n-grams of a text, each once and sorted; a short text is one n-gram."""
    tokens = _TOKEN.findall(text.lower())
    grams = (" ".join(tokens[start : start + ngram]) for start in range(max(1, len(tokens) - ngram + 1)))
    return numpy.unique(numpy.fromiter((zlib.crc32(gram.encode()) for gram in grams), dtype=numpy.uint32))


def similarity(one: NDArray[numpy.uint32], other: NDArray[numpy.uint32]) -> float:
    """Jaccard: what both have over what either has."""
    both = numpy.intersect1d(one, other, assume_unique=True).size
    return float(both / (one.size + other.size - both))


class Duplicates:
    """The stage. `verifier` tells whether two answers of one text are equal; None: as they are written."""

    def __init__(self, settings: DuplicateSettings, *, verifier: Verifier | None, name: str = "duplicates") -> None:
        self.name = name
        self.depends_on: Any = [settings.model_dump(), verifier is not None]
        self._settings = settings
        self._verifier = verifier
        self._out: dict[str, tuple[str, str]] = {}
        self._firsts: dict[str, _First] = {}

    async def begin(self, parts: Callable[[], Iterator[list[Draft]]]) -> None:
        """Find them all: which one is the first depends on everything before it."""
        self._out.clear()
        self._firsts = await self._same(parts)
        self._find_alike(parts)

    async def apply(self, drafts: Sequence[Draft]) -> list[Draft]:
        """Drop them, naming the one that stays; that one has their reference programs as well."""
        return [self._judge(draft) for draft in drafts]

    def _judge(self, draft: Draft) -> Draft:
        if draft.origin in self._out:
            reason, of = self._out[draft.origin]
            return draft.drop(reason).note(self.name, of)
        first = self._firsts.get(draft.origin)
        if first is not None and first.solutions:
            return replace(draft, solutions=(*draft.solutions, *first.solutions)[:_SOLUTIONS_KEPT])
        return draft

    async def _same(self, parts: Callable[[], Iterator[list[Draft]]]) -> dict[str, _First]:
        """By text alone. Where answers of one text differ, nobody knows which is right, and all of them go."""
        by_text: dict[bytes, _First] = {}
        disputed: dict[bytes, list[tuple[str, str]]] = {}
        for draft in (each for part in parts() for each in part):
            key = _digest(draft.ability + same_text(draft.question))
            first = by_text.setdefault(key, _First(draft.origin, same_text(draft.answer), draft.ability))
            if first.origin == draft.origin:
                continue
            self._out[draft.origin] = ("same problem", first.origin)
            if draft.ability == "code":
                first.solutions += draft.solutions[: _SOLUTIONS_KEPT - len(first.solutions)]
            elif same_text(draft.answer) != first.answer:
                disputed.setdefault(key, []).append((draft.origin, draft.answer))
        for key, others in disputed.items():
            if not await self._all_equal(by_text[key].answer, [answer for _, answer in others]):
                for origin in (by_text[key].origin, *(origin for origin, _ in others)):
                    self._out[origin] = ("answers contradict each other", by_text[key].origin)
        return {first.origin: first for first in by_text.values()}

    async def _all_equal(self, answer: str, others: Sequence[str]) -> bool:
        if self._verifier is None:
            return False
        items = [answer_item(other, answer, item_id=str(number)) for number, other in enumerate(others)]
        verdicts = await self._verifier.grade(items)
        return all(verdict.status is VerdictStatus.PASSED for verdict in verdicts)

    def _find_alike(self, parts: Callable[[], Iterator[list[Draft]]]) -> None:
        from datasketch import MinHash, MinHashLSH

        settings = self._settings
        index = MinHashLSH(threshold=settings.similarity, num_perm=settings.permutations)
        empty = MinHash(num_perm=settings.permutations, hashfunc=int)
        kept: dict[str, tuple[NDArray[numpy.uint32], bytes]] = {}
        for draft in (each for part in parts() for each in part):
            if draft.origin in self._out:
                continue
            grams, identity = shingles(draft.question, settings.ngram), _identity(draft)
            sketch = empty.copy()
            sketch.update_batch(grams.tolist())
            alike = (
                origin
                for origin in sorted(index.query(sketch))
                if kept[origin][1] == identity and similarity(kept[origin][0], grams) >= settings.similarity
            )
            of = next(alike, None)
            if of is not None:
                self._out[draft.origin] = ("nearly the same problem", of)
            else:
                index.insert(draft.origin, sketch, check_duplication=False)
                kept[draft.origin] = (grams, identity)


def _identity(draft: Draft) -> bytes:
    """What has to be equal besides the text."""
    if draft.ability == "code":
        return b"code"
    return _digest(" ".join([*_NUMBER.findall(draft.question), "=", same_text(draft.answer)]))


def _digest(text: str) -> bytes:
    import hashlib

    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()
