"""TRL's RLOO trainer on the chain task, in an environment of its own; prints one JSON object.

Started by `benchmarks/loop.py`, which trains with the same model, prompts, samples per prompt and token limit.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset  # noqa: TID253  a script of its own
from transformers import AutoTokenizer, TrainerCallback
from trl import RLOOConfig, RLOOTrainer


def main() -> None:
    """Train, and time every step after the warm-up."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--problems", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--prompts", type=int, required=True)
    parser.add_argument("--samples", type=int, required=True)
    parser.add_argument("--max-tokens", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--warmup", type=int, required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    problems = [json.loads(line) for line in arguments.problems.read_text().splitlines()]
    data = Dataset.from_list(
        [{"prompt": each["prompt"][0]["content"], "truth": each["reward_model"]["ground_truth"]} for each in problems]
    )
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    clock = _Clock()

    def reward(completions: list[str], truth: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        clock.tokens[-1] += sum(map(len, completion_ids))
        answers = [text.replace("<end>", "").rpartition("#")[2] for text in completions]
        return [float(answer == right) for answer, right in zip(answers, truth, strict=True)]

    trainer = RLOOTrainer(
        model=str(arguments.model),
        reward_funcs=reward,
        train_dataset=data,
        processing_class=tokenizer,
        callbacks=[clock],
        args=RLOOConfig(
            output_dir=str(arguments.output),
            per_device_train_batch_size=arguments.prompts * arguments.samples,
            num_generations=arguments.samples,
            max_completion_length=arguments.max_tokens,
            max_steps=arguments.steps,
            learning_rate=arguments.lr,
            lr_scheduler_type="constant",
            temperature=1.0,
            beta=0.0,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        ),
    )
    trainer.train()
    steps = list(zip(clock.seconds, clock.tokens, strict=False))[arguments.warmup :]
    print(json.dumps({"seconds": [each[0] for each in steps], "tokens": [each[1] for each in steps]}))


class _Clock(TrainerCallback):  # type: ignore[misc]
    """Seconds and response tokens per step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.tokens: list[int] = []
        self._began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.perf_counter()
        self.tokens.append(0)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.perf_counter() - self._began)


if __name__ == "__main__":
    main()
