"""The whole of it, in order. Read this first.

read        each source in its own schema; what cannot be read is reported with file and row
maths       figures, proofs, multiple choice, fill-ins, answers
duplicates  the same problem, or nearly
contamination, lengths
choices     multiple choice becomes open questions
duplicates  once more: a rewritten question may be there already
programs    reference solutions in the verifier
validation  two models, five attempts each
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.curate import output
from jobs.curate.choices import Choices
from jobs.curate.contamination import Contamination, read_evaluation_set
from jobs.curate.draft import Draft
from jobs.curate.duplicates import Duplicates
from jobs.curate.lengths import Lengths
from jobs.curate.maths import MathRules
from jobs.curate.pipeline import Pipeline, Stage, StageReport
from jobs.curate.programs import Programs
from jobs.curate.settings import CurateSettings
from jobs.curate.sources import MALFORMED, open_source
from jobs.curate.unsolvable import probe
from jobs.curate.validation import Validation
from jobs.grading import BoundedVerifier
from prime.adapters.endpoint import Endpoints
from prime.lm.model import load_tokenizer, tokenizer_fingerprint
from prime.ports import Verifier

_FAULTS_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Curated:
    """What came of it."""

    output: Path
    reports: Sequence[StageReport]
    usage: Sequence[Mapping[str, Any]]
    """Of each endpoint, in this run."""
    probe: Sequence[Mapping[str, Any]]
    faults: Sequence[str]
    """The first rows that could not be read, and why."""


@dataclass(slots=True, kw_only=True)
class Progress:
    """Where it stands: `Progress(stage="validation", done=3, of=40, usage=[{"model": "qwq", "paid": 211, ...}])`."""

    stage: str = ""
    done: int = 0
    of: int = 0
    """Parts; 0: nobody knows yet."""
    usage: Sequence[Mapping[str, Any]] = ()


async def curate(
    settings: CurateSettings, verifier: Verifier, on_progress: Callable[[Progress], None] = lambda progress: None
) -> Curated:
    """Make the data set in `settings.output`, or go on with it.

    Raises:
        DataError: a source or an evaluation set is not there; nothing was asked of any model.
        PrimeError: an endpoint or the verifier is away for longer than patience lasts. Start again to go on.
    """
    output.refuse_foreign(settings.output)
    bounded = BoundedVerifier(verifier)
    sources = [open_source(each, settings.code) for each in settings.sources]
    sets = {name: read_evaluation_set(name, path) for name, path in settings.contamination.sets.items()}
    settings.output.mkdir(parents=True, exist_ok=True)
    (settings.output / "curate.json").write_text(settings.model_dump_json(indent=2))
    progress = Progress()

    def on_part(stage: str, done: int, of: int) -> None:
        progress.stage, progress.done, progress.of = stage, done, of
        on_progress(progress)

    def on_answer() -> None:
        progress.usage = endpoints.usage()
        on_progress(progress)

    pipeline = Pipeline(settings.output, part_rows=settings.part_rows, on_part=on_part)
    async with Endpoints(settings.output / "responses.sqlite", on_answer) as endpoints:
        rewriter = None if settings.maths.rewrite is None else endpoints.open(settings.maths.rewrite)
        models = {each.model: endpoints.open(each) for each in settings.validation.validators}
        validation = Validation(settings.validation, models, bounded)
        stages: list[Stage] = [
            MathRules(settings.maths),
            Duplicates(settings.duplicates, verifier=bounded),
            Contamination(settings.contamination, sets),
            *_lengths(settings),
            Choices(settings.maths, rewriter, bounded),
            Duplicates(settings.duplicates, verifier=bounded, name="duplicates-again"),
            Programs(settings.code, bounded),
            validation,
        ]
        pipeline.read(sources)
        for stage in stages:
            await pipeline.run(stage)
        alertness = await _probe(settings, validation, pipeline)
        usage = endpoints.usage()
    _write(settings, pipeline, alertness)
    return Curated(
        output=settings.output,
        reports=pipeline.reports,
        usage=usage,
        probe=alertness,
        faults=_faults(pipeline),
    )


def _lengths(settings: CurateSettings) -> list[Stage]:
    if settings.length.tokenizer is None:
        return []
    tokenizer = load_tokenizer(settings.length.tokenizer)
    return [
        Lengths(
            tokenizer,
            tokenizer_fingerprint(tokenizer),
            max_prompt_tokens=settings.length.max_prompt_tokens,
            with_actions=settings.system_prompt == "actions",
        )
    ]


async def _probe(settings: CurateSettings, validation: Validation, pipeline: Pipeline) -> list[dict[str, Any]]:
    """On problems that were kept, so that they are known to be solvable."""
    solvable: list[Draft] = []
    for part in pipeline.drafts():
        solvable += [draft for draft in part if draft.ability == "math"]
        if len(solvable) >= settings.validation.probe:
            break
    chosen = solvable[: settings.validation.probe]
    if not chosen or not settings.validation.validators:
        return []
    return [asdict(each) for each in await probe(validation, chosen, seed=settings.seed)]


def _write(settings: CurateSettings, pipeline: Pipeline, alertness: Sequence[Mapping[str, Any]]) -> None:
    data = settings.output / "data"
    data.mkdir(exist_ok=True)
    held_out = output.choose_held_out(pipeline.drafts(), settings.held_out, seed=settings.seed)
    output.write_rows(pipeline.drafts(), data, held_out, with_actions=settings.system_prompt == "actions")
    output.write_dropped(pipeline.dropped(), data / "dropped.parquet")
    output.draw_funnel(pipeline.reports, data / "funnel.png")
    output.write_card(data, pipeline.reports, settings.model_dump(mode="json", exclude={"output"}), alertness)
    report = {"stages": [asdict(each) for each in pipeline.reports], "probe": list(alertness)}
    (data / "report.json").write_text(json.dumps(report, indent=2))


def _faults(pipeline: Pipeline) -> list[str]:
    found: list[str] = []
    for stage, draft in pipeline.dropped():
        if stage != "read" or len(found) == _FAULTS_SHOWN:
            break
        if draft.dropped == MALFORMED:
            found.append(str(draft.notes["read"]))
    return found
