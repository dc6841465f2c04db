"""`python -m benchmarks.experiment`: run the trial, a small part of it, or make the report from what is kept.

See `docs/experiment/protocol.md` for what is run and why.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.experiment.arms import ARMS, BY_NAME
from benchmarks.experiment.families import Machine, family_of
from benchmarks.experiment.offline import LOSSES, train_and_measure, write_candidates
from benchmarks.experiment.one_run import Job
from benchmarks.experiment.outcome import FIRST_REPORTED_SEED, tuned_settings
from benchmarks.experiment.report import figures_of, read_results, write_report
from benchmarks.experiment.sweep import gather, sweep
from prime.errors import SettingsError

_FOLDER = Path("runs") / "experiment"
_SMALL = Path("runs") / "experiment-small"
_KEPT = Path("docs") / "experiment"
_SMALL_ARMS = ("rloo", "prime", "placebo", "oracle")
_SMALL_LR, _SMALL_PRM_TIMES = 8e-4, 0.1

_Rates = Mapping[str, Sequence[tuple[float, float]]]
"""Of policy and PRM, per arm."""


def main() -> int:
    """Do what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experiment", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_run(commands.add_parser("run", help="run arms of one family over rates and seeds; goes on where it stopped"))
    keep = commands.add_parser("keep", help="put the results of a folder, one file per family, where the report reads")
    keep.add_argument("--folder", type=Path, default=_FOLDER)
    keep.add_argument("--kept", type=Path, default=_KEPT)
    _add_offline(
        commands.add_parser("offline", help="train PRMs offline with every loss, and measure what they are worth")
    )
    report = commands.add_parser("report", help="tables, plots and figures from kept results")
    report.add_argument("--kept", type=Path, default=_KEPT)
    small = commands.add_parser("small", help="from nothing: four arms of chain-8, two tuning and three other seeds")
    small.add_argument("--folder", type=Path, default=_SMALL)
    small.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    try:
        _do(arguments)
    except (FileNotFoundError, SettingsError) as error:
        parser.exit(1, f"{error}\n")
    return 0


def _do(arguments: argparse.Namespace) -> None:
    match arguments.command:
        case "run":
            _run(arguments)
        case "keep":
            _keep(arguments.folder, arguments.kept)
        case "offline":
            _offline(arguments)
        case "report":
            _report(arguments.kept)
        case "small":
            _run_small(arguments.folder, processes=arguments.processes)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--family", required=True, help="chain-N, habits-N, wordy-N or control-N, of N steps; sokoban; school"
    )
    parser.add_argument("--arms", nargs="+", choices=sorted(BY_NAME), default=[arm.name for arm in ARMS], metavar="ARM")
    parser.add_argument("--seeds", nargs="+", type=int, required=True)
    rates = parser.add_mutually_exclusive_group(required=True)
    rates.add_argument("--lr", nargs="+", type=float, help="of the policy")
    rates.add_argument("--tuned", action="store_true", help="each arm's rates that did best on the tuning seeds here")
    parser.add_argument("--prm-times", nargs="+", type=float, default=[0.1], help="the PRM's rate in policy rates")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--evaluate-every", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=_FOLDER)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", type=Path, help="the real model's folder, for the family school")


def _run(arguments: argparse.Namespace) -> None:
    rates = _tuned_rates(arguments) if arguments.tuned else _grid(arguments)
    jobs = [
        Job(
            family=arguments.family,
            arm=name,
            seed=seed,
            lr=lr,
            prm_lr=prm_lr,
            steps=arguments.steps,
            evaluate_every=arguments.evaluate_every,
        )
        # Seeds outermost: when it is stopped, every arm has as many.
        for seed, name in itertools.product(arguments.seeds, arguments.arms)
        for lr, prm_lr in rates[name]
    ]
    machine = Machine(device=arguments.device, model=arguments.model)
    sweep(jobs, machine=machine, folder=arguments.folder, processes=arguments.processes)


def _grid(arguments: argparse.Namespace) -> _Rates:
    return {
        name: [(lr, prm_lr) for lr in arguments.lr for prm_lr in _prm_rates(name, lr, arguments.prm_times)]
        for name in arguments.arms
    }


def _tuned_rates(arguments: argparse.Namespace) -> _Rates:
    rows = [row for row in gather(arguments.folder).to_pylist() if row["family"] == arguments.family]
    settings = tuned_settings(rows)
    if untuned := [name for name in arguments.arms if name not in settings]:
        raise SettingsError(
            f"{arguments.folder} has no runs of {arguments.family} with a tuning seed for {', '.join(untuned)}: run "
            f"them first, with --lr and with --seeds below {FIRST_REPORTED_SEED}"
        )
    return {name: [(settings[name].lr, settings[name].prm_lr)] for name in arguments.arms}


def _prm_rates(arm: str, lr: float, times: Sequence[float]) -> list[float]:
    return [lr * each for each in times] if BY_NAME[arm].has_prm else [0.0]


def _keep(folder: Path, kept: Path) -> None:
    table = gather(folder)
    results = kept / "results"
    results.mkdir(parents=True, exist_ok=True)
    for family in sorted(set(table["family"].to_pylist())):
        of_family = table.filter(pa.compute.equal(table["family"], family))
        pq.write_table(of_family, results / f"{family}.parquet", compression="zstd")


def _add_offline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--family", required=True)
    parser.add_argument("--lr", nargs="+", type=float, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, required=True)
    parser.add_argument("--folder", type=Path, default=_FOLDER)
    parser.add_argument("--kept", type=Path, default=_KEPT)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", type=Path, help="the real model's folder, for the family school")


def _offline(arguments: argparse.Namespace) -> None:
    family = family_of(arguments.family, Machine(device=arguments.device, model=arguments.model))
    material = family.material(arguments.folder / "material")
    candidates = arguments.folder / "candidates" / family.name
    if not (candidates / "test.jsonl").is_file():
        write_candidates(family, material, candidates)
    kept = arguments.kept / "results" / "offline"
    kept.mkdir(parents=True, exist_ok=True)
    found = []
    for seed, loss, lr in itertools.product(arguments.seeds, LOSSES, arguments.lr):
        result = train_and_measure(
            family,
            loss=loss,
            lr=lr,
            seed=seed,
            sft=material / "sft",
            candidates=candidates,
            scratch=arguments.folder / "offline" / f"{family.name}.{loss}.{lr:g}.{seed}",
        )
        print(result, file=sys.stderr, flush=True)
        found.append(asdict(result))
        # After each, so that what is stopped has not been in vain.
        pq.write_table(pa.Table.from_pylist(found), kept / f"{family.name}.parquet", compression="zstd")


def _report(kept: Path) -> None:
    outcomes = read_results(kept / "results")
    write_report(outcomes, kept, offline=sorted((kept / "results" / "offline").glob("*.parquet")))
    print(json.dumps(figures_of(outcomes)))


def _run_small(folder: Path, *, processes: int) -> None:
    """A fixed subset from nothing; what it says is of three seeds, and shows that the trial can be run again."""
    jobs = [
        Job(family="chain-8", arm=name, seed=seed, lr=_SMALL_LR, prm_lr=prm_lr, steps=16, evaluate_every=2)
        for seed, name in itertools.product((1, 2, 101, 102, 103), _SMALL_ARMS)
        for prm_lr in _prm_rates(name, _SMALL_LR, [_SMALL_PRM_TIMES])
    ]
    sweep(jobs, machine=Machine(), folder=folder, processes=processes)
    _keep(folder, folder)
    _report(folder)


if __name__ == "__main__":
    sys.exit(main())
