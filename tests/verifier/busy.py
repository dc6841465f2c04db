"""Other processes that want the processors."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

_SPIN = "import os\nwhile os.getppid() == {parent}: pass"


@contextlib.contextmanager
def other_load(factor: int) -> Iterator[None]:
    """So many other processes for each processor, all of which want it."""
    command = [sys.executable, "-c", _SPIN.format(parent=os.getpid())]
    spinners = [subprocess.Popen(command) for _ in range(factor * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
        for spinner in spinners:
            spinner.wait()
