"""The rules for mathematics: what is dropped unseen by any model, what is multiple choice, where the answer stands.

After the published stages 1 and 3 of PRIME's preprocessing, in their order: figure, proof, multiple choice, fill-in, no
answer. Two things are done otherwise, unless `published_rules` asks for them: a word counts where it stands alone
("improve" is no proof, "significant figures" are no figure), and an answer needs no digit.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jobs.curate.draft import Draft
from jobs.curate.pipeline import DraftByDraft
from jobs.curate.settings import MathSettings
from services.verifier.mathematics.extract import extract_answer

NAME = "maths"

_FIGURE = re.compile(
    r"(?<!significant )(?<!decimal )\bfigures?\b(?! out\b)|\b(?:diagram|picture|graph) (?:below|above|shown)\b"
    r"|\[asy\]|\\includegraphics|!\[[^\]]*\]\(",
    re.IGNORECASE,
)
_PROOF = re.compile(r"\b(?:prove|proof|disprove)\b|\bshow that\b", re.IGNORECASE)
_FILL_IN = re.compile(r"\\underline|_{2,}")


def multiple_choice(question: str) -> bool:
    """Whether A, B and C are all offered, each as `A.`, `A:` or `(A)`."""
    return all(re.search(rf"\({letter}\)|(?<![A-Za-z]){letter}[.:]", question) for letter in "ABC")


def why_out(question: str, *, published: bool) -> str:
    """The first rule by which a question is dropped; empty when none does. Multiple choice is another matter."""
    if published:
        lower = question.lower()
        figure, proof = "figure" in lower, "prove" in lower or "show that" in lower
        fill_in = "\\underline" in question
    else:
        figure, proof = _FIGURE.search(question) is not None, _PROOF.search(question) is not None
        fill_in = _FILL_IN.search(question) is not None
    if figure:
        return "figure"
    if proof:
        return "proof"
    return "fill-in" if fill_in and not multiple_choice(question) else ""


def final_answer(solution: str, settings: MathSettings) -> str:
    """What stands in the last box; empty when there is none, or none that can be used."""
    answer = (extract_answer(solution) or "").strip()
    if len(answer) > settings.longest_answer:
        return ""
    return "" if settings.published_rules and not any(map(str.isdigit, answer)) else answer


class MathRules(DraftByDraft):
    """The stage: drops, extracts answers, and notes `choice` or `open`."""

    name = NAME

    def __init__(self, settings: MathSettings) -> None:
        self._settings = settings
        self.depends_on: Any = [settings.published_rules, settings.longest_answer]

    async def apply(self, drafts: Sequence[Draft]) -> list[Draft]:
        """By the rules; code passes."""
        return [self._judge(draft) if draft.ability == "math" else draft for draft in drafts]

    def _judge(self, draft: Draft) -> Draft:
        reason = why_out(draft.question, published=self._settings.published_rules)
        if reason:
            return draft.drop(reason)
        answer = draft.answer or final_answer("\n".join(draft.solutions), self._settings)
        if multiple_choice(draft.question):
            # Its answer may be a letter: whatever stands in the box is needed to check the rewriting.
            boxed = draft.answer or (extract_answer("\n".join(draft.solutions)) or "").strip()
            return replace(draft, answer=boxed).note(NAME, "choice") if boxed else draft.drop("no answer")
        if not answer:
            return draft.drop("no answer")
        return replace(draft, answer=answer).note(NAME, "open")
