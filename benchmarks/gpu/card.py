"""What the card is and how fast it is by itself: the rates that everything else is held against."""

import platform

import torch
import transformers

from benchmarks.gpu.job import GIB, Figures, Job, copy_rate, matmul_rate
from benchmarks.machine import machine


def run(job: Job) -> Figures:
    """Name, memory, versions, and the measured rates of matrix products and of memory."""
    figures: Figures = {"device": machine()}
    if job.device.type == "cuda":
        facts = torch.cuda.get_device_properties(job.device)
        figures = {
            "device": facts.name,
            "memory_gib": round(facts.total_memory / GIB, 1),
            "multiprocessors": facts.multi_processor_count,
            "compute_capability": f"{facts.major}.{facts.minor}",
            "cuda": torch.version.cuda,
        }
    return {
        **figures,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "matmul_teraflops": round(matmul_rate(job) / 1e12, 3),
        "copy_terabytes_per_second": round(copy_rate(job) / 1e12, 3),
    }
