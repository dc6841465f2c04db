"""Episodes as tokens and as text: what an environment says goes to the model, and what it did to the verifier."""

import json
from typing import Any

from prime.data.prompts import response_text
from prime.errors import DataError
from prime.types import Sample

_MARK = "\u241eturn\u241e"
"""Stands for a turn of the model while its surroundings are looked for; no template changes it."""


def encode_observation(tokenizer: Any, text: str) -> tuple[int, ...]:
    """What follows a turn of the model that ended with its end token, when the world answers `text`.

    By the chat template, everything between the model's turn and its next one: the end of this turn where the template
    has more there than the end token, the answer as a user's message, and the opening of the next turn. Without a
    template the text between blank lines.

    Raises:
        DataError: the template leaves turns of the model out, so nobody can tell what follows one.
    """
    if not tokenizer.chat_template:
        return tuple(tokenizer(f"\n\n{text}\n\n", add_special_tokens=False)["input_ids"])
    turns = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": _MARK},
        {"role": "user", "content": text},
    ]
    whole = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    _, found, after = whole.partition(_MARK)
    if not found:
        raise DataError("the chat template does not show the assistant's turns, so it can play no episodes")
    after = after.removeprefix(tokenizer.eos_token)
    return tuple(tokenizer(after, add_special_tokens=False)["input_ids"])


def actions_of(tokenizer: Any, sample: Sample) -> str:
    """What the model wrote, turn by turn, as the JSON list that the verifier plays again."""
    return json.dumps([response_text(tokenizer, turn) for turn in sample.turns], ensure_ascii=False)
