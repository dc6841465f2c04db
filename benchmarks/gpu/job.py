"""What every section of the GPU measurement is given, and how it times and counts."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from benchmarks.prm_pair import Shape
from benchmarks.training import SHAPES

ResultT = TypeVar("ResultT")
GIB = 1024**3
Figures = dict[str, Any]
"""What a section found: plain values by name. `rows` is a table (dictionaries with the same keys), `problems` a list of
sentences: a section that has some has failed."""
TINY = Shape(hidden=64, layers=2, heads=4, groups=2, inner=128, vocabulary=512)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Where and how large: `Job(device=torch.device("cuda"), tiny=False, seconds=60.0)`."""

    device: torch.device
    tiny: bool
    """Shapes for a trial on a CPU, whose figures say nothing about speed."""
    seconds: float
    """How long the section should take; what repeats, repeats until then."""

    def shape(self, name: str) -> Shape:
        """Of Qwen2.5 `0.5B`, `1.5B` or `7B`."""
        return TINY if self.tiny else SHAPES[name]

    def size(self, usual: int, tiny: int) -> int:
        """A count, smaller in a trial."""
        return tiny if self.tiny else usual


def seconds_of(work: Callable[[], Any], device: torch.device) -> float:
    """How long the device takes for it: by CUDA events, or by the clock on a CPU."""
    if device.type != "cuda":
        started = time.perf_counter()
        work()
        return time.perf_counter() - started
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    work()
    end.record()
    torch.cuda.synchronize(device)
    return float(start.elapsed_time(end)) / 1000


class Stopwatch:
    """Times parts of something larger by name: `rows = watch.time("score", lambda: lm.score_rows(...))`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}
        """Of each part, the last time that it ran."""

    def time(self, part: str, work: Callable[[], ResultT]) -> ResultT:
        """What `work` returns."""
        found: list[ResultT] = []
        self.seconds[part] = seconds_of(lambda: found.append(work()), self._device)
        return found[0]


def matmul_rate(job: Job) -> float:
    """Operations per second of a large square product in bfloat16, on random data; the median of 20 after 5."""
    size = job.size(8192, 256)
    left, right = (torch.randn(size, size, device=job.device, dtype=torch.bfloat16) for _ in range(2))
    spent = [seconds_of(lambda: left @ right, job.device) for _ in range(25)]
    return float(2 * size**3) / statistics.median(spent[5:])


def copy_rate(job: Job) -> float:
    """Bytes read and written per second by a copy on the device."""
    source = torch.ones(job.size(2**31, 2**22), dtype=torch.uint8, device=job.device)
    target = torch.empty_like(source)
    spent = [seconds_of(lambda: target.copy_(source), job.device) for _ in range(15)]
    return 2 * source.numel() / statistics.median(spent[5:])


def peak_gib(device: torch.device) -> float | None:
    """Most memory that tensors took on the device since its start; None on a CPU, where nobody counts."""
    return round(torch.cuda.max_memory_allocated(device) / GIB, 2) if device.type == "cuda" else None
