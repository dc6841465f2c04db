"""Finds the answer in what other clients send as one text: question and answer, rendered with special tokens.

A boundary is only taken where the PRM's own chat template has put one; nothing is guessed.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from prime.chat import plain_text
from prime.errors import EmptyInput, InvalidInput
from prime.scoring import Candidate, Prompt, ScorerInfo

_STEP_MARK = "<extra_0>"
"""With which clients of Qwen2.5-Math-PRM end every step. It is no part of the answer."""
_HINT = "send messages, or a question and an answer apart (/v1/prm/score, /score, /rerank)"


def split_text(text: str, info: ScorerInfo) -> tuple[Prompt, Candidate]:
    """A rendered conversation: its last answer, and all before it.

    Raises:
        InvalidInput: the PRM's chat template opens no answer in it, nor is what it begins with known as a prompt.
    """
    pattern = info.config.prompt_pattern
    if pattern and not info.generation_prompt:
        prompt = re.match(pattern, text)
        if prompt is None:
            raise InvalidInput(f"the text does not begin with a prompt ({pattern!r} in prm_config.json); {_HINT}")
        return Prompt(text=prompt[0], rendered=True), _answer(_closed(text[prompt.end() :], info), info)
    opening = _opening(info)
    before, found, answer = text.rpartition(opening)
    if not found:
        raise InvalidInput(f"the text holds no {opening!r}, so where the answer begins is not known; {_HINT}")
    return Prompt(text=before + found, rendered=True), _answer(_closed(answer, info), info)


def split_ids(ids: Sequence[int], info: ScorerInfo) -> tuple[Prompt, Candidate]:
    """A conversation as token ids: its last answer, and all before it.

    Raises:
        InvalidInput: the PRM's chat template opens no answer in it.
    """
    _opening(info)
    opening = list(info.generation_prompt_ids)
    for start in range(len(ids) - len(opening), -1, -1):
        if list(ids[start : start + len(opening)]) == opening:
            end = start + len(opening)
            return Prompt(token_ids=tuple(ids[:end])), Candidate(token_ids=tuple(ids[end:]))
    raise InvalidInput(f"the ids hold no {info.generation_prompt!r}, so where the answer begins is not known; {_HINT}")


def split_messages(messages: Sequence[Mapping[str, Any]], info: ScorerInfo) -> tuple[Prompt, Candidate]:
    """A conversation that ends with an answer.

    Raises:
        InvalidInput: its last message is not the assistant's, or has no text.
        EmptyInput: there is nothing before the answer.
    """
    *before, last = messages or [{}]
    answer = plain_text(last.get("content"))
    if last.get("role") != "assistant" or not answer:
        raise InvalidInput("the last message must be the assistant's answer, as text: it is what is scored")
    if not before:
        raise EmptyInput("there is no question before the answer")
    return Prompt(messages=tuple(before)), _answer(answer, info)


def _answer(text: str, info: ScorerInfo) -> Candidate:
    """An answer, with its steps where they are marked."""
    # A PRM's own marks are found when the answer is encoded.
    if _STEP_MARK not in text or info.config.step_mark == _STEP_MARK:
        return Candidate(text=text)
    *steps, rest = text.split(_STEP_MARK)
    return Candidate(steps=tuple(step for step in (*steps, rest) if step.strip()))


def is_rendered(text: str, info: ScorerInfo) -> bool:
    """Whether a prompt ends where the PRM's chat template would have the answer begin."""
    return bool(info.generation_prompt) and text.endswith(info.generation_prompt)


def _opening(info: ScorerInfo) -> str:
    if not info.generation_prompt:
        raise InvalidInput(
            f"this PRM's tokenizer has no chat template that opens an answer, so in one text none can be found; {_HINT}"
        )
    return info.generation_prompt


def _closed(answer: str, info: ScorerInfo) -> str:
    """Without what templates write after the end token: a line break that nobody sampled."""
    bare = answer.rstrip()
    return bare if bare.endswith(info.end_text) else answer
