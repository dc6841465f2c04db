"""Chains of dependent steps; with words that mean nothing; and with an answer that does not depend on the steps."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from benchmarks.experiment.family import Family
from jobs.sft import SftSettings, run_sft
from prime.data.chain import LETTERS, draw_chains, problem_of, prompt_of, sft_texts, with_words, write_fresh_model
from prime.data.problems import write_jsonl
from prime.types import Problem
from primectl.sft import write_sft_data

_SFT_BATCH = 128
_START = 0.3
"""Of the answers that the SFT policy has right."""


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


def _first_digit_problem(digits: list[int]) -> Problem:
    return replace(problem_of(digits), ground_truth=str(digits[0]))


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
            "optimiser": {"threads": 1, "device": "cpu"},
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
        ("sft", kind.answers(sft_texts(length=length, seed=4, wrong_share=careless)), 400),
    ]
    start = "fresh"
    for number, (name, texts, steps) in enumerate(lessons):
        written = with_words(texts, length=kind.word, seed=number) if kind.word else texts
        fitting = ((prompt, answer) for prompt, answer in written if prompt not in excluded)
        write_sft_data(folder / f"{name}.jsonl", islice(fitting, steps * _SFT_BATCH))
        run_sft(
            SftSettings(
                model=folder / start,
                data=folder / f"{name}.jsonl",
                output=folder / name,
                steps=steps,
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
