"""The demo task `chain`: add the digits of a list modulo 10, one step at a time.

`3+5+8=` is answered `3+5=8;8+8=6#6`. The SFT data carries wrong steps on purpose, so the policy that comes out is
capable but careless: with n digits and a share e of wrong steps it is right on about (1 - e)^(n - 1) of the chains.
"""

import random
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from prime.data.tiny import write_untrained_model
from prime.scoring import PrmConfig
from prime.types import Message, Problem

DATA_SOURCE = "chain"
_PAD, _END = "<pad>", "<end>"
_CHARACTERS = "0123456789+=;#"
LETTERS = "abcdefgh"
"""Of words, which mean nothing."""
PROMPT_END = "="
_PROMPT = re.compile(rf"\d(\+\d)+{PROMPT_END}")
READING = PrmConfig(separators=(";", "#"), prompt_pattern=_PROMPT.pattern)
"""How a PRM of the task is read: a step per sum, and the answer."""
_CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def solve(digits: list[int], random_source: random.Random, *, wrong_share: float) -> str:
    """The answer to a chain, each step replaced by a wrong digit with probability `wrong_share`.

    Example: `solve([3, 5, 8], ..., wrong_share=0.0)` is `"3+5=8;8+8=6#6"`.
    """

    def careless(_: int, total: int, digit: int) -> int:
        result = (total + digit) % 10
        if random_source.random() < wrong_share:
            result = (result + random_source.randint(1, 9)) % 10
        return result

    return written(digits, careless)


def written(digits: list[int], result_of: Callable[[int, int, int], int]) -> str:
    """The answer of whoever takes `result_of(digit before, sum so far, digit to add)` for the result of a step."""
    total, steps = digits[0], []
    for before, digit in pairwise(digits):
        result = result_of(before, total, digit)
        steps.append(f"{total}+{digit}={result}")
        total = result
    return ";".join(steps) + f"#{total}"


def is_prompt(text: str) -> bool:
    """Whether this is a prompt of the task."""
    return _PROMPT.fullmatch(text) is not None


def judge_steps(prompt: str, response: str) -> list[tuple[int, int, bool]]:
    """First and end character of each step, and whether it is right, up to the first wrong one.

    A step ends with its `;`, the last one with its result, and a wrong one with its first wrong character; the answer
    after `#` is no step. Nothing can be right after an error, since the task has one way.

    Example: of `3+5+8=` and `3+5=8;8+8=7#7`, (0, 6, True) and (6, 11, False).
    """
    digits = [int(digit) for digit in prompt[:-1].split("+")]
    steps, start, total = [], 0, digits[0]
    for number, digit in enumerate(digits[1:], start=1):
        result = (total + digit) % 10
        expected = f"{total}+{digit}={result}" + (";" if number < len(digits) - 1 else "")
        written = response[start : start + len(expected)]
        if not written:
            break
        if written != expected:
            differing = (place for place, pair in enumerate(zip(written, expected, strict=False)) if pair[0] != pair[1])
            steps.append((start, start + next(differing, len(written) - 1) + 1, False))
            break
        steps.append((start, start + len(expected), True))
        start, total = start + len(expected), result
    return steps


def draw_chains(count: int, *, length: int, seed: int, exclude: frozenset[str] = frozenset()) -> list[list[int]]:
    """`count` different chains of `length` digits, none of whose prompts is in `exclude`.

    Raises:
        ValueError: there may not be so many.
    """
    if count + len(exclude) > 10**length:
        raise ValueError(f"{count} chains of {length} digits beside {len(exclude)} others: there are {10**length}")
    random_source = random.Random(seed)
    seen = set(exclude)
    chains: list[list[int]] = []
    while len(chains) < count:
        digits = [random_source.randint(0, 9) for _ in range(length)]
        if prompt_of(digits) not in seen:
            seen.add(prompt_of(digits))
            chains.append(digits)
    return chains


def prompt_of(digits: list[int]) -> str:
    """`[3, 5, 8]` to `"3+5+8="`."""
    return "+".join(map(str, digits)) + PROMPT_END


def problem_of(digits: list[int]) -> Problem:
    """A chain as a problem; its answer is checked exactly."""
    prompt = prompt_of(digits)
    return Problem(
        problem_id=f"chain-{prompt[:-1].replace('+', '')}",
        data_source=DATA_SOURCE,
        ability="math",
        messages=(Message(role="user", content=prompt),),
        ground_truth=str(sum(digits) % 10),
    )


def sft_texts(*, length: int, seed: int, wrong_share: float) -> Iterator[tuple[str, str]]:
    """An endless stream of (prompt, careless answer)."""
    random_source = random.Random(seed)
    while True:
        digits = [random_source.randint(0, 9) for _ in range(length)]
        yield prompt_of(digits), solve(digits, random_source, wrong_share=wrong_share)


def with_words(texts: Iterator[tuple[str, str]], *, length: int, seed: int) -> Iterator[tuple[str, str]]:
    """The same answers with `length` letters after every step but the last: any letters will do.

    Example: `3+5=8;cab8+8=6#6`. So an answer has many tokens that could as well be others, as text has.
    """
    draw = random.Random(seed)
    for prompt, response in texts:
        yield prompt, re.sub(";", lambda _: ";" + "".join(draw.choices(LETTERS, k=length)), response)


def build_tokenizer(*, letters: str = "") -> PreTrainedTokenizerFast:
    """One token per character of the task, and per letter of `with_words` where they are given; an end and padding."""
    vocabulary = {token: number for number, token in enumerate([_PAD, _END, *_CHARACTERS, *letters])}
    rules = Tokenizer(models.WordLevel(vocabulary, unk_token=_PAD))
    rules.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    rules.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=rules, eos_token=_END, pad_token=_PAD, chat_template=_CHAT_TEMPLATE)


def write_fresh_model(
    folder: Path, *, seed: int, hidden: int = 128, layers: int = 2, heads: int = 4, letters: str = ""
) -> None:
    """A randomly initialised Llama of about 0.4 M parameters with the task's tokenizer, as a Hugging Face folder."""
    write_untrained_model(
        folder,
        build_tokenizer(letters=letters),
        seed=seed,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=512,
        initializer_range=hidden**-0.5,
        tie_word_embeddings=False,
    )
