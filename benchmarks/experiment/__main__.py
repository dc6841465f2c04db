"""`python -m benchmarks.experiment`: run the trial, a small part of it, or make the report from what is kept.

See `docs/experiment/protocol.md` for what is run and why, and `docs/experiment/report.md` for what came out.
"""

import argparse
import itertools
import sys
from pathlib import Path

from benchmarks.experiment.arms import ARMS, BY_NAME
from benchmarks.experiment.families import Machine
from benchmarks.experiment.one_run import Job
from benchmarks.experiment.sweep import sweep

_FOLDER = Path("runs") / "experiment"


def main() -> int:
    """Do what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experiment", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run", help="run arms of one family over rates and seeds; goes on where it was stopped")
    runs.add_argument("--family", required=True, help="chain-4, chain-8, chain-16, chain-32 or school")
    runs.add_argument("--arms", nargs="+", choices=sorted(BY_NAME), default=[arm.name for arm in ARMS], metavar="ARM")
    runs.add_argument("--seeds", nargs="+", type=int, required=True)
    runs.add_argument("--lr", nargs="+", type=float, required=True, help="of the policy")
    runs.add_argument("--prm-times", nargs="+", type=float, default=[10.0], help="the PRM's rate in policy rates")
    runs.add_argument("--steps", type=int, required=True)
    runs.add_argument("--evaluate-every", type=int, default=5)
    runs.add_argument("--folder", type=Path, default=_FOLDER)
    runs.add_argument("--processes", type=int, default=2)
    runs.add_argument("--device", default="cpu")
    runs.add_argument("--model", type=Path, help="the real model's folder, for the family school")
    arguments = parser.parse_args()
    jobs = [
        Job(
            family=arguments.family,
            arm=name,
            seed=seed,
            lr=lr,
            prm_lr=lr * times,
            steps=arguments.steps,
            evaluate_every=arguments.evaluate_every,
        )
        # Seeds outermost: when it is stopped, every arm has as many.
        for seed, name, lr in itertools.product(arguments.seeds, arguments.arms, arguments.lr)
        for times in (arguments.prm_times if BY_NAME[name].has_prm else [0.0])
    ]
    machine = Machine(device=arguments.device, model=arguments.model)
    sweep(jobs, machine=machine, folder=arguments.folder, processes=arguments.processes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
