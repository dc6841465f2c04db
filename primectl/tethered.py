"""Runs a command that is told to end when whoever started it is gone: `python -m primectl.tethered PID COMMAND ...`.

Services have sessions of their own, so that we can stop them in good order; without this they would outlive a
`primectl` that was killed, and go on training with nobody watching.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
"""Linux: the kernel sends this signal when the parent dies (prctl(2)); it stays set over exec."""


def main() -> None:
    """Become the command; end at once if the parent is gone already."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() == int(parent):
        os.execvp(command[0], command)


if __name__ == "__main__":
    main()
