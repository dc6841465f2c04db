"""The figures of an evaluation, from its folder alone: as JSON, and as Markdown to read."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from jobs.evaluate import published
from jobs.evaluate.folder import read_evaluation
from prime.errors import DataError
from prime.evaluation.intervals import Difference, Estimate
from prime.evaluation.summary import SetSummary, summarise

JSON, MARKDOWN = "report.json", "report.md"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """An evaluation's figures, with what they were measured on and how."""

    identity: Mapping[str, Any]
    sets: Mapping[str, SetSummary]
    """By name, those of which something was graded."""
    waiting: Mapping[str, int]
    """Problems of each set that are not graded yet."""

    @property
    def titles(self) -> dict[str, str]:
        """Of the sets."""
        return {name: str(self.identity["sets"][name]["title"]) for name in self.sets}

    @property
    def mean(self) -> float | None:
        """The plain mean of the sets' averages, of two or more."""
        averages = [found.average.mean for found in self.sets.values() if found.average is not None]
        return fmean(averages) if len(averages) > 1 else None


def read_report(folder: Path) -> Report:
    """The figures of a folder.

    Raises:
        CheckpointError: there is no evaluation.
        DataError: nothing was graded yet.
    """
    identity, graded = read_evaluation(folder)
    sets, waiting = {}, {}
    for name, described in identity["sets"].items():
        found = [graded[each] for each in described["problems"] if each in graded]
        waiting[name] = len(described["problems"]) - len(found)
        if found:
            sets[name] = summarise(found)
    if not sets:
        raise DataError(f"{folder}: nothing was graded yet")
    return Report(identity=identity, sets=sets, waiting=waiting)


def to_json(report: Report) -> dict[str, Any]:
    """Plain values; sizes become text, as JSON's keys are."""
    return {
        "identity": dict(report.identity),
        "mean": report.mean,
        "waiting": dict(report.waiting),
        "sets": {name: _plain(dataclasses.asdict(summary)) for name, summary in report.sets.items()},
    }


def write_report(report: Report, folder: Path) -> None:
    """`report.json` and `report.md`, each replaced whole."""
    replace_file(folder / JSON, json.dumps(to_json(report), indent=2) + "\n")
    replace_file(folder / MARKDOWN, to_markdown(report))


def to_markdown(report: Report) -> str:
    """A page: how it was measured, accuracies with intervals, what became of the samples, and the published table."""
    parts = [
        f"# Evaluation of {describe_policy(report.identity)}",
        describe_sampling(report.identity),
        "\n".join(table(accuracy_rows(report))),
        _mean_line(report),
        "What became of the samples, as shares. Only `right` counts as right; `undecided` is in no accuracy.",
        "\n".join(table(outcome_rows(report))),
        *_curves(report),
        *_contamination(report.identity),
        *_published(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def describe_policy(identity: Mapping[str, Any]) -> str:
    """Who answered, in words."""
    policy = identity["policy"]
    return str(policy.get("name") or policy.get("model") or policy)


def describe_sampling(identity: Mapping[str, Any]) -> str:
    """How it was asked, in words."""
    sampling = identity["sampling"]
    return (
        f"Temperature {sampling['temperature']:g}, top-p {sampling['top_p']:g}, at most {sampling['max_tokens']} new "
        f"tokens, prompt style `{sampling['prompt']}`, seed {sampling['seed']}. Intervals are 95 %, over problems."
    )


def accuracy_rows(report: Report, shown: Callable[[Estimate | None], str] | None = None) -> list[list[str]]:
    """A heading, and a row per set: every accuracy at the largest N."""
    shown = shown or with_interval
    rows = [["set", "problems", "k", "avg@k", "pass@k", "majority@k", "best of k", "weighted best of k", "greedy"]]
    for name, found in report.sets.items():
        last = [
            each[max(each)] if each else None for each in (found.pass_at, found.majority, found.best_of, found.weighted)
        ]
        rows.append(
            [
                report.titles[name],
                str(found.problems),
                str(found.samples),
                *map(shown, (found.average, *last, found.greedy)),
            ]
        )
    return rows


def outcome_rows(report: Report) -> list[list[str]]:
    """A heading, and a row per set: shares of samples by outcome, and what undecided ones could change."""
    names = list(next(iter(report.sets.values())).counts)
    rows = [
        ["set", *(each.replace("_", " ") for each in names), "at the token limit", "mean tokens", "avg@k if decided"]
    ]
    for name, found in report.sets.items():
        total = sum(found.counts.values()) or 1
        low, high = found.range_if_decided
        rows.append(
            [
                report.titles[name],
                *(f"{found.counts[each] / total:.3f}" for each in names),
                f"{found.truncated_share:.3f}",
                f"{found.mean_tokens:.0f}",
                f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}",
            ]
        )
    return rows


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; the first row is its heading."""
    heading, *body = rows
    return [
        f"| {' | '.join(heading)} |",
        f"|{'---|' * len(heading)}",
        *(f"| {' | '.join(row)} |" for row in body),
    ]


def _mean_line(report: Report) -> str:
    waiting = {name: count for name, count in report.waiting.items() if count}
    lines = [f"Mean of the sets: {report.mean:.3f}."] if report.mean is not None else []
    if waiting:
        lines.append(
            "Not whole: problems still to grade are " + ", ".join(f"{n} of {s}" for s, n in waiting.items()) + "."
        )
    return " ".join(lines)


def _curves(report: Report) -> list[str]:
    parts = []
    for name, found in report.sets.items():
        if len(found.pass_at) > 1:
            parts += [f"{report.titles[name]} by the number of samples:", "\n".join(table(curve_rows(found)))]
            parts += best_of_lines(found)
    return parts


def best_of_lines(found: SetSummary) -> list[str]:
    """What choosing by the PRM adds, in words; nothing where nothing was scored."""
    gain = found.best_of_gain
    if gain is None:
        return []
    return [f"Best of {max(found.best_of)} by the PRM less a single sample: {with_p(gain)}."]


def with_p(found: Difference) -> str:
    """A difference with its interval and p-value."""
    return f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f}), p = {found.p:.2g}"


def curve_rows(found: SetSummary) -> list[list[str]]:
    """A heading with N, and a row per curve: at powers of two, and at the largest N."""
    sizes = [size for size in found.pass_at if size & (size - 1) == 0 or size == max(found.pass_at)]
    rows = [[title, *(with_interval(curve[size]) for size in sizes)] for title, curve in found.curves.items()]
    return [["N", *map(str, sizes)], *rows]


def _contamination(identity: Mapping[str, Any]) -> list[str]:
    found = identity.get("contamination")
    if not found:
        return []
    shares = ", ".join(f"{name}: {each['found']} of {each['of']}" for name, each in found["sets"].items())
    return [f"Problems that are among the training problems ({found['training']}) by their word n-grams: {shares}."]


def _published(report: Report) -> list[str]:
    shared = [name for name in published.COLUMNS if name in report.sets]
    if not shared:
        return []
    places = [list(published.COLUMNS).index(name) for name in shared]
    rows = [["", *(published.COLUMNS[name] for name in shared)]]
    rows.append([f"**{describe_policy(report.identity)}**", *(_points(report.sets[name]) for name in shared)])
    rows += [[title, *(f"{figures[place]:.1f}" for place in places)] for title, figures in published.ROWS.items()]
    return [
        f"Beside published figures, in points: {published.SOURCE}.",
        "\n".join(table(rows)),
        "\n".join(f"* {caveat}" for caveat in published.CAVEATS),
    ]


def _points(found: SetSummary) -> str:
    estimate = found.greedy or found.average
    return "" if estimate is None else f"{100 * estimate.mean:.1f}"


def with_interval(estimate: Estimate | None) -> str:
    """`0.310 (0.271 to 0.352)`."""
    return "" if estimate is None else f"{estimate.mean:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def with_margin(estimate: Estimate | None) -> str:
    """`0.310 ±0.041`, for narrow places: half of the interval's width."""
    return "" if estimate is None else f"{estimate.mean:.3f} ±{(estimate.high - estimate.low) / 2:.3f}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def replace_file(file: Path, text: str) -> None:
    """Write a file that is there only when it is whole."""
    unfinished = file.with_name(f".{file.name}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(file)
