"""The rollout queue on Redis Streams (commands of Redis 6.2).

    prime:{run}:requests   stream   field m: protobuf RolloutRequest    group "rollout", a consumer per replica
    prime:{run}:groups     stream   field m: protobuf RolloutResult     group "trainer", one consumer
    prime:{run}:dead       stream   fields m, reason, deliveries        read by people

Entries of the first two have a field traceparent as well (see `prime.tracing`), which may be empty.

A claimed entry stays in its group's pending list until it is acknowledged, and is deleted with the acknowledgement,
so a stream's length is what is still to be done. A lease is the entry's idle time: renewing sets it to 0, an entry
idle for longer than the lease may be claimed by anyone. Answering a request is one script: acknowledge, delete and
append the result, or nothing at all when somebody else was first.
"""

import contextlib
import socket
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import redis.asyncio
import structlog
from google.protobuf.message import DecodeError
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from prime import tracing, wire
from prime.errors import EngineError, InvalidInput, PeerUnavailable, SettingsError
from prime.ports import Claim, QueueDepths
from prime.types import RolloutFailure, RolloutGroup, RolloutRequest
from prime.v1 import types_pb2

_log = structlog.get_logger()
_FIELD, _TRACE = b"m", tracing.TRACEPARENT.encode()
_ROLLOUT, _TRAINER = "rollout", "trainer"
_MOST_HELD = 10_000
"""Requests that one consumer holds; it claims no more than it samples at a time."""

# KEYS: requests, results, dead. ARGV: entry id, result, traceparent; for a dead letter: request, reason, deliveries.
_ANSWER = """
if redis.call('XACK', KEYS[1], 'rollout', ARGV[1]) == 0 then return 0 end
redis.call('XDEL', KEYS[1], ARGV[1])
redis.call('XADD', KEYS[2], '*', 'm', ARGV[2], 'traceparent', ARGV[3])
if ARGV[4] then
  redis.call('XADD', KEYS[3], '*', 'm', ARGV[4], 'reason', ARGV[5], 'deliveries', ARGV[6])
end
return 1
"""

AnswerT = TypeVar("AnswerT")
ItemT = TypeVar("ItemT")


def consumer_name(pid: int) -> str:
    """What a rollout replica on this machine calls itself."""
    return f"{socket.gethostname()}-{pid}"


class RedisQueue:
    """Both sides of the queue: `ports.RolloutQueue` and `ports.RequestQueue`. Use as an async context manager."""

    def __init__(
        self,
        url: str,
        *,
        run: str,
        consumer: str,
        password: str = "",
        lease_seconds: float = 30.0,
        delivery_limit: int = 5,
    ) -> None:
        """`password` counts where the URL names none."""
        self._url = url
        self._requests = f"prime:{run}:requests"
        self._groups = f"prime:{run}:groups"
        self._dead = f"prime:{run}:dead"
        self._consumer = consumer
        self._lease_ms = round(1000 * lease_seconds)
        self._delivery_limit = delivery_limit
        try:
            # No hidden repeats: an XREADGROUP whose answer got lost must not hand out other entries instead.
            self._redis: Any = redis.asyncio.Redis.from_url(
                url, password=password or None, socket_connect_timeout=5.0, protocol=2, retry=Retry(NoBackoff(), 0)
            )
        except ValueError as error:
            raise SettingsError(f"run.redis_url: {error}") from None
        self._answer = self._redis.register_script(_ANSWER)
        self._results_may_be_lost = False

    async def __aenter__(self) -> Self:
        """Connect and make the streams and groups.

        Raises:
            PeerUnavailable: nothing answers at the URL.
        """
        await self._make_groups()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._redis.aclose()

    # ------------------------------------------------------------ the trainer's side

    async def ask(self, requests: Sequence[RolloutRequest]) -> None:
        """Append all requests in one transaction."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            for request in requests:
                data = wire.encode_request(request).SerializeToString()
                pipeline.xadd(self._requests, {_FIELD: data, _TRACE: tracing.current()})
            await self._do(pipeline.execute())

    async def take(self, limit: int, timeout_s: float) -> list[Claim[RolloutGroup | RolloutFailure]]:
        """Up to `limit` results. One that cannot be read goes to the dead-letter stream.

        Results are not taken over from another trainer: there is one, and it discards an earlier life's at its start.
        """
        claims: list[Claim[RolloutGroup | RolloutFailure]] = []
        for entry in await self._results(limit, timeout_s):
            try:
                result = wire.decode_result(types_pb2.RolloutResult.FromString(entry.data))
            except (DecodeError, InvalidInput) as error:
                await self._bury(self._groups, _TRAINER, entry, f"unreadable result: {error}")
                continue
            claims.append(entry.holding(result))
        return claims

    async def acknowledge(self, claims: Sequence[Claim[RolloutGroup | RolloutFailure]]) -> None:
        """Forget results for good."""
        if not claims:
            return
        entry_ids = [claim.entry_id for claim in claims]
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.xack(self._groups, _TRAINER, *entry_ids)
            pipeline.xdel(self._groups, *entry_ids)
            await self._do(pipeline.execute())

    async def discard_all(self) -> int:
        """Drop every request and result, claimed ones too: a worker that still answers one finds it gone."""
        depths = await self.depths()
        async with self._redis.pipeline(transaction=True) as pipeline:
            for stream, group in ((self._requests, _ROLLOUT), (self._groups, _TRAINER)):
                pipeline.delete(stream)
                pipeline.xgroup_create(stream, group, id="0", mkstream=True)
            await self._do(pipeline.execute())
        return depths.requests + depths.groups

    async def depths(self) -> QueueDepths:
        """Entries not yet acknowledged, and dead letters."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            for stream in (self._requests, self._groups, self._dead):
                pipeline.xlen(stream)
            requests, groups, dead = await self._do(pipeline.execute())
        return QueueDepths(requests=requests, groups=groups, dead=dead)

    # ------------------------------------------------------------ the rollout worker's side

    async def claim(self, limit: int, timeout_s: float) -> list[Claim[RolloutRequest]]:
        """Up to `limit` requests in order, lapsed leases of others first."""
        claims = []
        for entry in await self._lapsed_or_fresh(self._requests, _ROLLOUT, limit, timeout_s):
            try:
                request = wire.decode_request(types_pb2.RolloutRequest.FromString(entry.data))
            except (DecodeError, InvalidInput) as error:
                await self._bury(self._requests, _ROLLOUT, entry, f"unreadable request: {error}")
                continue
            claim = entry.holding(request)
            if claim.deliveries > self._delivery_limit:
                await self.refuse(claim, f"given up after {self._delivery_limit} deliveries without an answer")
                continue
            claims.append(claim)
        return claims

    async def renew(self, claims: Sequence[Claim[RolloutRequest]]) -> None:
        """Start the leases anew."""
        await self._set_idle([(each.entry_id, each.deliveries) for each in claims], idle_ms=0)

    async def deliver(self, claim: Claim[RolloutRequest], group: RolloutGroup) -> bool:
        """Acknowledge the request and append its group; False when it had been answered."""
        result = wire.encode_result(group).SerializeToString()
        return bool(await self._do(self._answer(self._keys, [claim.entry_id, result, tracing.current()])))

    async def refuse(self, claim: Claim[RolloutRequest], reason: str) -> None:
        """Move a request to the dead-letter stream and tell the trainer."""
        failure = RolloutFailure(group_id=claim.item.group_id, problem_id=claim.item.problem_id, reason=reason)
        result = wire.encode_result(failure).SerializeToString()
        request = wire.encode_request(claim.item).SerializeToString()
        answer: list[str | bytes | int] = [claim.entry_id, result, tracing.current(), request, reason, claim.deliveries]
        await self._do(self._answer(self._keys, answer))
        _log.warning("request given up", group_id=claim.item.group_id, reason=reason)

    async def give_back(self, claims: Sequence[Claim[RolloutRequest]]) -> None:
        """Let the leases lapse now; the delivery that was not used is not counted."""
        await self._set_idle([(each.entry_id, each.deliveries - 1) for each in claims], idle_ms=self._lease_ms)

    async def give_back_all(self) -> int:
        """Let all leases of this consumer lapse now, e.g. when it is dead; how many there were.

        The deliveries count: a request that kills whoever holds it must come to its end.
        """
        held = await self._do(
            self._redis.xpending_range(
                self._requests, _ROLLOUT, min="-", max="+", count=_MOST_HELD, consumername=self._consumer
            )
        )
        await self._set_idle([(each["message_id"], each["times_delivered"]) for each in held], idle_ms=self._lease_ms)
        return len(held)

    # ------------------------------------------------------------ inside

    @property
    def _keys(self) -> list[str]:
        return [self._requests, self._groups, self._dead]

    async def _lapsed_or_fresh(self, stream: str, group: str, limit: int, timeout_s: float) -> list["_Entry"]:
        """Lapsed leases first; waits only when there are none."""
        lapsed = await self._do(
            self._redis.xautoclaim(stream, group, self._consumer, min_idle_time=self._lease_ms, count=limit),
            stream_may_be_new=True,
        )
        entries = [(entry_id, fields) for entry_id, fields in (lapsed[1] if lapsed else []) if fields]
        deliveries = await self._deliveries(stream, group, [entry_id for entry_id, _ in entries])
        found = [_Entry.read(entry_id, fields, deliveries.get(entry_id, 1)) for entry_id, fields in entries]
        if len(found) < limit:
            found += await self._fresh(stream, group, limit - len(found), 0.0 if found else timeout_s)
        return found

    async def _results(self, limit: int, timeout_s: float) -> list["_Entry"]:
        """Fresh results; after a failure first those that Redis handed out and we may never have received."""
        if self._results_may_be_lost:
            held = await self._fresh(self._groups, _TRAINER, limit, 0.0, after="0")
            if held:
                return held
            self._results_may_be_lost = False
        try:
            return await self._fresh(self._groups, _TRAINER, limit, timeout_s)
        except PeerUnavailable:
            self._results_may_be_lost = True
            raise

    async def _fresh(
        self, stream: str, group: str, limit: int, timeout_s: float, *, after: str = ">"
    ) -> list["_Entry"]:
        """Entries nobody held before, waiting for the first of them; with `after="0"` those that we hold already."""
        read = await self._do(
            self._redis.xreadgroup(
                group,
                self._consumer,
                {stream: after},
                count=limit,
                block=max(1, round(1000 * timeout_s)) if timeout_s > 0 else None,
            ),
            stream_may_be_new=True,
        )
        found = [entry for _, entries in read or [] for entry in entries]
        return [_Entry.read(entry_id, fields, 1) for entry_id, fields in found if fields]

    async def _deliveries(self, stream: str, group: str, entry_ids: Sequence[bytes]) -> dict[bytes, int]:
        if not entry_ids:
            return {}
        pending = await self._do(
            self._redis.xpending_range(
                stream,
                group,
                min=entry_ids[0],
                max=entry_ids[-1],
                count=10 * len(entry_ids),
                consumername=self._consumer,
            )
        )
        return {entry["message_id"]: entry["times_delivered"] for entry in pending}

    async def _set_idle(self, held: Sequence[tuple[str | bytes, int]], *, idle_ms: int) -> None:
        """`held`: entries of this consumer, and how often they count as delivered from now on."""
        if not held:
            return
        async with self._redis.pipeline(transaction=True) as pipeline:
            for entry_id, deliveries in held:
                pipeline.xclaim(
                    self._requests,
                    _ROLLOUT,
                    self._consumer,
                    min_idle_time=0,
                    message_ids=[entry_id],
                    idle=idle_ms,
                    retrycount=deliveries,
                    justid=True,
                )
            await self._do(pipeline.execute())

    async def _bury(self, stream: str, group: str, entry: "_Entry", reason: str) -> None:
        """Move an entry that nobody can read out of the way."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.xadd(self._dead, {_FIELD: entry.data, "reason": reason, "deliveries": entry.deliveries})
            pipeline.xack(stream, group, entry.entry_id)
            pipeline.xdel(stream, entry.entry_id)
            await self._do(pipeline.execute())
        _log.error("entry moved to the dead-letter stream", stream=stream, entry_id=entry.entry_id, reason=reason)

    async def _make_groups(self) -> None:
        """The streams and their groups, where they are not there yet."""
        for stream, group in ((self._requests, _ROLLOUT), (self._groups, _TRAINER)):
            with contextlib.suppress(_GroupExists):
                await self._do(self._redis.xgroup_create(stream, group, id="0", mkstream=True))

    async def _do(self, operation: Awaitable[AnswerT], *, stream_may_be_new: bool = False) -> AnswerT:
        """Await one Redis operation; its failures become ours."""
        where = f"Redis at {_without_password(self._url)}"
        try:
            return await operation
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            raise PeerUnavailable(f"{where} does not answer: {error}") from error
        except RedisError as error:
            text = str(error)
            if "BUSYGROUP" in text:
                raise _GroupExists(text) from None
            if stream_may_be_new and "UNBLOCKED" in text:
                # The trainer discarded an earlier life of the run while we were waiting.
                return cast(AnswerT, [])
            if "NOGROUP" in text:
                # Redis came back without its data: what was asked is gone, and the trainer's stall shows it.
                await self._make_groups()
                raise PeerUnavailable(f"{where} lost its streams; they were made anew") from error
            raise EngineError(f"{where} refused a command: {text}") from error


@dataclass(frozen=True, slots=True)
class _Entry:
    """As it lies in a stream, and how often it was handed out."""

    entry_id: str
    data: bytes
    trace: str
    deliveries: int

    @classmethod
    def read(cls, entry_id: bytes, fields: Mapping[bytes, bytes], deliveries: int) -> Self:
        return cls(entry_id.decode(), fields[_FIELD], fields.get(_TRACE, b"").decode(errors="replace"), deliveries)

    def holding(self, item: ItemT) -> Claim[ItemT]:
        return Claim(entry_id=self.entry_id, item=item, deliveries=self.deliveries, trace=self.trace)


class _GroupExists(Exception):
    """The consumer group is there already."""


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
