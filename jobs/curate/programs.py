"""Runs reference programs in the verifier: a problem whose own solution fails cannot reward anybody.

Dropped is what no reference solution passes, and what a program passes that solves nothing: one that does nothing, and
one that always prints what is expected most often. Marked is what needs a checker: its text says that several outputs
are right, or one accepted solution passes all tests and another prints something else.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from jobs.curate.draft import Draft
from jobs.curate.pipeline import DraftByDraft
from jobs.curate.settings import CodeSettings
from prime.ports import Verifier
from prime.types import GradeItem, Verdict, VerdictStatus

NAME = "programs"

_SEVERAL_ARE_RIGHT = re.compile(
    r"\b(?:print|output|return|find|give)\b[^.\n]{0,60}\bany\b"
    r"[^.\n]{0,40}\b(?:of them|one|solution|answer|valid|possible)"
    r"|\bif there (?:are|is|exist)[^.\n]{0,20} (?:multiple|several|more than one)\b[^.\n]{0,60}\b(?:any|either)\b"
    r"|\bany (?:valid|correct|suitable) (?:answer|solution|output)\b"
    r"|\bmultiple (?:answers|solutions) (?:are )?(?:possible|accepted)",
    re.IGNORECASE,
)


def says_several_are_right(question: str) -> bool:
    """Whether the statement allows more than one output."""
    return _SEVERAL_ARE_RIGHT.search(question) is not None


def stubs_for(tests: dict[str, Any]) -> list[str]:
    """Programs that solve nothing: one does nothing, one always gives the most frequent output."""
    expected, _ = Counter(json.dumps(each) for each in tests["outputs"]).most_common(1)[0]
    constant = json.loads(expected)
    if tests.get("fn_name"):
        name = tests["fn_name"]
        programs = [f"def {name}(*arguments):\n    return {value!r}" for value in (None, constant)]
    else:
        programs = ["pass", f"print({constant!r}, end='')"]
    return [f"```python\n{program}\n```" for program in programs]


class Programs(DraftByDraft):
    """The stage; mathematics passes."""

    name = NAME

    def __init__(self, settings: CodeSettings, verifier: Verifier) -> None:
        self.depends_on: Any = settings.model_dump()
        self._settings = settings
        self._verifier = verifier

    async def apply(self, drafts: Sequence[Draft]) -> list[Draft]:
        """By what their programs do."""
        return list(await asyncio.gather(*map(self._judge, drafts)))

    async def _judge(self, draft: Draft) -> Draft:
        if draft.ability != "code":
            return draft
        several = says_several_are_right(draft.question)
        if several and self._settings.needs_checker == "drop":
            return draft.drop("needs a checker").note(NAME, {"needs_checker": "its text says so"})
        tests = json.loads(draft.answer)
        found: dict[str, Any] = {"tests": len(tests["inputs"]), "needs_checker": "its text says so" if several else ""}
        if not self._settings.run:
            return draft.note(NAME, found)
        if not draft.solutions:
            # Eurus-2-RL-Data has none; whether its tests are right is not ours to know.
            stub = await self._first_passing(draft, stubs_for(tests))
            return (
                draft.drop("solved by a stub") if stub is not None else draft.note(NAME, {**found, "solution": "none"})
            )
        verdicts = await self._grade(draft, draft.solutions[: self._settings.solutions_tried])
        passed = sum(verdict.status is VerdictStatus.PASSED for verdict in verdicts)
        found |= {"solutions": len(verdicts), "passed": passed, "reasons": sorted({each.reason for each in verdicts})}
        if not passed:
            return draft.drop("own solution fails").note(NAME, found)
        if await self._first_passing(draft, stubs_for(tests)) is not None:
            return draft.drop("solved by a stub").note(NAME, found)
        if any(verdict.reason.startswith("wrong_output") for verdict in verdicts):
            found["needs_checker"] = "accepted solutions disagree"
            if self._settings.needs_checker == "drop":
                return draft.drop("needs a checker").note(NAME, found)
        return draft.note(NAME, found)

    async def _first_passing(self, draft: Draft, programs: Sequence[str]) -> int | None:
        verdicts = await self._grade(draft, programs)
        passing = (number for number, each in enumerate(verdicts) if each.status is VerdictStatus.PASSED)
        return next(passing, None)

    async def _grade(self, draft: Draft, programs: Sequence[str]) -> list[Verdict]:
        tests = {**json.loads(draft.answer)}
        if not tests.get("fn_name"):
            tests["language"] = "any"
        items = [
            GradeItem(
                item_id=f"{draft.origin}/{number}",
                data_source=draft.source,
                ability="code",
                kind="code",
                response=program,
                ground_truth=json.dumps(tests),
                binary=True,
            )
            for number, program in enumerate(programs)
        ]
        return await self._verifier.grade(items)
