"""Repeating what may be repeated, for as long as patience lasts."""

import pytest

from prime.errors import InvalidInput, PeerUnavailable, PrimeError
from prime.patience import patiently


class Script:
    """Raises its errors one after another, then answers."""

    def __init__(self, *errors: PrimeError) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


async def test_what_is_away_for_a_moment_is_waited_for() -> None:
    script = Script(PeerUnavailable("restarting"), PeerUnavailable("restarting"))
    assert await patiently(script, seconds=30.0) == "answer"
    assert script.calls == 3


async def test_what_a_repeat_cannot_cure_is_raised_at_once() -> None:
    script = Script(InvalidInput("bad"))
    with pytest.raises(InvalidInput, match="bad"):
        await patiently(script, seconds=30.0)
    assert script.calls == 1


async def test_without_patience_there_is_one_try() -> None:
    script = Script(PeerUnavailable("gone"))
    with pytest.raises(PeerUnavailable, match="gone"):
        await patiently(script, seconds=0.0)
    assert script.calls == 1
