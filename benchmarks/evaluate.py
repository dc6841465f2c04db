"""`make bench-evaluate`: an evaluation beside its engine alone, on the same requests. The last line is one JSON object.

Both sides take turns over rounds with new seeds; ratios are medians. The engine alone gets the same requests, as many
at once, and its answers are thrown away.
"""

import argparse
import asyncio
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog

from benchmarks.machine import machine
from jobs.evaluate.folder import EvaluationFolder
from jobs.evaluate.identity import identity_of
from jobs.evaluate.run import Judges, evaluate
from jobs.evaluate.settings import EvaluateSettings, SamplerSettings
from jobs.gguf import import_gguf
from prime.adapters.settings import cache_folder
from prime.data.problems import write_jsonl
from prime.evaluation.policies import RolloutPolicy
from prime.evaluation.reading import AskedSet, open_sets
from prime.lm.model import load_tokenizer
from prime.ports import Scorer
from prime.types import Message, Problem, SamplingParams
from primectl.real_model import fetch_real_model
from primectl.scorers import ScorerOptions, open_scorer
from primectl.verifiers import open_verifier_of
from services.rollout.local import LocalRollout, open_rollout
from services.rollout.settings import RolloutSettings

_GOALS = {"evaluate_vs_engine": 1.05}


def main() -> None:
    """Run all rounds and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="Hugging Face folder: policy, PRM and reference (default: SmolLM2)")
    parser.add_argument("--problems", type=int, default=24)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--min-tier", choices=("A", "B"), default="A")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory() as place:
        if arguments.model is None:
            arguments.model = Path(place) / "model"
            import_gguf(fetch_real_model(cache_folder()), arguments.model)
        report = asyncio.run(_run(arguments))
    print(json.dumps(report | {"goals": _GOALS, "machine": machine()}))


async def _run(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_jsonl([_sum(number) for number in range(arguments.problems)], folder / "sums.jsonl")
        settings = EvaluateSettings.model_validate(
            {
                "output": folder / "out",
                "sets": [f"sums={folder / 'sums.jsonl'}"],
                "samples": arguments.samples,
                "model": arguments.model,
                "verifier": {"min_tier": arguments.min_tier},
            }
        )
        sets = open_sets(settings.sets, settings.data, samples=arguments.samples)
        options = ScorerOptions(model=arguments.model, reference=str(arguments.model))
        async with (
            open_rollout(arguments.model, RolloutSettings()) as rollout,
            open_verifier_of("", None, settings.verifier, "bench") as verifier,
            open_scorer(options) as scorer,
        ):
            bench = _Bench(arguments, settings, sets, rollout, Judges(verifier=verifier, grouper=verifier))
            return await bench.run(scorer)


class _Bench:
    def __init__(
        self,
        arguments: argparse.Namespace,
        settings: EvaluateSettings,
        sets: Sequence[AskedSet],
        rollout: LocalRollout,
        judges: Judges,
    ) -> None:
        self._rounds = arguments.rounds
        self._sampling = SamplingParams(temperature=1.0, top_p=1.0, max_tokens=arguments.max_tokens)
        self._settings = settings
        self._sets = sets
        self._rollout = rollout
        self._judges = judges
        self._tokenizer = load_tokenizer(arguments.model)

    async def run(self, scorer: Scorer) -> dict[str, Any]:
        """All rounds; the first one warms up."""
        plain: list[float] = []
        scored: list[float] = []
        alone: list[float] = []
        again: list[float] = []
        rows = sum(len(asked.problems.problems) * asked.samples for asked in self._sets)
        for round_ in range(self._rounds + 1):
            engine = await self._engine_alone(round_)
            graded, regraded = await self._evaluate(round_, self._judges)
            with_prm, _ = await self._evaluate(
                round_, Judges(verifier=self._judges.verifier, grouper=self._judges.grouper, scorer=scorer)
            )
            print(f"round {round_}: engine {engine:.2f} s, evaluation {graded:.2f} s, with a PRM {with_prm:.2f} s")
            if round_:
                alone.append(engine)
                plain.append(graded / engine)
                scored.append(with_prm / engine)
                again.append(rows / regraded)
        return {
            "evaluate_vs_engine": round(statistics.median(plain), 3),
            "with_prm_vs_engine": round(statistics.median(scored), 3),
            "regrade_rows_per_second": round(statistics.median(again), 1),
            "engine_seconds": round(statistics.median(alone), 2),
            "samples": rows,
        }

    def _policy(self, seed: int) -> RolloutPolicy:
        return RolloutPolicy(rollout=self._rollout, tokenizer=self._tokenizer, sampling=self._sampling, seed=seed)

    async def _engine_alone(self, seed: int) -> float:
        policy = self._policy(seed)
        requests = iter(
            [
                policy.request(problem, range(asked.samples))
                for asked in self._sets
                for problem in asked.problems.problems
            ]
        )

        async def worker() -> None:
            for request in requests:
                await self._rollout.generate([request])

        started = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(self._settings.at_once // self._settings.samples)))
        return time.perf_counter() - started

    async def _evaluate(self, seed: int, judges: Judges) -> tuple[float, float]:
        """Seconds of an evaluation, and of grading its samples again."""
        with tempfile.TemporaryDirectory() as place:
            settings = self._settings.model_copy(update={"sampling": SamplerSettings(seed=seed)})
            with EvaluationFolder(Path(place), identity_of(settings, self._sets, {"name": "bench"})) as folder:
                seconds = []
                for regrade in (False, True):
                    started = time.perf_counter()
                    await evaluate(
                        self._sets,
                        self._policy(seed),
                        judges,
                        folder,
                        settings=settings,
                        on_progress=lambda at: None,
                        regrade=regrade,
                    )
                    seconds.append(time.perf_counter() - started)
        return seconds[0], seconds[1]


def _sum(number: int) -> Problem:
    question = f"What is {17 + number} + {3 * number + 5}? Put the final answer in \\boxed{{}}."
    return Problem(
        problem_id=f"sum-{number}",
        data_source="sums",
        ability="math",
        messages=(Message(role="user", content=question),),
        ground_truth=str(22 + 4 * number),
    )


if __name__ == "__main__":
    main()
