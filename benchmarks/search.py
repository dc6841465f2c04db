"""`make bench-search`: answers found by a search, beside best-of-N and votes, at equal sampled tokens.

The task is `chain-16` of the trial: sixteen dependent steps, from a policy whose answers are right in three of ten. The
PRM is trained offline on its graded responses. All go through the chat route's use case, `BestOfN`, over an engine and
a scorer in this process; a round of a search samples as many steps as best-of-N samples answers, so both sample about
equally many tokens. The last line is one JSON object.
"""

import argparse
import asyncio
import json
import logging
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from benchmarks.experiment.families import Machine, family_of
from benchmarks.experiment.offline import write_candidates
from benchmarks.experiment.parts import NearVerifier
from benchmarks.machine import machine
from jobs.train_prm import TrainPrmSettings, run_train_prm
from prime.adapters.rollout_engine import RolloutEngine
from prime.chat import Selection, Strategy
from prime.data.problems import load_problems
from prime.lm.model import load_tokenizer, tokenizer_fingerprint
from prime.ports import CheckingScorer
from prime.types import AnswerClasses, GradeItem, Problem, PushReceipt, RolloutGroup, RolloutRequest, RolloutStatus
from services.prm.best_of_n import Adaptive, BestOfN, BestOfRequest, SearchOptions
from services.prm.main import open_scorer
from services.prm.settings import BestOfNSettings, PrmSettings
from services.rollout.local import LocalRollout, open_rollout
from services.rollout.settings import RolloutSettings

_FAMILY, _STEP = "chain-16", ";"
_MAX_TOKENS = 160
_TUNING = 128
"""Problems on which a good score is found."""
_AT_ONCE = 32
"""Problems under way."""
_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to an answer: `Way(name="best_of_4", candidates=4)`."""

    name: str
    candidates: int
    selection: Selection = Selection.BEST
    strategy: Strategy = Strategy.BEST_OF_N
    adaptive: Adaptive | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Of one problem by one way."""

    is_right: bool
    score: float
    """Of the answer that was chosen."""
    sampled_tokens: int
    read_tokens: int


def ways(numbers: Sequence[int]) -> list[Way]:
    """All that are compared."""
    found = [Way(name="single", candidates=1)]
    for number in numbers:
        found += [
            Way(name=f"majority_{number}", candidates=number, selection=Selection.MAJORITY),
            Way(name=f"weighted_{number}", candidates=number, selection=Selection.WEIGHTED),
            Way(name=f"best_of_{number}", candidates=number),
            *(
                Way(name=f"{strategy.value}_{number}", candidates=number, strategy=strategy)
                for strategy in (Strategy.BEAM, Strategy.DVTS, Strategy.PARTICLE)
            ),
        ]
    most = max(numbers)
    adaptive = Adaptive(first=2, confidence=0.95)
    return [
        *found,
        Way(name="adaptive_weighted", candidates=most, selection=Selection.WEIGHTED, adaptive=adaptive),
        Way(name="adaptive_majority", candidates=most, selection=Selection.MAJORITY, adaptive=adaptive),
    ]


def main() -> None:
    """Make the models where they are not there, run all ways, print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs") / "bench-search")
    parser.add_argument("--problems", type=int, default=128)
    parser.add_argument("--numbers", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    sft, prm = make_models(arguments.folder)
    held_out = load_problems(str(sft.parent / "held_out.jsonl"))
    problems, tuning = held_out[: arguments.problems], held_out[arguments.problems :][:_TUNING]
    report = asyncio.run(_compare(sft, prm, problems, tuning, arguments))
    print(json.dumps(report | {"machine": machine()}))


def make_models(folder: Path) -> tuple[Path, Path]:
    """Policy and PRM."""
    family = family_of(_FAMILY, Machine())
    material = family.material(folder / "material")
    candidates, prm = folder / "candidates", folder / "prm"
    if not (candidates / "test.jsonl").is_file():
        write_candidates(family, material, candidates)
    if not (prm / "config.json").is_file():
        settings = TrainPrmSettings(
            model=material / "sft",
            data=(candidates / "train.jsonl",),
            output=prm,
            lr=3e-4,
            seed=0,
            epochs=2,
            batch_size=64,
            separator=_STEP,
            device="cpu",
        )
        run_train_prm(settings, lambda step, of, loss: None)
    return material / "sft", prm


class _ChainAnswers:
    """`ports.AnswerGrouper` of the task, whose answers are no mathematics that the verifier would find in a text."""

    async def group_answers(self, responses: Sequence[str]) -> AnswerClasses:
        answers = [response.rpartition("#")[2] if "#" in response else "" for response in responses]
        numbers = {answer: number for number, answer in enumerate(sorted(set(answers) - {""}))}
        return AnswerClasses(answers=tuple(answers), classes=tuple(numbers.get(answer, -1) for answer in answers))


class _Replica:
    """`ports.Rollout` over an engine of this process."""

    def __init__(self, rollout: LocalRollout, fingerprint: str) -> None:
        self._rollout, self._fingerprint = rollout, fingerprint

    async def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        return await self._rollout.generate(requests)

    async def push(self, manifest: Any, chunks: Any, digest: Any) -> PushReceipt:
        raise NotImplementedError("nothing is pushed in this benchmark")

    async def status(self) -> RolloutStatus:
        return RolloutStatus(
            engine="transformers",
            ready=True,
            version=0,
            groups_delivered=0,
            tokens_generated=0,
            groups_in_flight=0,
            tokenizer_fingerprint=self._fingerprint,
        )


async def _compare(
    sft: Path,
    prm: Path,
    problems: Sequence[Problem],
    tuning: Sequence[Problem],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    tokenizer = load_tokenizer(sft)
    fingerprint = tokenizer_fingerprint(tokenizer)
    scorer = open_scorer(PrmSettings(reference=sft, device="cpu", frozen=True), model=prm)
    found: dict[str, list[Outcome]] = {}
    async with open_rollout(sft, RolloutSettings(), longest=2 * _MAX_TOKENS) as rollout:
        engine = RolloutEngine(_Replica(rollout, fingerprint), tokenizer, fingerprint=fingerprint)
        tuned = await _all(engine, scorer, Way(name="tuning", candidates=4), tuning, arguments)
        good_enough = Way(
            name="adaptive_best",
            candidates=max(arguments.numbers),
            adaptive=Adaptive(first=1, score=good_score(tuned)),
        )
        for way in [*ways(arguments.numbers), good_enough]:
            found[way.name] = await _all(engine, scorer, way, problems, arguments)
            print(f"{way.name}: {_summary(found[way.name])}", file=sys.stderr, flush=True)
    return _report(found, arguments)


async def _all(
    engine: RolloutEngine,
    scorer: CheckingScorer,
    way: Way,
    problems: Sequence[Problem],
    arguments: argparse.Namespace,
) -> list[Outcome]:
    verifier = NearVerifier()
    best_of_n = BestOfN(engine, scorer, _ChainAnswers(), BestOfNSettings())
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int, problem: Problem) -> Outcome:
        request = BestOfRequest(
            body={
                "messages": [{"role": message.role, "content": message.content} for message in problem.messages],
                "max_tokens": _MAX_TOKENS,
                "seed": 1_000_000 * arguments.seed + 1000 * number,
            },
            best_of=way.candidates,
            selection=way.selection,
            adaptive=way.adaptive,
            search=SearchOptions(strategy=way.strategy, width=arguments.width, delimiters=(_STEP,)),
        )
        async with places:
            reply = await best_of_n.complete(request)
        answer = str(reply.samples.candidates[reply.selected[0]].message["content"])
        [verdict] = await verifier.grade(
            [
                GradeItem(
                    item_id="0",
                    data_source=problem.data_source,
                    ability=problem.ability,
                    response=answer,
                    ground_truth=problem.ground_truth,
                )
            ]
        )
        read = sum(each.usage.prompt_tokens + each.usage.response_tokens for each in reply.replies)
        return Outcome(
            is_right=(verdict.score or 0.0) > 0.5,
            score=reply.scores[reply.selected[0]] or 0.0,
            sampled_tokens=reply.samples.completion_tokens,
            read_tokens=read + (reply.searched.scored_tokens if reply.searched else 0),
        )

    return await asyncio.gather(*(one(number, problem) for number, problem in enumerate(problems)))


def good_score(outcomes: Sequence[Outcome]) -> float:
    """The lowest score at or above which nine of ten chosen answers are right; above all scores if there is none."""
    falling = sorted(outcomes, key=lambda each: -each.score)
    right, found = 0, falling[0].score + 1
    for number, each in enumerate(falling, start=1):
        right += each.is_right
        if right >= 0.9 * number:
            found = each.score
    return found


def _summary(outcomes: Sequence[Outcome]) -> dict[str, float]:
    return {
        "accuracy": round(_accuracy(outcomes), 4),
        "sampled_tokens": round(statistics.fmean(each.sampled_tokens for each in outcomes), 1),
        "read_tokens": round(statistics.fmean(each.read_tokens for each in outcomes), 1),
    }


def _accuracy(outcomes: Sequence[Outcome]) -> float:
    return statistics.fmean(each.is_right for each in outcomes)


def _report(found: dict[str, list[Outcome]], arguments: argparse.Namespace) -> dict[str, Any]:
    report: dict[str, Any] = {}
    for number in arguments.numbers:
        ratio, low, high = _ratio(found[f"beam_{number}"], found[f"best_of_{number}"])
        report |= {
            f"beam_over_best_of_{number}": ratio,
            f"beam_over_best_of_{number}_low": low,
            f"beam_over_best_of_{number}_high": high,
        }
    first = arguments.numbers[0]
    report |= {f"beam_over_best_of_n{end}": report[f"beam_over_best_of_{first}{end}"] for end in ("", "_low", "_high")}
    for kind, of_all in (("weighted", "weighted"), ("majority", "majority"), ("best", "best_of")):
        whole, early = found[f"{of_all}_{max(arguments.numbers)}"], found[f"adaptive_{kind}"]
        sampled = [statistics.fmean(each.sampled_tokens for each in outcomes) for outcomes in (early, whole)]
        report[f"adaptive_{kind}_saved_share"] = round(1 - sampled[0] / sampled[1], 3)
        report[f"adaptive_{kind}_accuracy_difference"] = round(_accuracy(early) - _accuracy(whole), 4)
    return report | {
        "ways": {name: _summary(outcomes) for name, outcomes in found.items()},
        "problems": len(found["single"]),
    }


def _ratio(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> tuple[float, float, float]:
    """Of accuracies, with a 95 % interval over problems, the same for both."""
    draw = random.Random(0)
    ratios = []
    for _ in range(_RESAMPLES):
        chosen = draw.choices(range(len(ours)), k=len(ours))
        right = [sum(outcomes[number].is_right for number in chosen) for outcomes in (ours, theirs)]
        ratios.append(right[0] / max(1, right[1]))
    ratios.sort()
    return (
        round(_accuracy(ours) / max(1e-9, _accuracy(theirs)), 3),
        round(ratios[int(0.025 * _RESAMPLES)], 3),
        round(ratios[int(0.975 * _RESAMPLES)], 3),
    )


if __name__ == "__main__":
    main()
