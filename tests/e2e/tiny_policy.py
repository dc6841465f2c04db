"""A tiny policy that adds digits carelessly, with problems of its own: what runs of the trial start from."""

from pathlib import Path

from jobs.sft import SftSettings, run_sft
from prime.data.chain import draw_chains, problem_of, sft_texts, write_fresh_model
from prime.data.problems import write_jsonl
from primectl.sft import write_sft_data


def write_tiny_policy(
    folder: Path,
    *,
    length: int,
    problems: int,
    held_out: int,
    wrong_share: float,
    hidden: int,
    steps: int,
    batch_size: int,
    lr: float,
) -> None:
    """`sft`, `problems.jsonl` and `held_out.jsonl`: chains of `length` digits, and SFT on careless answers."""
    chains = draw_chains(problems + held_out, length=length, seed=1)
    write_jsonl([problem_of(digits) for digits in chains[:problems]], folder / "problems.jsonl")
    write_jsonl([problem_of(digits) for digits in chains[problems:]], folder / "held_out.jsonl")
    write_fresh_model(folder / "fresh", seed=0, hidden=hidden)
    texts = sft_texts(length=length, seed=2, wrong_share=wrong_share)
    write_sft_data(folder / "sft.jsonl", (next(texts) for _ in range(steps * batch_size)))
    run_sft(
        SftSettings(
            model=folder / "fresh",
            data=folder / "sft.jsonl",
            output=folder / "sft",
            steps=steps,
            batch_size=batch_size,
            lr=lr,
            device="cpu",
            threads=1,
        ),
        lambda step: None,
    )
