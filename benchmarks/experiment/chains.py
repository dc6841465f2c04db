"""Chains of dependent steps, and the same ones with an answer that does not depend on them."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from benchmarks.experiment.family import Family
from jobs.sft import SftSettings, run_sft
from prime.data.chain import draw_chains, problem_of, prompt_of, sft_texts, write_fresh_model
from prime.data.problems import write_jsonl
from prime.types import Problem
from primectl.sft import write_sft_data

_SFT_BATCH = 128
_START = 0.3
"""Of the answers that the SFT policy has right."""


def chain(steps: int) -> Family:
    """Chains of so many dependent steps, from a policy that gets about 0.3 of them right."""
    # Such that the chance of no wrong step is 0.3.
    careless = 1.0 - _START ** (1.0 / steps)
    texts = sft_texts(length=steps + 1, seed=4, wrong_share=careless)
    return _of_chains(f"chain-{steps}", steps, texts, problem_of)


def control(steps: int) -> Family:
    """The same chains, and the answer is the first digit, whatever the steps say: a right step gains nothing."""
    careless = 1.0 - _START ** (1.0 / steps)
    texts = sft_texts(length=steps + 1, seed=4, wrong_share=careless)
    return _of_chains(f"control-{steps}", steps, _answered_by_chance(texts, seed=6), _first_digit_problem)


def _first_digit_problem(digits: list[int]) -> Problem:
    return replace(problem_of(digits), ground_truth=str(digits[0]))


def _answered_by_chance(texts: Iterator[tuple[str, str]], *, seed: int) -> Iterator[tuple[str, str]]:
    """Their answers are the first digit as often as a policy is right at the start, else any other one."""
    draw = random.Random(seed)
    for prompt, response in texts:
        first = int(prompt[0])
        answer = first if draw.random() < _START else (first + draw.randint(1, 9)) % 10
        yield prompt, f"{response.partition('#')[0]}#{answer}"


def _of_chains(
    name: str, steps: int, careless: Iterator[tuple[str, str]], problem: Callable[[list[int]], Problem]
) -> Family:
    length = steps + 1
    return Family(
        name=name,
        write=lambda folder: _write_chains(folder, length, careless, problem),
        trainer={
            "prompts_per_step": 16,
            "samples_per_prompt": 4,
            "max_prompt_tokens": 2 * length,
            "sampling": {"max_tokens": 6 * steps + 8},
            "advantage": {"step_delimiter": ";"},
            "optimiser": {"threads": 1, "device": "cpu"},
        },
        prm={"threads": 1, "device": "cpu"},
        max_context=2 * length + 6 * steps + 8,
    )


def _write_chains(
    folder: Path, length: int, careless: Iterator[tuple[str, str]], problem: Callable[[list[int]], Problem]
) -> None:
    held_out = draw_chains(256, length=length, seed=1)
    excluded = frozenset(map(prompt_of, held_out))
    train = draw_chains(4096, length=length, seed=2, exclude=excluded)
    write_jsonl([problem(digits) for digits in held_out], folder / "held_out.jsonl")
    write_jsonl([problem(digits) for digits in train], folder / "problems.jsonl")
    write_fresh_model(folder / "fresh", seed=0, hidden=64, layers=2, heads=4)
    lessons: list[tuple[str, Iterator[tuple[str, str]], int]] = [
        ("sums", sft_texts(length=2, seed=3, wrong_share=0.0), 150),
        ("short", _of_mixed_lengths(length, seed=5), 900),
        ("sft", careless, 400),
    ]
    start = "fresh"
    for name, texts, steps in lessons:
        fitting = ((prompt, answer) for prompt, answer in texts if prompt not in excluded)
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
