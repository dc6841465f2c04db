"""Drops prompts that are longer than training will take."""

from collections.abc import Sequence
from typing import Any

from jobs.curate.draft import Draft
from jobs.curate.pipeline import DraftByDraft
from prime.data.actions import prompt_of
from prime.data.prompts import encode_prompt


class Lengths(DraftByDraft):
    """The stage: counts the tokens of the prompt as it will be asked."""

    name = "lengths"

    def __init__(self, tokenizer: Any, fingerprint: str, *, max_prompt_tokens: int, with_actions: bool) -> None:
        self.depends_on: Any = [fingerprint, max_prompt_tokens, with_actions]
        self._tokenizer = tokenizer
        self._most = max_prompt_tokens
        self._with_actions = with_actions

    async def apply(self, drafts: Sequence[Draft]) -> list[Draft]:
        """Drop what is too long."""
        return [self._judge(draft) for draft in drafts]

    def _judge(self, draft: Draft) -> Draft:
        messages = prompt_of(draft.question, draft.ability, with_actions=self._with_actions)
        length = len(encode_prompt(self._tokenizer, messages))
        return draft.drop("prompt is too long").note(self.name, length) if length > self._most else draft
