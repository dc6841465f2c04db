"""School problems for the real model of 135 million parameters."""

from pathlib import Path

from benchmarks.experiment.family import Family
from jobs.sft import SftSettings, run_sft
from prime.data.problems import write_jsonl
from prime.data.school import draw_school, keys_of
from primectl.sft import write_sft_data


def school(model: Path, *, device: str) -> Family:
    """School problems, from the real model of 135 million parameters after a short SFT."""
    on_cpu = device == "cpu"
    # A sweep runs one process per core.
    where = {"device": device, "token_budget": 2048, **({"threads": 1} if on_cpu else {})}
    return Family(
        name="school",
        write=lambda folder: _write_school(folder, model, device),
        trainer={
            "prompts_per_step": 8,
            "samples_per_prompt": 4,
            "max_prompt_tokens": 128,
            "sampling": {"max_tokens": 64},
            "advantage": {"step_delimiter": "\n"},
            "optimiser": where,
        },
        prm=where,
        max_context=256,
        device=device,
        dtype="float32" if on_cpu else "bfloat16",
    )


def _write_school(folder: Path, model: Path, device: str) -> None:
    held_out = draw_school(96, seed=11)
    train = draw_school(512, seed=12, exclude=keys_of(held_out))
    worked = draw_school(128, seed=13, exclude=keys_of([*held_out, *train]))
    for name, problems in (("held_out", held_out), ("problems", train)):
        write_jsonl([each.problem for each in problems], folder / f"{name}.jsonl")
    write_sft_data(folder / "sft.jsonl", ((each.prompt, each.solution) for each in worked))
    run_sft(
        SftSettings(
            model=model,
            data=folder / "sft.jsonl",
            output=folder / "sft",
            epochs=1.0,
            batch_size=16,
            lr=1e-4,
            token_budget=4096,
            device=device,
        ),
        lambda step: None,
    )
