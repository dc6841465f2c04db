"""`primectl evaluate`, `compare` and `fetch-set`."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.table import Table

from jobs.evaluate.compare import Comparison, compare, comparison_markdown, comparison_rows
from jobs.evaluate.curve import curve_json, curve_page, curve_rows, read_curves
from jobs.evaluate.fetch import describe, fetch_set
from jobs.evaluate.folder import EvaluationFolder
from jobs.evaluate.identity import contamination_of, folder_identity, identity_of, scorer_name
from jobs.evaluate.page import HTML, write_page
from jobs.evaluate.report import (
    MARKDOWN,
    Report,
    accuracy_rows,
    outcome_rows,
    read_report,
    replace_file,
    with_margin,
    write_report,
)
from jobs.evaluate.run import Judges, Progress, evaluate
from jobs.evaluate.settings import EvaluateSettings
from prime.adapters.settings import engine_key, read_token
from prime.data.prompts import encode_prompt
from prime.errors import SettingsError
from prime.evaluation.policies import EndpointPolicy, Policy, RolloutPolicy
from prime.evaluation.reading import AskedSet, open_sets
from prime.evaluation.sets import find_set, known_sets
from prime.types import SamplingParams
from primectl.display import Display, minutes
from primectl.scorers import ScorerOptions, open_scorer
from primectl.verifiers import open_verifier_of
from primectl.written import refuse_existing, written


def run_evaluate(
    settings: EvaluateSettings, *, scorer: ScorerOptions | None, token_file: Path | None, regrade: bool
) -> int:
    """Sample, grade, report; the last line on stdout is one JSON object. Started again, it goes on."""
    display = Display()
    started = time.monotonic()
    report, progress = evaluate_policy(settings, display, scorer=scorer, token_file=token_file, regrade=regrade)
    display.console.print(_table(accuracy_rows(report, with_margin)))
    display.console.print(_table(outcome_rows(report)))
    if progress.refused:
        display.say(f"{progress.refused} requests were refused; the reasons are in graded.jsonl")
    display.say(f"report: {settings.output / MARKDOWN} and {settings.output / HTML}")
    print(json.dumps(_summary(report, progress, time.monotonic() - started, settings.output)))
    return 0


def evaluate_policy(
    settings: EvaluateSettings,
    display: Display,
    *,
    scorer: ScorerOptions | None = None,
    token_file: Path | None = None,
    regrade: bool = False,
) -> tuple[Report, Progress]:
    """Make whatever is missing in the output folder, with a bar, and write the reports.

    Raises:
        SettingsError: the sets, the policy or the output do not fit; nothing was sampled.
    """
    if find_spec("matplotlib") is None:
        raise SettingsError("primectl evaluate needs matplotlib: pip install 'prime-services[local]'")
    parts = open_sets(
        settings.sets,
        settings.data,
        samples=settings.samples,
        style=settings.sampling.prompt,
        limit=settings.limit,
    )
    progress = Progress(of=0)

    async def work() -> None:
        async with contextlib.AsyncExitStack() as stack:
            policy, identity = await stack.enter_async_context(_open_policy(settings, parts, token_file))
            described = identity_of(settings, parts, identity)
            if settings.training:
                described["contamination"] = contamination_of(settings.training, parts)
            folder = stack.enter_context(EvaluationFolder(settings.output, described))
            verifier = await stack.enter_async_context(
                open_verifier_of(settings.verifier_address, token_file, settings.verifier, "evaluate")
            )
            judges = Judges(verifier=verifier, grouper=verifier)
            if scorer is not None:
                opened = await stack.enter_async_context(open_scorer(scorer))
                name = await scorer_name(opened, scorer.model, scorer.address)
                judges = replace(judges, scorer=opened, scorer_name=name)
            bar = stack.enter_context(display.bar("evaluate", 1))

            def show(at: Progress) -> None:
                nonlocal progress
                progress = at
                bar.update(at.samples, _note(at), every=max(1, at.of // 20), total=at.of)

            await evaluate(parts, policy, judges, folder, settings=settings, on_progress=show, regrade=regrade)

    asyncio.run(work())
    report = read_report(settings.output)
    write_report(report, settings.output)
    write_page(report, settings.output)
    return report, progress


@contextlib.asynccontextmanager
async def _open_policy(
    settings: EvaluateSettings, parts: Sequence[AskedSet], token_file: Path | None
) -> AsyncIterator[tuple[Policy, Mapping[str, Any]]]:
    """Whoever answers, and what identifies it."""
    asked = settings.sampling
    common: dict[str, Any] = {
        "sampling": SamplingParams(temperature=asked.temperature, top_p=asked.top_p, max_tokens=asked.max_tokens),
        "seed": asked.seed,
        "stops": settings.stop,
    }
    if settings.kind == "endpoint":
        from prime.adapters.openai_engine import OpenAIEngine

        engine = OpenAIEngine(
            settings.endpoint,
            key=engine_key(),
            model=settings.endpoint_model,
            timeout_s=settings.call_seconds,
            setting="--endpoint",
        )
        try:
            model = settings.endpoint_model or _only(await engine.models(), settings.endpoint)
            yield EndpointPolicy(engine=engine, model=model, **common), {"name": model, "endpoint": settings.endpoint}
        finally:
            await engine.close()
        return
    from prime.lm.model import load_tokenizer, require_model_folder, tokenizer_fingerprint

    assert settings.model is not None
    require_model_folder(settings.model)
    tokenizer = load_tokenizer(settings.model)
    if settings.kind == "replica":
        from prime.adapters.grpc_clients import GrpcRollout

        replica = GrpcRollout(
            settings.rollout_address,
            read_token(token_file),
            deadline_s=settings.call_seconds,
            patience_s=settings.patience_seconds,
        )
        try:
            status = await replica.status()
            if status.tokenizer_fingerprint != tokenizer_fingerprint(tokenizer):
                raise SettingsError(f"the replica has another tokenizer than {settings.model}; give its own folder")
            name = f"replica {settings.rollout_address} at version {status.version}"
            identity = {"name": name, "engine": status.engine, "dtype": status.dtype}
            yield RolloutPolicy(rollout=replica, tokenizer=tokenizer, min_version=status.version, **common), identity
        finally:
            await replica.close()
        return
    from services.rollout.local import open_rollout

    prompts = (encode_prompt(tokenizer, each.messages) for part in parts for each in part.problems.problems)
    longest = max(map(len, prompts)) + asked.max_tokens
    identity = await asyncio.to_thread(folder_identity, settings.model)
    identity |= {"engine": settings.rollout.engine, "dtype": settings.rollout.dtype}
    async with open_rollout(settings.model, settings.rollout, longest=longest) as local:
        yield RolloutPolicy(rollout=local, tokenizer=tokenizer, **common), identity


def _only(models: Sequence[str], url: str) -> str:
    if len(models) != 1:
        raise SettingsError(
            f"{url} serves {', '.join(models) or 'no model that it names'}; choose one with --endpoint-model"
        )
    return models[0]


def _note(at: Progress) -> str:
    right = f"{at.right / at.graded:.3f} right" if at.graded else "none graded yet"
    return f"{right}  {at.rate:.1f} samples/s  {at.tokens_per_second:,.0f} tokens/s  {minutes(at.seconds_left)} left"


def _summary(report: Report, progress: Progress, seconds: float, output: Path) -> dict[str, Any]:
    figures = {}
    for name, found in report.sets.items():
        curves = {
            "pass_at_k": found.pass_at,
            "majority": found.majority,
            "best_of": found.best_of,
            "weighted": found.weighted,
        }
        last = {title: curve[max(curve)].mean for title, curve in curves.items() if curve}
        average = {} if found.average is None else {"average": found.average.mean}
        interval = {} if found.average is None else {"low": found.average.low, "high": found.average.high}
        greedy = {} if found.greedy is None else {"greedy": found.greedy.mean}
        figures[name] = {key: round(value, 4) for key, value in {**average, **interval, **greedy, **last}.items()}
    return {
        "sets": figures,
        "mean": report.mean,
        "samples": progress.samples,
        "kept": progress.kept,
        "tokens_per_second": round(progress.tokens_per_second, 1),
        "seconds": round(seconds, 1),
        "output": str(output),
    }


def _table(rows: Sequence[Sequence[str]], title: str = "") -> Table:
    heading, *body = rows
    used = [place for place in range(len(heading)) if any(row[place] for row in body)]
    shown = Table(title=title or None)
    for place in used:
        shown.add_column(heading[place], justify="right" if place else "left")
    for row in body:
        shown.add_row(*(row[place] for place in used))
    return shown


# ---------------------------------------------------------------- compare


def run_compare(first: Path, second: Path, *, out: Path | None) -> int:
    """The paired difference of two evaluations; the last line on stdout is one JSON object."""
    refuse_existing(out)
    display = Display()
    found = compare(first, second)
    display.console.print(_table(comparison_rows(found), f"{found.names[1]} against {found.names[0]}"))
    for warning in found.warnings:
        display.say(warning)
    with written(out) as file:
        if file is not None:
            file.write(comparison_markdown(found))
    print(json.dumps(_compared(found)))
    return 0


def _compared(found: Comparison) -> dict[str, Any]:
    def plain(name: str) -> dict[str, float]:
        each = found.overall if name == "" else found.sets[name].difference
        assert each is not None
        return {key: round(getattr(each, key), 5) for key in ("mean", "low", "high", "p")}

    overall = {} if found.overall is None else {"overall": plain("")}
    return {"sets": {name: plain(name) for name in found.sets}, **overall}


# ---------------------------------------------------------------- curve


def run_curve(runs: Sequence[Path], *, out: Path) -> int:
    """Accuracy of runs against the step, as one HTML file; the last line on stdout is one JSON object."""
    display = Display()
    curves = read_curves(runs)
    for name, by_run in curves.items():
        display.console.print(_table(curve_rows(by_run), name))
    replace_file(out, curve_page(curves))
    display.say(f"curve: {out}")
    print(json.dumps(curve_json(curves)))
    return 0


# ---------------------------------------------------------------- fetch-set


def run_fetch_sets(names: Sequence[str], folder: Path, *, from_hub: bool, address: str) -> int:
    """Get the files of sets; without a name, list the sets that are known."""
    display = Display()
    if not names:
        rows = [["name", "set", "problems", "file", "licence"]]
        rows += [[each.name, each.title, str(each.rows), each.file, each.licence] for each in known_sets().values()]
        display.console.print(_table(rows))
        return 0
    if address and len(names) > 1:
        raise SettingsError("--address is the place of one file; give one set with it")
    for name in names:
        known = find_set(name)
        path = fetch_set(known, folder, from_hub=from_hub, address=address, on_progress=lambda size: None)
        display.say(describe(known, path))
    return 0
