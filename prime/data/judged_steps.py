"""Which steps of a response are right, where a task tells by the text alone: the yardstick of process rewards."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prime.data import chain


@dataclass(frozen=True, slots=True)
class JudgedStep:
    """Tokens [start, end) of a response: `JudgedStep(start=0, end=6, is_right=True)` for `3+5=8;`.

    The last token of a wrong step is the one with which it goes wrong.
    """

    start: int
    end: int
    is_right: bool


def judged_steps(
    prompt_ids: Sequence[int], text_of: Callable[[int], str], response_ids: Sequence[int]
) -> list[JudgedStep]:
    """The steps up to the first wrong one; what follows an error is neither right nor wrong. Empty for other tasks.

    Letters between steps (`chain.with_words`) belong to none.

    `text_of`: a token's text, see `prime.data.prompts.TokenTexts`.
    """
    # Asked of every response of every task, so most have to be told by one token.
    if not text_of(prompt_ids[-1]).endswith(chain.PROMPT_END):
        return []
    prompt = "".join(map(text_of, prompt_ids))
    if not chain.is_prompt(prompt):
        return []
    text = ""
    starts: dict[int, int] = {}
    ends: dict[int, int] = {}
    for number, piece in enumerate(map(text_of, response_ids)):
        if not piece.isalpha():
            starts[len(text)] = number
            text += piece
            ends[len(text)] = number + 1
    # A tokenizer whose tokens cross the bounds of steps has no tokens that are one step's.
    return [
        JudgedStep(starts[start], ends[end], is_right)
        for start, end, is_right in chain.judge_steps(prompt, text)
        if start in starts and end in ends
    ]
