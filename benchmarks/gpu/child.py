"""`python -m benchmarks.gpu.child SECTION`: one section in a process of its own. The last line is its JSON.

A crash or a broken CUDA context then ends this section alone, and its memory is all given back.
"""

import argparse
import faulthandler
import importlib
import json
import math
from typing import Any

import torch

from benchmarks.gpu.job import Figures, Job
from prime.lm.model import pick_device, settle_torch
from prime.lm.world import World

# Before the parent ends this process: where it hangs is then on stderr.
_LAST_WORDS_S = 3


def main() -> None:
    """Run the section, `MODULE` or `MODULE SHAPE` as in `plan.SECTIONS`, and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("section")
    parser.add_argument("--device", required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--limit", type=float, required=True)
    arguments = parser.parse_args()
    faulthandler.dump_traceback_later(max(arguments.limit - _LAST_WORDS_S, 0.1))
    device = pick_device(arguments.device)
    settle_torch(device=arguments.device, threads=0)
    job = Job(device=device, tiny=arguments.tiny, seconds=arguments.seconds)
    try:
        found = _run(arguments.section, job)
    except torch.OutOfMemoryError as error:
        found = {"skipped": f"does not fit into the device's memory: {str(error).splitlines()[0]}"}
    World().leave()
    print(json.dumps(_sayable(found)))


def _run(section: str, job: Job) -> Figures:
    name, *rest = section.split()
    found: Figures = importlib.import_module(f"benchmarks.gpu.{name}").run(job, *rest)
    return found


def _sayable(value: Any) -> Any:
    """The same, with text in place of numbers that JSON does not know."""
    if isinstance(value, dict):
        return {name: _sayable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_sayable(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    main()
