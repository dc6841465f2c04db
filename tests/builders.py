"""Small builders that tests share."""

import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from prime.adapters.memory import MemoryBroker, MemoryQueue
from prime.data.tiny import build_byte_tokenizer, write_tiny_model
from prime.ports import Rollout
from prime.types import (
    FinishReason,
    GradedGroup,
    GradeItem,
    Message,
    Problem,
    RolloutGroup,
    RolloutRequest,
    Sample,
    SamplingParams,
    Verdict,
    VerdictStatus,
    VerifierInfo,
    VersionSpan,
)

SAMPLING = SamplingParams(temperature=1.0, top_p=1.0, max_tokens=8)


def request(
    group_id: str = "0.0-p", *, prompt: Sequence[int] = (5, 6), samples: int = 2, max_tokens: int = 8, seed: int = 1
) -> RolloutRequest:
    return RolloutRequest(
        group_id=group_id,
        problem_id="p",
        attempt=0,
        prompt_ids=tuple(prompt),
        num_samples=samples,
        sampling=SamplingParams(temperature=1.0, top_p=1.0, max_tokens=max_tokens),
        seed=seed,
        min_version=0,
    )


def sample(ids: Sequence[int] = (3, 4, 1), *, version: int = 0, truncated: bool = False) -> Sample:
    return Sample(
        response_ids=tuple(ids),
        logprobs=tuple(-0.5 for _ in ids),
        spans=(VersionSpan(version=version, length=len(ids)),),
        finish_reason=FinishReason.LENGTH if truncated else FinishReason.STOP,
    )


def group(
    group_id: str = "0.0-p", *, version: int = 0, responses: Sequence[Sequence[int]] = ((3, 1), (4, 1))
) -> RolloutGroup:
    return RolloutGroup(
        group_id=group_id,
        problem_id="p",
        attempt=0,
        prompt_ids=(5, 6),
        samples=tuple(sample(ids, version=version) for ids in responses),
    )


def graded(outcomes: Sequence[float], responses: Sequence[Sequence[int]], group_id: str = "0.0-p") -> GradedGroup:
    return GradedGroup(group=group(group_id, responses=responses), outcomes=tuple(outcomes))


def finder(*replicas: Rollout) -> Callable[[], Awaitable[list[tuple[str, Rollout]]]]:
    """Finds these replicas, named r0, r1 and so on."""

    async def find() -> list[tuple[str, Rollout]]:
        return [(f"r{number}", replica) for number, replica in enumerate(replicas)]

    return find


def problem(number: int = 0, *, ability: str = "math", ground_truth: str = "4") -> Problem:
    return Problem(
        problem_id=f"p{number}",
        data_source="chain",
        ability=ability,
        messages=(Message(role="user", content=f"{number}+4="),),
        ground_truth=ground_truth,
    )


def tiny_model(folder: Path, *, seed: int = 0, tied: bool = False) -> Path:
    """A tiny model whose weights are large enough to make log-probs differ clearly."""
    write_tiny_model(folder, seed=seed, hidden=32, tied=tied, context=256)
    return folder


def with_tokenizer(folder: Path) -> Path:
    """The same folder, with the tokenizer of the tiny models beside its weights."""
    build_byte_tokenizer().save_pretrained(folder)
    return folder


def perturb(folder: Path, *, seed: int, scale: float = 0.05) -> Path:
    """Move every weight of a model folder a little."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


# ---------------------------------------------------------------- around the collector

Score = float | VerdictStatus


class ScriptedVerifier:
    """Grades by a function of the item, or says why not; the response text is the token ids."""

    def __init__(self, score: Callable[[GradeItem], Score]) -> None:
        self._score = score
        self.seen: list[GradeItem] = []

    async def grade(self, items: Sequence[GradeItem]) -> list[Verdict]:
        self.seen += items
        verdicts = []
        for item in items:
            found = self._score(item)
            status = found if isinstance(found, VerdictStatus) else VerdictStatus.PASSED
            score = None if isinstance(found, VerdictStatus) else found
            verdicts.append(Verdict(status=status, score=score, reason="scripted", milliseconds=0.0))
        return verdicts

    async def info(self) -> VerifierInfo:
        return VerifierInfo(graders=(), isolation=(), workers=1)


class IdsTokenizer:
    """Decodes to the ids themselves."""

    all_special_ids: Sequence[int] = ()

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return " ".join(map(str, ids))


class Fleet:
    """Rollout workers in a task: answer every request, in an order and with a version of the test's choosing."""

    def __init__(self, broker: MemoryBroker, *, version: int = 0, newest_first: bool = False) -> None:
        self.queue = MemoryQueue(broker, consumer="fleet")
        self.version = version
        self.newest_first = newest_first
        self.seen: list[RolloutRequest] = []

    async def run(self) -> None:
        while True:
            claims = await self.queue.claim(100, 0.05)
            self.seen += [claim.item for claim in claims]
            for claim in reversed(claims) if self.newest_first else claims:
                answer = group(claim.item.group_id, version=self.version, responses=((3, 1), (4, 1)))
                await self.queue.deliver(claim, answer)


def evaluation_row(version: int, share: float) -> dict[str, Any]:
    """A line of `evaluation.jsonl`, all figures of one set equal."""
    estimate = {"mean": share, "low": share, "high": share}
    summary = {
        "problems": 4,
        "samples": 2,
        "counts": {"right": 1, "wrong": 6, "undecided": 1},
        "mean_tokens": 12.0,
        "truncated_share": 0.0,
        "average": estimate,
        "range_if_decided": [share, share],
        "greedy": None,
        "pass_at": {"1": estimate, "2": estimate},
        "majority": {"2": estimate},
        "best_of": {},
        "best_of_gain": None,
        "weighted": {},
    }
    return {"version": version, "newest": version, "sets": {"gsm8k": summary}}


def documented_metrics() -> re.Pattern[str]:
    """Matches the names that the docs describe; `<set>` stands for the name of any set, `<n>` for a number."""
    docs = Path(__file__).parents[1] / "docs"
    names: list[str] = []
    for page, heading in (("operations.md", "## `metrics.jsonl`"), ("trackers.md", "## Names")):
        section = (docs / page).read_text(encoding="utf-8").partition(heading)[2].partition("\n## ")[0]
        names += re.findall(r"^\| (`[a-z]+/.*?) \|", section, flags=re.MULTILINE)
        names += re.findall(r"(`wait/[a-z_]+`): ", section)
    patterns = (re.escape(name) for cell in names for name in re.findall(r"`([a-z]+/[a-z_/<>]+)`", cell))
    return re.compile("|".join(each.replace("<set>", "[^/]+").replace("<n>", r"\d+") for each in patterns))
