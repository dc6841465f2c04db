"""Turns multiple choice into open questions with a model, and checks what it wrote.

After PRIME's stage 2. Its retry loop took texts from the list of all questions instead of those to be asked again, so
some questions got the rewriting of another; here every question has its own coroutine, and its own attempts.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jobs.curate.draft import Draft
from jobs.curate.maths import NAME as RULES
from jobs.curate.maths import multiple_choice, why_out
from jobs.curate.pipeline import DraftByDraft
from jobs.curate.settings import MathSettings
from jobs.grading import answer_item
from prime.ports import ChatModel, Verifier
from prime.types import VerdictStatus
from services.verifier.mathematics.extract import extract_answer

NAME = "choices"

_NEEDS_ITS_OPTIONS = re.compile(r"following|statement", re.IGNORECASE)
_OPTION_WORDS = re.compile(r"\b(?:options?|choices?|alternatives?)\b", re.IGNORECASE)
_MARK = re.compile(r"\(?\b([A-H])\)|(?<![A-Za-z])([A-H])[.:]")
_WRAPPER = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mathit|textit|textrm)\s*\{([^{}]*)\}")
_LETTER = re.compile(r"\(?([A-H])\)?[.:]?")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_REPLY = re.compile(
    r"REMOVABLE:\s*(?P<removable>yes|no)\b(?:.*?QUESTION:\s*(?P<question>.+?)\s*ANSWER:\s*(?P<answer>.+))?",
    re.IGNORECASE | re.DOTALL,
)

PROMPT = """\
Below is a multiple-choice question with its solution. Decide whether it can be asked without its options: whether
somebody who never sees them could still find the one answer. If it asks to pick among the options (which is largest,
which is true), it cannot. When in doubt, say no.

Reply in exactly this form, and with nothing else. If it cannot:

REMOVABLE: no

If it can, write the question anew without the options and without any mention of them. Change nothing else: keep every
number, name and condition. Then give the answer itself instead of its letter:

REMOVABLE: yes
QUESTION: the question
ANSWER: \\boxed{the answer}

The question:

"""


def options_of(question: str) -> tuple[str, dict[str, str]]:
    """The question without its options, and the options by their letters. The last A, B, C in a row begin them.

    Example: `"What is 1+1? (A) 1 (B) 2 (C) 3"` is `("What is 1+1?", {"A": "1", "B": "2", "C": "3"})`.
    """
    marks = [(match.group(1) or match.group(2), match.start(), match.end()) for match in _MARK.finditer(question)]
    starts = [
        place
        for place in range(len(marks) - 2)
        if [letter for letter, _, _ in marks[place : place + 3]] == ["A", "B", "C"]
    ]
    if not starts:
        return question.strip(), {}
    first = starts[-1]
    found: dict[str, str] = {}
    for place in range(first, len(marks)):
        letter, _, end = marks[place]
        if letter != "ABCDEFGH"[len(found) : len(found) + 1]:
            break
        until = marks[place + 1][1] if place + 1 < len(marks) else len(question)
        found[letter] = _clean(question[end:until])
    stem = question[: marks[first][1]]
    return re.sub(r"[\s$({]*(?:\\(?:text|textbf|mathrm|mathbf)\s*\{\s*)?\(?$", "", stem).strip(), found


def _clean(option: str) -> str:
    text = re.sub(
        r"^(?:[}\s~:]|\\[\s,;!])+|(?:\\(?:qquad|quad|text|textbf|mathrm|mathbf|\\)\s*\{?|[\s,;{(\\])+$", "", option
    )
    # Of a dollar that opens around all options, one half is left.
    return text.replace("$", "").strip() if text.count("$") % 2 else text.strip()


def letter_of(answer: str) -> str:
    """The letter that an answer consists of; empty for any other answer."""
    bare = _WRAPPER.sub(r"\1", answer).replace("$", "").strip()
    match = _LETTER.fullmatch(bare)
    return match.group(1) if match else ""


class Choices(DraftByDraft):
    """The stage. `model` None: multiple choice is dropped."""

    name = NAME

    def __init__(self, settings: MathSettings, model: ChatModel | None, verifier: Verifier) -> None:
        rewrite = settings.rewrite
        self.depends_on: Any = [
            rewrite.model_dump(include={"url", "model", "temperature", "top_p", "max_tokens"}) if rewrite else None,
            settings.rewrite_attempts,
            settings.published_rules,
            PROMPT,
        ]
        self._settings = settings
        self._model = model
        self._verifier = verifier

    async def apply(self, drafts: Sequence[Draft]) -> list[Draft]:
        """Rewrite what is multiple choice."""
        return list(await asyncio.gather(*map(self._judge, drafts)))

    async def _judge(self, draft: Draft) -> Draft:
        if draft.notes.get(RULES) != "choice":
            return draft
        if _NEEDS_ITS_OPTIONS.search(draft.question):
            return draft.drop("asks about its options")
        if self._model is None:
            return draft.drop("multiple choice, and nobody to rewrite it")
        stem, options = options_of(draft.question)
        letter = letter_of(draft.answer)
        right = options.get(letter, "") if letter else draft.answer
        if not right or not options:
            return draft.drop("right option is not known")
        solution = draft.solutions[0] if draft.solutions else f"The answer is {draft.answer}."
        messages = [{"role": "user", "content": f"{PROMPT}{draft.question}\n\nIts solution:\n\n{solution}"}]
        fault = ""
        for attempt in range(self._settings.rewrite_attempts):
            reply = _REPLY.search(await self._model.ask(messages, attempt=attempt))
            if reply is not None and reply.group("removable").lower() == "no":
                return draft.drop("options cannot be removed").note(NAME, {"attempts": attempt + 1})
            question, answer = (
                (reply.group("question"), extract_answer(reply.group("answer") or "")) if reply else ("", "")
            )
            fault = await self._fault(stem, right, question or "", (answer or "").strip())
            if not fault and question:
                noted = draft.note(NAME, {"attempts": attempt + 1, "was": draft.question, "letter": letter})
                # Graded against the option as the source has it, not as the model writes it.
                return replace(noted, question=question.strip(), answer=right)
        return draft.drop("rewriting failed its checks").note(NAME, {"fault": fault})

    async def _fault(self, stem: str, right: str, question: str, answer: str) -> str:
        """What is wrong with a rewriting; empty when nothing is."""
        if not question.strip() or not answer:
            return "not in the form that was asked for"
        if multiple_choice(question) or _OPTION_WORDS.search(question):
            return "still speaks of options"
        missing = Counter(_NUMBER.findall(stem)) - Counter(_NUMBER.findall(question))
        if missing:
            return f"the number {next(iter(missing))} is gone"
        reason = why_out(question, published=self._settings.published_rules)
        if reason:
            return f"is now a {reason}"
        (verdict,) = await self._verifier.grade([answer_item(answer, right, item_id="rewrite")])
        return "" if verdict.status is VerdictStatus.PASSED else "its answer is not the right option"
