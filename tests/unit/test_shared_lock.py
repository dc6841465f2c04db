"""Many share the lock, one has it alone, and who wants it alone is not starved by sharers that keep coming."""

import asyncio

from services.prm.shared_lock import SharedLock


async def test_sharers_are_side_by_side_and_one_alone_waits_for_them_and_is_next() -> None:
    lock = SharedLock()
    await lock.acquire(shared=True)
    await asyncio.wait_for(lock.acquire(shared=True), timeout=5)
    alone = asyncio.ensure_future(lock.acquire(shared=False))
    await asyncio.sleep(0)
    later = asyncio.ensure_future(lock.acquire(shared=True))
    for _ in range(2):
        await asyncio.sleep(0.01)
        assert not alone.done()
        await lock.release(shared=True)
    await asyncio.wait_for(alone, timeout=5)
    await asyncio.sleep(0.01)
    assert not later.done()
    await lock.release(shared=False)
    await asyncio.wait_for(later, timeout=5)


async def test_who_gives_up_waiting_holds_up_nobody() -> None:
    lock = SharedLock()
    await lock.acquire(shared=True)
    alone = asyncio.ensure_future(lock.acquire(shared=False))
    await asyncio.sleep(0.01)
    sharer = asyncio.ensure_future(lock.acquire(shared=True))
    await asyncio.sleep(0.01)
    alone.cancel()
    await asyncio.wait_for(sharer, timeout=5)
