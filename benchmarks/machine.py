"""What a benchmark ran on."""

import os
import platform


def machine() -> str:
    """Cores, kernel and Python, and torch where it was used."""
    return f"{os.cpu_count()} cores, {_processor()}, Linux {platform.release()}, Python {platform.python_version()}"


def _processor() -> str:
    with open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()
