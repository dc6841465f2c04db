"""Whatever a tracker's library raises becomes a TrackerError that carries its words."""

import contextlib
from collections.abc import Iterator

from prime.errors import PrimeError, TrackerError


@contextlib.contextmanager
def translated(tracker: str) -> Iterator[None]:
    """Around the methods of an adapter, as a decorator.

    Raises:
        TrackerError: the library raised anything.
    """
    try:
        yield
    except PrimeError:
        raise
    except Exception as error:
        # Each library has errors of its own, and those of the network below it.
        raise TrackerError(f"{tracker}: {type(error).__name__}: {error}") from error
