"""What an evaluation is of: written into its folder, so that nobody goes on with something else under the same name."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.curate.contamination import KnownProblems
from jobs.curate.settings import ContaminationSettings
from jobs.evaluate.settings import EvaluateSettings
from prime.data.actions import strip_format_request
from prime.data.problems import load_problems
from prime.evaluation.reading import AskedSet
from prime.ports import Scorer
from prime.types import Problem

_WEIGHTS = ("*.safetensors", "*.bin", "config.json", "generation_config.json", "tokenizer.json")


def identity_of(settings: EvaluateSettings, parts: Sequence[AskedSet], policy: Mapping[str, Any]) -> dict[str, Any]:
    """Who answers, how samples are drawn, and which problems are asked."""
    return {
        "policy": dict(policy),
        "sampling": settings.sampling.model_dump(),
        "stop": list(settings.stop),
        "sets": {
            part.problems.name: {
                "title": part.problems.title,
                "sha256": part.problems.sha256,
                "rows": part.problems.num_rows,
                "samples": part.samples,
                "problems": [problem.problem_id for problem in part.problems.problems],
            }
            for part in parts
        },
        "greedy": settings.greedy,
    }


def folder_identity(folder: Path) -> dict[str, Any]:
    """Of a model folder: its last two names, and the SHA-256 of what it holds."""
    digest = hashlib.sha256()
    for file in sorted(path for pattern in _WEIGHTS for path in folder.glob(pattern)):
        with file.open("rb") as opened:
            digest.update(f"{file.name}:{hashlib.file_digest(opened, 'sha256').hexdigest()};".encode())
    return {"name": "/".join(folder.resolve().parts[-2:]), "sha256": digest.hexdigest()}


async def scorer_name(scorer: Scorer, folder: Path | None, address: str) -> str:
    """Identifies a PRM: by the weights of its folder, or by the service that it answers from."""
    info = await scorer.info()
    if folder is None:
        return f"{info.model_id} version {info.prm_version} at {address}"
    found = await asyncio.to_thread(folder_identity, folder)
    return f"{found['name']} {found['sha256'][:12]}"


def contamination_of(training: str, parts: Sequence[AskedSet]) -> dict[str, Any]:
    """How many problems of each set are among the training problems, by their word n-grams.

    Raises:
        DataError: the training problems cannot be read.
    """
    texts = {part.problems.name: [_text_of(problem) for problem in part.problems.problems] for part in parts}
    settings = ContaminationSettings()
    known = KnownProblems(settings, texts)
    found: dict[str, set[str]] = {name: set() for name in texts}
    for problem in load_problems(training):
        overlap = known.find(_text_of(problem))
        if overlap is not None:
            found[overlap.problem.rpartition(" ")[0]].add(overlap.problem)
    return {
        "training": Path(training).name,
        "ngram": settings.ngram,
        "overlap": settings.overlap,
        "sets": {name: {"found": len(each), "of": len(texts[name])} for name, each in found.items()},
    }


def _text_of(problem: Problem) -> str:
    return strip_format_request(problem.messages[-1].content)
