"""Memory of the machine, as opposed to a GPU's."""

import ctypes
import sys


def give_back_freed() -> None:
    """Have the C library return freed memory to the system, where it can (glibc); takes some milliseconds.

    Tensors of all sizes come and go in a pass, and glibc keeps the holes that they leave. From step to step they grow:
    a trainer of 135 M parameters went from 5 to 9 GiB in twenty steps.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
