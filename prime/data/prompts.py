"""Turns a problem's messages into token ids, once; from then on ids travel and text is never encoded again."""

from collections.abc import Callable, Sequence
from typing import Any

from prime.errors import DataError
from prime.types import Message, Problem


def encode_prompt(tokenizer: Any, messages: Sequence[Message]) -> tuple[int, ...]:
    """Ids of the prompt, by the tokenizer's chat template where it has one, else of the contents joined by blank lines.

    Example: the demo's template writes the contents alone, so `3+5+8=` becomes one id per character.
    """
    if tokenizer.chat_template:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    text = "\n\n".join(message.content for message in messages)
    ids = tuple(tokenizer(text)["input_ids"])
    # Some tokenizers end every text with the end token, after which nothing is to be said.
    appended = ids[-1:] == (tokenizer.eos_token_id,) and not text.endswith(tokenizer.eos_token)
    return ids[:-1] if appended else ids


def response_text(tokenizer: Any, ids: Sequence[int]) -> str:
    """What was answered, without the special token at its end.

    Other special tokens stay: some models mark their answer by them.
    """
    ends = bool(ids) and ids[-1] in tokenizer.all_special_ids
    return str(tokenizer.decode(ids[:-1] if ends else ids))


def encode_prompts(
    tokenizer: Any, problems: Sequence[Problem], *, source: str, max_tokens: int, drop_long: bool
) -> list[tuple[Problem, tuple[int, ...]]]:
    """Problems with their prompt ids.

    Raises:
        DataError: a prompt encodes to nothing, is longer than `max_tokens` and may not be dropped, or none is left.
    """
    encoded = []
    for number, problem in enumerate(problems, start=1):
        ids = encode_prompt(tokenizer, problem.messages)
        if not ids:
            raise DataError(f"{source}, row {number}: the prompt of {problem.problem_id!r} encodes to no token")
        if len(ids) > max_tokens:
            if drop_long:
                continue
            raise DataError(
                f"{source}, row {number}: the prompt of {problem.problem_id!r} has {len(ids)} tokens, over "
                f"trainer.max_prompt_tokens = {max_tokens}; raise it, or set trainer.long_prompts = 'drop'"
            )
        encoded.append((problem, ids))
    if not encoded:
        raise DataError(f"{source}: no prompt has at most trainer.max_prompt_tokens = {max_tokens} tokens")
    return encoded


class TokenTexts:
    """The text of single tokens, each decoded once: `TokenTexts(tokenizer)(17)`."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}

    def __call__(self, token: int) -> str:
        """Of one token."""
        if token not in self._known:
            self._known[token] = str(self._tokenizer.decode([token]))
        return self._known[token]


def step_ends(ids: Sequence[int], text_of: Callable[[int], str], delimiter: str) -> list[int]:
    """Positions of the tokens with which a step ends: those that complete `delimiter` in the running text.

    `text_of`: a token's text, see `TokenTexts`.
    """
    ends, running = [], ""
    for position, token in enumerate(ids):
        running += text_of(token)
        if delimiter in running:
            ends.append(position)
            running = ""
        else:
            running = running[-len(delimiter) :]
    return ends
