"""Calls by idempotency key: joined, repeated, deserted, failed."""

import asyncio

import pytest

from prime.errors import InvalidInput
from services.verifier.calls import Calls


class Work:
    """Counts how often it is begun and ended; goes on until it is let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0
        self.may_end = asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        await self.may_end.wait()
        self.ended += 1
        return self.begun


async def test_a_call_that_is_repeated_while_it_runs_joins_the_first() -> None:
    calls: Calls[int] = Calls()
    work = Work()
    asked = [asyncio.ensure_future(calls.once("a", 1, work)) for _ in range(3)]
    await asyncio.sleep(0)
    work.may_end.set()
    assert await asyncio.gather(*asked) == [1, 1, 1]
    assert await calls.once("a", 1, work) == 1
    assert await calls.once("b", 1, work) == 2


async def test_a_call_whose_caller_left_goes_on_for_one_that_comes_back() -> None:
    calls: Calls[int] = Calls(rejoin_seconds=60.0)
    work = Work()
    first = asyncio.ensure_future(calls.once("a", 1, work))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    work.may_end.set()
    assert await calls.once("a", 1, work) == 1
    assert work.begun == 1


async def test_a_call_that_nobody_comes_back_for_is_stopped_and_forgotten() -> None:
    calls: Calls[int] = Calls(rejoin_seconds=0.01)
    work = Work()
    first = asyncio.ensure_future(calls.once("a", 1, work))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await asyncio.sleep(0.1)
    work.may_end.set()
    assert await calls.once("a", 1, work) == 2
    assert work.ended == 1


async def test_a_call_that_failed_is_tried_again() -> None:
    calls: Calls[int] = Calls()

    async def fails() -> int:
        raise ValueError("broken")

    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            await calls.once("a", 1, fails)
    work = Work()
    work.may_end.set()
    assert await calls.once("a", 1, work) == 1


async def test_one_key_stands_for_one_question() -> None:
    calls: Calls[int] = Calls()
    work = Work()
    work.may_end.set()
    await calls.once("a", 1, work)
    with pytest.raises(InvalidInput, match="'a' came before"):
        await calls.once("a", 2, work)


async def test_closing_stops_what_runs() -> None:
    calls: Calls[int] = Calls()
    work = Work()
    asked = asyncio.ensure_future(calls.once("a", 1, work))
    await asyncio.sleep(0)
    await calls.close()
    assert asked.cancelled() or isinstance((await asyncio.gather(asked, return_exceptions=True))[0], BaseException)
    assert work.ended == 0
