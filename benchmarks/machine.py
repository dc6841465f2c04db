"""What a benchmark ran on."""

import os
import platform


def machine() -> str:
    """Cores, kernel and Python, and torch where it was used."""
    return f"{os.cpu_count()} cores, {_processor()}, Linux {platform.release()}, Python {platform.python_version()}"


def give_vllm_all_cores() -> None:
    """Of a CPU, before vLLM starts: its worker would leave one for the rest otherwise."""
    cores = f"0-{(os.cpu_count() or 1) - 1}"
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", cores)  # noqa: TID251  vLLM reads it from nowhere else


def _processor() -> str:
    with open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()
