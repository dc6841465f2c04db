"""The queue's contract: the same cases over the in-memory twin and a real Redis."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis.asyncio

from prime import tracing
from prime.adapters.memory import MemoryBroker, MemoryQueue
from prime.adapters.redis_queue import RedisQueue
from prime.errors import PeerUnavailable, SettingsError
from prime.types import RolloutFailure, RolloutGroup
from primectl.places import free_port
from tests.builders import group, request

Queue = MemoryQueue | RedisQueue
LEASE_S = 0.8  # long enough that a busy machine does not let one lapse by itself
_runs = itertools.count()


class Queues:
    """Opens consumers of one run."""

    def __init__(self, url: str | None, stack: AsyncExitStack) -> None:
        self._broker = MemoryBroker()
        self._url = url
        self._stack = stack
        self._run = f"test-{next(_runs)}"

    async def open(self, consumer: str, *, delivery_limit: int = 5) -> Queue:
        if self._url is None:
            return MemoryQueue(self._broker, consumer=consumer, lease_seconds=LEASE_S, delivery_limit=delivery_limit)
        return await self._stack.enter_async_context(
            RedisQueue(
                self._url, run=self._run, consumer=consumer, lease_seconds=LEASE_S, delivery_limit=delivery_limit
            )
        )


@pytest.fixture(params=["memory", "redis"])
async def queues(request: pytest.FixtureRequest) -> AsyncIterator[Queues]:
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None
    async with AsyncExitStack() as stack:
        yield Queues(url, stack)


async def test_requests_come_out_whole_and_in_order(queues: Queues) -> None:
    trainer, worker = await queues.open("trainer"), await queues.open("w")
    asked = [request(f"g{number}", prompt=(number, 7), seed=2**60 + number) for number in range(5)]
    await trainer.ask(asked)
    claims = await worker.claim(3, 1.0) + await worker.claim(3, 1.0)
    assert [claim.item for claim in claims] == asked
    assert {claim.deliveries for claim in claims} == {1}


async def test_nobody_gets_what_another_holds(queues: Queues) -> None:
    trainer, one, other = await queues.open("trainer"), await queues.open("w1"), await queues.open("w2")
    await trainer.ask([request("g1")])
    assert len(await one.claim(5, 1.0)) == 1
    assert await other.claim(5, 0.0) == []


async def test_a_trace_travels_there_with_the_request_and_back_with_the_group(queues: Queues) -> None:
    trainer, worker = await queues.open("trainer"), await queues.open("w")
    asking, sampling = (f"00-{number:032x}-{number:016x}-01" for number in (1, 2))
    with tracing.span("asks", parent=asking):
        await trainer.ask([request("g1")])
    await trainer.ask([request("g2")])
    traced, other = await worker.claim(2, 1.0)
    assert (traced.trace, other.trace) == (asking, "")
    with tracing.span("samples", parent=sampling):
        await worker.deliver(traced, group("g1"))
    await worker.refuse(other, "it is too long")
    assert [claim.trace for claim in await trainer.take(2, 1.0)] == [sampling, ""]


async def test_an_answered_request_is_gone_and_its_group_arrives_once(queues: Queues) -> None:
    trainer, worker = await queues.open("trainer"), await queues.open("w")
    await trainer.ask([request("g1")])
    (claim,) = await worker.claim(1, 1.0)
    assert await worker.deliver(claim, group("g1"))
    assert not await worker.deliver(claim, group("g1"))
    (result,) = await trainer.take(5, 1.0)
    assert result.item == group("g1")
    depths = await trainer.depths()
    assert (depths.requests, depths.groups, depths.dead) == (0, 1, 0)
    await trainer.acknowledge([result])
    assert (await trainer.depths()).groups == 0
    assert await trainer.take(5, 0.0) == []


async def test_a_lapsed_lease_is_taken_over_and_the_slow_holder_is_not_counted(queues: Queues) -> None:
    trainer, slow, quick = await queues.open("trainer"), await queues.open("w1"), await queues.open("w2")
    await trainer.ask([request("g1")])
    (held,) = await slow.claim(1, 1.0)
    await asyncio.sleep(1.5 * LEASE_S)
    (taken,) = await quick.claim(1, 1.0)
    assert taken.item == held.item
    assert taken.deliveries == 2
    assert await quick.deliver(taken, group("g1", responses=((9, 1),)))
    assert not await slow.deliver(held, group("g1"))
    (result,) = await trainer.take(5, 1.0)
    assert isinstance(result.item, RolloutGroup)
    assert result.item.samples[0].response_ids == (9, 1)


async def test_a_renewed_lease_is_kept(queues: Queues) -> None:
    trainer, holder, other = await queues.open("trainer"), await queues.open("w1"), await queues.open("w2")
    await trainer.ask([request("g1")])
    claims = await holder.claim(1, 1.0)
    for _ in range(4):
        await asyncio.sleep(LEASE_S / 2)
        await holder.renew(claims)
        assert await other.claim(1, 0.0) == []


async def test_what_is_given_back_is_free_at_once_and_not_counted_as_a_delivery(queues: Queues) -> None:
    trainer, one, other = await queues.open("trainer"), await queues.open("w1"), await queues.open("w2")
    await trainer.ask([request("g1")])
    for _ in range(3):
        claims = await one.claim(1, 1.0)
        await one.give_back(claims)
    (claim,) = await other.claim(1, 1.0)
    assert claim.deliveries == 1


async def test_what_a_dead_worker_held_is_free_at_once_and_its_deliveries_count(queues: Queues) -> None:
    trainer, dead, other = await queues.open("trainer"), await queues.open("w1"), await queues.open("w2")
    await trainer.ask([request(f"g{number}") for number in range(4)])
    held, kept = await dead.claim(3, 1.0), await other.claim(1, 1.0)
    assert await (await queues.open("w1")).give_back_all() == 3
    claims = await other.claim(4, 1.0)
    assert [claim.item for claim in claims] == [claim.item for claim in held]
    assert [claim.deliveries for claim in [*claims, *kept]] == [2, 2, 2, 1]
    assert await dead.give_back_all() == 0


async def test_a_request_that_kills_its_workers_ends_in_the_dead_letters(queues: Queues) -> None:
    trainer, worker = await queues.open("trainer"), await queues.open("w", delivery_limit=2)
    await trainer.ask([request("g1")])
    for _ in range(2):
        assert len(await worker.claim(1, 1.0)) == 1
        await asyncio.sleep(1.2 * LEASE_S)
    assert await worker.claim(1, 0.0) == []
    (result,) = await trainer.take(1, 1.0)
    assert isinstance(result.item, RolloutFailure)
    assert "2 deliveries" in result.item.reason
    assert (await trainer.depths()).dead == 1


async def test_a_refused_request_tells_the_trainer_why(queues: Queues) -> None:
    trainer, worker = await queues.open("trainer"), await queues.open("w")
    await trainer.ask([request("g1")])
    (claim,) = await worker.claim(1, 1.0)
    await worker.refuse(claim, "too long")
    (result,) = await trainer.take(1, 1.0)
    assert result.item == RolloutFailure(group_id="g1", problem_id="p", reason="too long")
    depths = await trainer.depths()
    assert (depths.requests, depths.dead) == (0, 1)


async def test_a_new_life_of_the_trainer_starts_from_nothing(queues: Queues) -> None:
    trainer, worker = await queues.open("trainer"), await queues.open("w")
    await trainer.ask([request("g1"), request("g2"), request("g3")])
    held = await worker.claim(2, 1.0)
    await worker.deliver(held[0], group("g1"))
    assert await trainer.discard_all() == 3
    assert not await worker.deliver(held[1], group("g2"))
    assert await worker.claim(5, 0.0) == []
    await trainer.ask([request("g4")])
    (claim,) = await worker.claim(5, 1.0)
    await worker.deliver(claim, group("g4"))
    assert [each.item.group_id for each in await trainer.take(5, 1.0)] == ["g4"]


async def test_a_waiting_worker_gets_what_comes_later(queues: Queues) -> None:
    trainer, worker = await queues.open("trainer"), await queues.open("w")
    waiting = asyncio.create_task(worker.claim(1, 5.0))
    await asyncio.sleep(0.1)
    await trainer.ask([request("g1")])
    assert [claim.item.group_id for claim in await waiting] == ["g1"]


async def test_a_worker_that_waits_while_everything_is_discarded_goes_on_waiting(queues: Queues) -> None:
    trainer, worker = await queues.open("trainer"), await queues.open("w")
    waiting = asyncio.create_task(worker.claim(1, 0.5))
    await asyncio.sleep(0.1)
    await trainer.discard_all()
    assert await waiting == []
    await trainer.ask([request("g1")])
    assert len(await worker.claim(1, 1.0)) == 1


# ---------------------------------------------------------------- Redis alone


async def test_an_unreadable_entry_is_moved_out_of_the_way_with_its_reason(redis_url: str) -> None:
    client = redis.asyncio.Redis.from_url(redis_url)
    async with RedisQueue(redis_url, run="torn", consumer="w") as queue:
        await client.xadd("prime:torn:requests", {"m": b"\xff\xff"})
        await client.xadd("prime:torn:groups", {"m": b"\xff\xff"})
        await queue.ask([request("g1")])
        assert [claim.item.group_id for claim in await queue.claim(5, 1.0)] == ["g1"]
        assert await queue.take(5, 0.1) == []
        dead: Any = await client.xrange("prime:torn:dead")
        assert [fields[b"reason"].startswith(b"unreadable") for _, fields in dead] == [True, True]
    await client.aclose()


async def test_results_whose_answer_got_lost_are_handed_out_again(redis_url: str) -> None:
    async with RedisQueue(redis_url, run="lost", consumer="trainer") as queue:
        await queue.ask([request("g1")])
        (claim,) = await queue.claim(1, 1.0)
        await queue.deliver(claim, group("g1"))
        assert len(await queue.take(5, 1.0)) == 1  # received by Redis' account, and then the connection broke
        queue._results_may_be_lost = True
        (again,) = await queue.take(5, 0.0)
        await queue.acknowledge([again])
        assert await queue.take(5, 0.0) == []


async def test_a_redis_that_lost_its_data_gets_its_streams_back(redis_url: str) -> None:
    client = redis.asyncio.Redis.from_url(redis_url)
    async with RedisQueue(redis_url, run="emptied", consumer="w") as queue:
        await client.delete("prime:emptied:requests", "prime:emptied:groups")
        with pytest.raises(PeerUnavailable, match="lost its streams"):
            await queue.claim(1, 0.1)
        await queue.ask([request("g1")])
        assert len(await queue.claim(1, 1.0)) == 1
    await client.aclose()


async def test_an_address_that_is_no_redis_url_is_a_setting_to_mend() -> None:
    with pytest.raises(SettingsError, match=r"run\.redis_url"):
        RedisQueue("localhost:6379", run="x", consumer="w")


async def test_a_redis_that_is_not_there_is_named_without_its_password() -> None:
    url = f"redis://:hunter2@127.0.0.1:{free_port()}/0"
    with pytest.raises(PeerUnavailable, match=r"redis://127\.0\.0\.1:\d+/0 does not answer") as caught:
        await RedisQueue(url, run="x", consumer="w").__aenter__()
    assert "hunter2" not in str(caught.value)
