"""Who asks: set at the edges once a key was checked, read where the model is shared and where tokens are counted.

In a context variable, because what lies between the two (routes, best-of-N, the scorer) has no use for it. Tasks and
threads that a request starts take it along.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """On whose behalf a request is computed: `Caller(name="alice", share=2.0)`."""

    name: str
    """Of the key. All requests with one name share what that name gets."""
    share: float = 1.0
    """How much of the model it gets beside others: twice the share, twice the tokens."""
    is_urgent: bool = False
    """Whether this request goes before those that are not."""


ANYONE = Caller(name="anyone")
"""Where no key is asked for."""

_current: ContextVar[Caller] = ContextVar("caller", default=ANYONE)


def current_caller() -> Caller:
    """On whose behalf the running task works; `ANYONE` outside of a request."""
    return _current.get()


@contextlib.contextmanager
def calling(caller: Caller) -> Iterator[None]:
    """Work on a caller's behalf inside the block, and in tasks and threads that are started there."""
    token = _current.set(caller)
    try:
        yield
    finally:
        _current.reset(token)
