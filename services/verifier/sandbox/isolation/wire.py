"""What travels between the service and a supervisor.

To it: a length, a JSON header that holds the lengths of the blobs, the blobs. From it: one `REPORT` and its blobs.
"""

import struct
from enum import IntEnum

FRAME = struct.Struct("!I")
REPORT = struct.Struct("!BiddIIIIId")
"""`Ending`, wait status, cpu s, wall s, peak KiB, then the lengths of stdout, stderr, value and compiled program, and
the seconds of wall time in which it waited for the processor."""


class Ending(IntEnum):
    """How an untrusted process came to its end."""

    EXITED = 0
    WALL_LIMIT = 1
    OUTPUT_LIMIT = 2
    REFUSED = 3
    """It could not be locked up; the program was not run."""
    STARVED = 4
    """The machine did not let it run to any end."""


MOST_CHANNELS = 64
"""Descriptors that a supervisor may be given at its start, one for each run of a process that talks with another."""


COMPILE_ERROR_CODE, CRASH_CODE = 121, 122
"""Exit codes of a process whose program is no valid Python, and of a checker that raised an exception.

A program may end with them too, and has then failed as well.
"""
