"""The whole loop on the chain task beside TRL's RLOO trainer, and what the PRM adds to a step: `make bench-loop`.

Same model, prompts, samples per prompt, token limit and machine, one run; both sides take every group (no filter). Two
sizes: `demo` is the demo's model and batch, where two cores do nothing but matrix products. `paper` has longer chains
and a smaller model and batch, so that sampling takes more of a step, as in the paper (Table 2: sampling 282 s, policy
157 s, PRM 151 s). The last line is one JSON object; the headline is the first size.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from jobs.sft import SftSettings, run_sft
from prime.data.chain import draw_chains, problem_of, sft_texts, write_fresh_model
from prime.data.problems import write_jsonl
from primectl.config import RunConfig
from primectl.stack import local_stack

# So small that the policy, and with it the length of its responses, stays what it is in all ways.
_LR = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A model, a task and a batch: `Size(hidden=128, length=6, prompts=32)` is the demo's."""

    hidden: int
    length: int
    prompts: int
    samples: int = 4
    heads: int = 4

    @property
    def max_tokens(self) -> int:
        """Of a response: six characters a step, and what follows them."""
        return 8 * self.length


SIZES = {"paper": Size(hidden=64, length=12, prompts=8), "demo": Size(hidden=128, length=6, prompts=32)}


def main() -> None:
    """Train a little in every way, and print the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trl-python", type=Path, required=True, help="of an environment with TRL")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    arguments = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, size in ((name, SIZES[name]) for name in arguments.sizes):
            material = _write_material(Path(folder) / name, size)
            rounds = [_round(arguments, material, size, number) for number in range(arguments.rounds)]
            found[name] = _ratios(rounds)
            print(json.dumps({name: found[name]}), flush=True)
    headline = {key: found[arguments.sizes[0]][key] for key in _GOALS}
    print(json.dumps({**headline, "sizes": found, "goals": _GOALS, "machine": machine()}))


_GOALS = {"step_tokens_per_second_vs_trl": 2.0, "idle_share": 0.10, "prime_over_rloo_step_time": 1.15}


def _ratios(rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    def middle(of: Any) -> float:
        return round(float(statistics.median(of(each) for each in rounds)), 3)

    return {
        "step_tokens_per_second_vs_trl": middle(lambda each: each["rloo"]["rate"] / each["trl"]["rate"]),
        "prime_tokens_per_second_vs_trl": middle(lambda each: each["prime"]["rate"] / each["trl"]["rate"]),
        "idle_share": middle(lambda each: each["prime"]["idle"]),
        "prime_over_rloo_step_time": middle(lambda each: each["prime"]["seconds"] / each["rloo"]["seconds"]),
        "overlap_over_strict_step_time": middle(lambda each: each["prime"]["seconds"] / each["strict"]["seconds"]),
        "tokens_per_second": {way: middle(lambda each, w=way: each[w]["rate"]) for way in rounds[0]},
        "seconds_per_step": {way: middle(lambda each, w=way: each[w]["seconds"]) for way in rounds[0]},
        "busy": {
            key: middle(lambda each, k=key: each["prime"].get(k, 0.0)) for key in rounds[0]["prime"] if "busy" in key
        },
    }


def _write_material(folder: Path, size: Size) -> Path:
    """A policy that knows the task and is careless, and problems."""
    folder.mkdir(parents=True)
    write_jsonl(
        [problem_of(digits) for digits in draw_chains(2048, length=size.length, seed=2)], folder / "problems.jsonl"
    )
    with (folder / "sft.jsonl").open("w") as file:
        for prompt, response in islice(sft_texts(length=size.length, seed=3, wrong_share=0.22), 4096):
            file.write(json.dumps({"prompt": [{"role": "user", "content": prompt}], "response": response}) + "\n")
    write_fresh_model(folder / "fresh", seed=0, hidden=size.hidden, heads=size.heads)
    settings = {"model": folder / "fresh", "data": folder / "sft.jsonl", "output": folder / "sft"}
    run_sft(SftSettings(**settings, steps=120, batch_size=128, lr=2e-3, device="cpu"), lambda step: None)
    return folder


def _round(arguments: argparse.Namespace, material: Path, size: Size, number: int) -> dict[str, dict[str, float]]:
    """All ways once; they take turns in every round, so that a busy machine slows all."""
    found = {"trl": _trl(arguments, material, size)}
    for way, settings in (
        ("rloo", {"advantage": {"process_coef": 0.0}}),
        ("prime", {}),
        ("strict", {"max_lag": 0}),
    ):
        found[way] = _ours(arguments, material, size, f"{way}-{number}", settings)
    print(json.dumps(found), flush=True)
    return found


def _trl(arguments: argparse.Namespace, material: Path, size: Size) -> dict[str, float]:
    command = [
        *(str(arguments.trl_python), str(Path(__file__).with_name("loop_trl.py"))),
        *("--model", str(material / "sft"), "--problems", str(material / "problems.jsonl")),
        *("--output", str(material / "trl"), "--prompts", str(size.prompts), "--samples", str(size.samples)),
        *("--max-tokens", str(size.max_tokens), "--steps", str(arguments.steps)),
        *("--warmup", str(arguments.warmup), "--lr", str(_LR)),
    ]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"TRL failed:\n{ended.stderr[-3000:]}")
    steps = json.loads(ended.stdout.splitlines()[-1])
    seconds = statistics.median(steps["seconds"])
    return {"seconds": seconds, "rate": sum(steps["tokens"]) / sum(steps["seconds"])}


def _ours(
    arguments: argparse.Namespace, material: Path, size: Size, name: str, settings: Mapping[str, Any]
) -> dict[str, float]:
    config = RunConfig.model_validate(
        {
            "run": {"name": name, "folder": str(material / "runs"), "model": str(material / "sft")},
            "trainer": {
                "problems": str(material / "problems.jsonl"),
                "steps": arguments.steps,
                "prompts_per_step": size.prompts,
                "samples_per_prompt": size.samples,
                "max_prompt_tokens": 32,
                "checkpoint_every": arguments.steps,
                "sampling": {"max_tokens": size.max_tokens},
                "filter": {"low": 0.0, "high": 1.0},
                "optimiser": {"lr": _LR, "token_budget": 8192, "threads": 1},
                **settings,
            },
            "prm": {"lr": _LR, "token_budget": 8192, "threads": 1},
            "rollout": {"max_groups": 2 * size.prompts, "max_context": 256, "threads": 1},
            "verifier": {"min_tier": "B"},
        }
    )
    asyncio.run(_run(config))
    lines = [json.loads(line) for line in (config.run.path / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["step"] > arguments.warmup]
    seconds = [line["time/step_seconds"] for line in steps]
    busy = {
        key: statistics.median(line.get(key, 0.0) for line in steps) for key in steps[-1] if key.startswith("busy/")
    }
    return {
        "seconds": statistics.median(seconds),
        "rate": sum(line["batch/response_tokens"] for line in steps) / sum(seconds),
        "idle": busy["busy/nobody"],
        **busy,
    }


async def _run(config: RunConfig) -> None:
    async with local_stack(config) as stack:
        async for _ in stack.train(resume=False):
            pass


if __name__ == "__main__":
    main()
