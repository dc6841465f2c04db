"""Chains of dependent steps; with words that mean nothing; and with an answer that does not depend on the steps."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path

from benchmarks.experiment.family import Family
from jobs.sft import SftSettings, run_sft
from prime.data.chain import (
    LETTERS,
    draw_chains,
    problem_of,
    prompt_of,
    sft_texts,
    with_words,
    write_fresh_model,
    written,
)
from prime.data.problems import write_jsonl
from prime.types import Problem
from primectl.sft import write_sft_data

_SFT_BATCH = 128
_START = 0.3
"""Of the answers that the SFT policy has right."""
_HABIT = 0.5
"""How often a habit shows in its situation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """What a family of chains is: how its answers are written and which is right."""

    name: str
    steps: int
    answers: Callable[[Iterator[tuple[str, str]]], Iterator[tuple[str, str]]] = lambda texts: texts
    """Of the SFT policy, from careless chains."""
    problem: Callable[[list[int]], Problem] = problem_of
    word: int = 0
    """Letters after every step."""
    sft_steps: int = 400
    """Of the lesson with wrong answers."""

    @property
    def longest(self) -> int:
        """Characters of a right answer, with some room."""
        return (6 + self.word) * self.steps + 8


def chain(steps: int) -> Family:
    """Chains of so many dependent steps, from a policy that gets about 0.3 of them right."""
    return _family(_Kind(name="chain", steps=steps))


def wordy(steps: int) -> Family:
    """The same chains with four letters after every step that mean nothing: tokens to which no credit is due."""
    return _family(_Kind(name="wordy", steps=steps, word=4))


def control(steps: int) -> Family:
    """The same chains, and the answer is the first digit, whatever the steps say: a right step gains nothing."""
    return _family(_Kind(name="control", steps=steps, answers=_answered_by_chance, problem=_first_digit_problem))


def habits(steps: int) -> Family:
    """The same chains, from a policy that is wrong by habit: half of the time in some situations, never in others.

    A careless policy prefers every right step, so that being surer of what it prefers is all that it has to learn. This
    one has to change its mind, once for every situation.
    """
    return _family(
        _Kind(name="habits", steps=steps, answers=lambda texts: answered_by_habit(texts, steps=steps), sft_steps=600)
    )


def _first_digit_problem(digits: list[int]) -> Problem:
    return replace(problem_of(digits), ground_truth=str(digits[0]))


def answered_by_habit(texts: Iterator[tuple[str, str]], *, steps: int) -> Iterator[tuple[str, str]]:
    """Their answers anew: a situation is the digit before, the sum so far and the digit to add, and each bad one has a
    wrong result of its own.
    """
    draw = random.Random(7)
    share = (1.0 - _START ** (1.0 / steps)) / _HABIT
    results = {
        situation: (situation[1] + situation[2] + draw.randint(1, 9)) % 10
        for situation in product(range(10), repeat=3)
        if draw.random() < share
    }

    def by_habit(before: int, total: int, digit: int) -> int:
        result = (total + digit) % 10
        return results.get((before, total, digit), result) if draw.random() < _HABIT else result

    for prompt, _ in texts:
        yield prompt, written([int(digit) for digit in prompt[:-1].split("+")], by_habit)


def _answered_by_chance(texts: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Their answers are the first digit as often as a policy is right at the start, else any other one."""
    draw = random.Random(6)
    for prompt, response in texts:
        first = int(prompt[0])
        answer = first if draw.random() < _START else (first + draw.randint(1, 9)) % 10
        yield prompt, f"{response.partition('#')[0]}#{answer}"


def _family(kind: _Kind) -> Family:
    prompt = 2 * (kind.steps + 1)
    return Family(
        name=f"{kind.name}-{kind.steps}",
        write=lambda folder: _write(folder, kind),
        trainer={
            "prompts_per_step": 16,
            "samples_per_prompt": 4,
            "max_prompt_tokens": prompt,
            "sampling": {"max_tokens": kind.longest},
            "advantage": {"step_delimiter": ";"},
            # AdamW's first steps are as long as the rate allows, however small the gradient. Without these settings 3
            # of 8 runs of PRIME fell to chance at rates at which the others learnt (protocol.md, section 8).
            "optimiser": {
                "warmup_share": 0.2,
                "final_lr_share": 0.1,
                "betas": (0.9, 0.95),
                "grad_clip": 0.1,
                "threads": 1,
                "device": "cpu",
            },
        },
        prm={"threads": 1, "device": "cpu"},
        max_context=prompt + kind.longest,
    )


def _write(folder: Path, kind: _Kind) -> None:
    length = kind.steps + 1
    held_out = draw_chains(256, length=length, seed=1)
    excluded = frozenset(map(prompt_of, held_out))
    train = draw_chains(4096, length=length, seed=2, exclude=excluded)
    write_jsonl([kind.problem(digits) for digits in held_out], folder / "held_out.jsonl")
    write_jsonl([kind.problem(digits) for digits in train], folder / "problems.jsonl")
    write_fresh_model(folder / "fresh", seed=0, hidden=64, layers=2, heads=4, letters=LETTERS if kind.word else "")
    # Such that the chance of no wrong step is that of the start.
    careless = 1.0 - _START ** (1.0 / kind.steps)
    lessons: list[tuple[str, Iterator[tuple[str, str]], int]] = [
        ("sums", sft_texts(length=2, seed=3, wrong_share=0.0), 150),
        ("short", _of_mixed_lengths(length, seed=5), 900),
        ("sft", kind.answers(sft_texts(length=length, seed=4, wrong_share=careless)), kind.sft_steps),
    ]
    start = "fresh"
    for number, (name, texts, count) in enumerate(lessons):
        worded = with_words(texts, length=kind.word, seed=number) if kind.word else texts
        fitting = ((prompt, answer) for prompt, answer in worded if prompt not in excluded)
        write_sft_data(folder / f"{name}.jsonl", islice(fitting, count * _SFT_BATCH))
        run_sft(
            SftSettings(
                model=folder / start,
                data=folder / f"{name}.jsonl",
                output=folder / name,
                steps=count,
                batch_size=_SFT_BATCH,
                lr=3e-3,
                final_lr_share=0.05,
                token_budget=16384,
                device="cpu",
            ),
            lambda step: None,
        )
        (folder / f"{name}.jsonl").unlink()
        start = name


def _of_mixed_lengths(longest: int, *, seed: int) -> Iterator[tuple[str, str]]:
    """Right answers to chains from two digits to the longest: the way is learnt before the carelessness."""
    lengths = random.Random(seed)
    streams = {length: sft_texts(length=length, seed=seed, wrong_share=0.0) for length in range(2, longest + 1)}
    while True:
        yield next(streams[lengths.randint(2, longest)])
