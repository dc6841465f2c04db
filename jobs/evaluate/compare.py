"""Two evaluations on the same problems: the paired difference per set and overall."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.evaluate.folder import read_evaluation
from jobs.evaluate.report import describe_policy, describe_sampling, table
from prime.errors import DataError
from prime.evaluation.intervals import Difference, mean_difference, paired_difference
from prime.evaluation.summary import averages


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SetComparison:
    """One set: `SetComparison(problems=500, first=0.31, second=0.35, difference=Difference(mean=0.04, ...))`."""

    problems: int
    """With a decided sample in both."""
    first: float
    second: float
    difference: Difference


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Second minus first. `overall` is the plain mean over the sets, where there are several."""

    names: tuple[str, str]
    sets: Mapping[str, SetComparison]
    overall: Difference | None
    warnings: tuple[str, ...]
    """What differs besides the policy."""


def compare(first: Path, second: Path) -> Comparison:
    """Compare the sets that both folders hold.

    Raises:
        CheckpointError: a folder holds no evaluation.
        DataError: they share no set, or a set is of two files.
    """
    identities, graded = zip(*(read_evaluation(each) for each in (first, second)), strict=True)
    shared = [name for name in identities[0]["sets"] if name in identities[1]["sets"]]
    sets = {}
    for name in shared:
        descriptions = [each["sets"][name] for each in identities]
        if descriptions[0]["sha256"] != descriptions[1]["sha256"]:
            raise DataError(f"{first} and {second} have {name} from two files, so its problems cannot be paired")
        asked = set(descriptions[0]["problems"]) & set(descriptions[1]["problems"])
        before, after = (averages([each for key, each in found.items() if key in asked]) for found in graded)
        pairs = sorted(before.keys() & after.keys())
        if pairs:
            values = [[side[each] for each in pairs] for side in (before, after)]
            sets[name] = SetComparison(
                problems=len(pairs),
                first=sum(values[0]) / len(pairs),
                second=sum(values[1]) / len(pairs),
                difference=paired_difference(values[0], values[1]),
            )
    if not sets:
        raise DataError(f"{first} and {second} have no graded problem in common")
    return Comparison(
        names=(describe_policy(identities[0]), describe_policy(identities[1])),
        sets=sets,
        overall=mean_difference([each.difference for each in sets.values()]) if len(sets) > 1 else None,
        warnings=_warnings(*identities),
    )


def comparison_rows(found: Comparison) -> list[list[str]]:
    """A heading, and a row per set and for all."""
    rows = [["set", "problems", "first", "second", "difference", "95 %", "p"]]
    for name, each in found.sets.items():
        rows.append([name, str(each.problems), f"{each.first:.3f}", f"{each.second:.3f}", *_cells(each.difference)])
    if found.overall is not None:
        rows.append(["all, each set alike", "", "", "", *_cells(found.overall)])
    return rows


def comparison_markdown(found: Comparison) -> str:
    """A page with the table."""
    return (
        "\n\n".join(
            [
                f"# {found.names[1]} against {found.names[0]}",
                "Share of right samples per problem, second minus first; paired t test over problems.",
                "\n".join(table(comparison_rows(found))),
                *found.warnings,
            ]
        )
        + "\n"
    )


def _cells(found: Difference) -> list[str]:
    return [f"{found.mean:+.3f}", f"{found.low:+.3f} to {found.high:+.3f}", f"{found.p:.3g}"]


def _warnings(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[str, ...]:
    if first["sampling"] == second["sampling"]:
        return ()
    sides = [describe_sampling(each).removesuffix(" Intervals are 95 %, over problems.") for each in (first, second)]
    return (
        "They were sampled differently, so the difference is not the policy's alone. "
        f"First: {sides[0]} Second: {sides[1]}",
    )
