"""The use case of a rollout replica: claim requests, sample with the newest weights, deliver groups.

consumes   the request stream, and weight pushes (through `rpc.py`)
produces   one group per request
waits for  the first weight push: a replica without current weights claims nothing
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import structlog

from prime import tracing
from prime.environments.registry import open_environment
from prime.errors import EngineError, InvalidInput, NotReady, PeerUnavailable, PrimeError, WeightPushError
from prime.maths.agreement import mean_gap, share_of_the_way
from prime.patience import patiently
from prime.ports import Claim, RequestQueue
from prime.types import PushManifest, PushReceipt, RolloutGroup, RolloutRequest, RolloutStatus, TensorSpec
from services.rollout.episodes import Sampler

_log = structlog.get_logger()
_CLAIM_WAIT_S = 1.0
_IDLE_PAUSE_S = 0.05
_LOOK_AGAIN_S = 0.5
_QUEUE_PATIENCE_S = 60.0
_MOVED_ENOUGH = 0.5


class Engine(Protocol):
    """A sampler that can change its weights while it samples."""

    name: str
    dtype: str
    transports: tuple[str, ...]
    """How it can fetch weights by itself, see `PushOffer`."""
    takes_adapters: bool
    """Whether a push may bring low-rank adapters beside the weights that they belong to."""

    async def start(self) -> None:
        """Load the model. Raises EngineError when it cannot be served, saying why."""

    def generate(self, requests: Sequence[RolloutRequest]) -> AsyncIterator[RolloutGroup]:
        """Groups in the order in which they finish; every sampled token tells the version that sampled it.

        May be called again while others sample.
        """

    async def load_weights(self, version: int, tensors: Sequence[tuple[TensorSpec, memoryview]]) -> float:
        """Pause with requests kept, replace the weights, go on; returns the seconds of pause."""

    async def begin_fetch(self, manifest: PushManifest) -> None:
        """Start to fetch what the manifest offers, while sampling goes on."""

    async def finish_fetch(self, manifest: PushManifest) -> None:
        """Wait until it is there, whole and proven."""

    async def load_fetched(self, manifest: PushManifest) -> float:
        """As `load_weights`, with what was fetched."""

    async def logprobs(self, ids: Sequence[int]) -> tuple[float, ...]:
        """Log-prob of each token after the first, under the weights in use, at temperature 1."""

    async def checksum(self) -> int | None:
        """The sum of `prime.lm.inbox.checksum` over the weights that it computes from; None where it keeps them in a
        form of its own."""

    async def close(self) -> None:
        """Free what it holds."""


class StagedPush(Protocol):
    """One push on its way in (`staging.py`)."""

    manifest: PushManifest

    def add(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes."""

    def finish(self, digest: bytes) -> Sequence[tuple[TensorSpec, memoryview]]:
        """The tensors, whole and proven. Blocks."""

    def checksum(self) -> int:
        """The sum of `prime.lm.inbox.checksum` over all tensors, once they are whole. Blocks."""

    @property
    def seconds(self) -> float:
        """Since the push began."""


class PushStore(Protocol):
    """The weights as they arrive (`staging.py`)."""

    def begin(self, manifest: PushManifest) -> StagedPush:
        """Get ready for a push."""

    def keep(self, staged: Any) -> None:
        """The engine has taken what was staged."""

    def forget(self) -> None:
        """Nobody knows which weights are in use."""


def fault_of_probe(manifest: PushManifest, answer: Sequence[float]) -> str:
    """What the answer to a probe shows to be wrong, in words; empty if nothing."""
    gap = mean_gap(answer, manifest.probe_logprobs)
    if gap > manifest.max_gap:
        return (
            f"log-probs of the probe differ from the trainer's by {gap:.2g} nats on average (limit "
            f"{manifest.max_gap:.2g}): this engine computes something else, or from other weights"
        )
    if not manifest.previous_logprobs:
        return ""
    share = share_of_the_way(answer, manifest.previous_logprobs, manifest.probe_logprobs)
    if share >= _MOVED_ENOUGH:
        return ""
    return (
        f"log-probs of the probe are those of the version before: they went {share:.2f} of the way to the new ones; "
        f"old weights answer"
    )


class RolloutWorker:
    """Owns the engine: the queue's requests, direct requests and weight pushes all pass here."""

    def __init__(
        self,
        *,
        queue: RequestQueue,
        engine: Engine,
        store: PushStore,
        max_groups: int,
        lease_seconds: float,
        max_context: int,
        sampler: Sampler | None = None,
    ) -> None:
        """`sampler`: what samples, if it is not the engine itself (`episodes.py`)."""
        self._store = store
        self._queue = queue
        self._engine = engine
        self._sampler: Sampler = sampler or engine
        self._max_groups = max_groups
        self._renew_every_s = lease_seconds / 3
        self._max_context = max_context
        self._version: int | None = None
        self._in_flight: dict[str, Claim[RolloutRequest]] = {}
        self._batches: set[asyncio.Task[None]] = set()
        self._push_lock = asyncio.Lock()
        self._changed = asyncio.Event()
        """A batch ended, or weights came."""
        self._busy = _Stopwatch()
        self._groups_delivered = 0
        self._tokens_generated = 0

    @property
    def is_ready(self) -> bool:
        """Whether it holds pushed weights."""
        return self._version is not None

    async def run(self) -> None:
        """Claim and sample until cancelled; what was in flight then goes back to the queue.

        Raises:
            EngineError: the engine broke; its requests were given back.
        """
        renewing = asyncio.create_task(self._renew())
        try:
            while True:
                await self._reap(renewing)
                if not self._room or self._version is None:
                    await self._wait_for_change()
                    continue
                claims = await self._claim()
                # A push may have been refused in the meantime: then this replica holds no version any more.
                version = -1 if self._version is None else self._version
                early = [claim for claim in claims if claim.item.min_version > version]
                if early:
                    await patiently(partial(self._queue.give_back, early), seconds=_QUEUE_PATIENCE_S)
                    await asyncio.sleep(_IDLE_PAUSE_S)
                ours = [claim for claim in claims if claim.item.min_version <= version]
                if ours:
                    self._in_flight |= {claim.entry_id: claim for claim in ours}
                    batch = asyncio.create_task(self._sample(ours))
                    batch.add_done_callback(lambda _: self._changed.set())
                    self._batches.add(batch)
        finally:
            renewing.cancel()
            for batch in self._batches:
                batch.cancel()
            await asyncio.gather(renewing, *self._batches, return_exceptions=True)
            # Not fatal: leases that nobody renews lapse by themselves.
            with contextlib.suppress(PeerUnavailable):
                await self._queue.give_back(list(self._in_flight.values()))

    async def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        """Sample at once, past the queue; groups in the order of the requests.

        Raises:
            NotReady: no weights were pushed yet.
            InvalidInput: a request does not fit into the context.
        """
        if self._version is None:
            raise NotReady("no weights were pushed to this replica yet; the trainer pushes when it starts")
        for request in requests:
            self._check(request)
            if request.min_version > self._version:
                raise NotReady(f"this replica holds version {self._version}, version {request.min_version} is needed")
        with self._busy.running():
            by_id = {group.group_id: group async for group in self._sampler.generate(requests)}
        self._count(by_id.values())
        return [by_id[request.group_id] for request in requests]

    async def begin_push(self, manifest: PushManifest) -> StagedPush:
        """Get ready for chunks, or begin to fetch what is offered.

        Raises:
            StaleBase: it is a delta on weights that are not held here.
            WeightPushError: it cannot be a push, or what it offers cannot be reached from here.
        """
        staged = await asyncio.to_thread(self._store.begin, manifest)
        if manifest.offer is not None:
            await self._engine.begin_fetch(manifest)
        return staged

    async def push(self, staged: StagedPush, digest: bytes) -> PushReceipt:
        """Put staged weights to use and show, by the probe, that they are.

        Raises:
            WeightPushError: the bytes that arrived are not the ones that were announced, or the engine's weights or
                the probe show that other weights answer; in the latter case this replica claims nothing until a push
                succeeds.
        """
        manifest = staged.manifest
        try:
            tensors = await asyncio.to_thread(staged.finish, digest)
        except WeightPushError:
            self._store.forget()
            raise
        async with self._push_lock:
            if manifest.offer is not None:
                await self._engine.finish_fetch(manifest)
            # Until the probe agrees nobody knows which weights answer, whatever fails on the way.
            self._version = None
            if manifest.offer is None:
                pause_seconds = await self._engine.load_weights(manifest.version, tensors)
            else:
                pause_seconds = await self._engine.load_fetched(manifest)
            self._store.keep(staged)
            stage_seconds = staged.seconds - pause_seconds
            started = time.perf_counter()
            held, sent = await asyncio.gather(self._engine.checksum(), asyncio.to_thread(staged.checksum))
            probe = await self._engine.logprobs(manifest.probe_ids)
            probe_seconds = time.perf_counter() - started
            fault = "" if held in (None, sent) else "the engine does not hold the weights that were sent"
            fault = fault or fault_of_probe(manifest, probe)
            if fault:
                self._store.forget()
                raise WeightPushError(f"push of version {manifest.version}: {fault}")
            self._version = manifest.version
            self._changed.set()
        _log.info("weights in use", version=manifest.version, pause_ms=round(1000 * pause_seconds, 1))
        return PushReceipt(
            version=manifest.version,
            probe_logprobs=probe,
            stage_seconds=stage_seconds,
            pause_seconds=pause_seconds,
            probe_seconds=probe_seconds,
        )

    def status(self, tokenizer_fingerprint: str) -> RolloutStatus:
        """Where this replica stands."""
        return RolloutStatus(
            engine=self._engine.name,
            ready=self.is_ready,
            version=self._version or 0,
            groups_delivered=self._groups_delivered,
            tokens_generated=self._tokens_generated,
            groups_in_flight=len(self._in_flight),
            tokenizer_fingerprint=tokenizer_fingerprint,
            busy_seconds=self._busy.seconds,
            dtype=self._engine.dtype,
            transports=self._engine.transports,
            takes_adapters=self._engine.takes_adapters,
        )

    async def _wait_for_change(self) -> None:
        """Until there may be room; looked at anew now and then, for what ends without a word."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_AGAIN_S):
                await self._changed.wait()
        self._changed.clear()

    @property
    def _room(self) -> int:
        return self._max_groups - len(self._in_flight)

    async def _claim(self) -> list[Claim[RolloutRequest]]:
        """What waits, up to the room that there is when it comes: what was asked together is sampled together."""
        claims = await patiently(partial(self._queue.claim, self._room, _CLAIM_WAIT_S), seconds=_QUEUE_PATIENCE_S)
        more = self._room - len(claims)
        if claims and more > 0:
            claims += await patiently(partial(self._queue.claim, more, 0.0), seconds=_QUEUE_PATIENCE_S)
        return claims

    async def _sample(self, claims: Sequence[Claim[RolloutRequest]]) -> None:
        by_group = {claim.item.group_id: claim for claim in claims}
        sound = []
        for claim in claims:
            try:
                self._check(claim.item)
                sound.append(claim.item)
            except InvalidInput as error:
                await patiently(partial(self._queue.refuse, claim, str(error)), seconds=_QUEUE_PATIENCE_S)
                del self._in_flight[claim.entry_id]
        spans = {
            claim.item.group_id: tracing.begin("sample", parent=claim.trace, group=claim.item.group_id)
            for claim in claims
        }
        # Delivered beside the sampling, which does not wait for the queue.
        async with asyncio.TaskGroup() as deliveries:
            with self._busy.running():
                async for group in self._sampler.generate(sound):
                    deliveries.create_task(self._deliver(by_group[group.group_id], group, spans[group.group_id]))

    async def _deliver(self, claim: Claim[RolloutRequest], group: RolloutGroup, span: tracing.Span) -> None:
        with tracing.within(span):
            delivered = await patiently(partial(self._queue.deliver, claim, group), seconds=_QUEUE_PATIENCE_S)
        del self._in_flight[claim.entry_id]
        self._changed.set()
        if delivered:
            self._count([group])
        else:
            _log.info("group was answered by another replica", group_id=group.group_id)

    def _check(self, request: RolloutRequest) -> None:
        if request.environment is not None:
            open_environment(request.environment)
        length = len(request.prompt_ids) + request.sampling.max_tokens
        if length > self._max_context:
            raise InvalidInput(
                f"rollout request {request.group_id!r}: {len(request.prompt_ids)} prompt tokens and up to "
                f"{request.sampling.max_tokens} new ones exceed rollout.max_context = {self._max_context}"
            )

    async def _reap(self, renewing: "asyncio.Task[None]") -> None:
        finished = {batch for batch in self._batches if batch.done()}
        self._batches -= finished
        if renewing.done():
            renewing.result()
        for batch in finished:
            error = batch.exception()
            if isinstance(error, ExceptionGroup):
                error = error.exceptions[0]  # the first to fail, of sampling and deliveries, ended the others
            if isinstance(error, PrimeError):
                raise error
            if error is not None:
                raise EngineError(f"the {self._engine.name} engine broke while sampling: {error}") from error

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._renew_every_s)
            if self._in_flight:
                # Not fatal: leases that lapse let another replica sample the same, and one answer counts.
                with contextlib.suppress(PeerUnavailable):
                    await self._queue.renew(list(self._in_flight.values()))

    def _count(self, groups: Iterable[RolloutGroup]) -> None:
        for group in groups:
            self._groups_delivered += 1
            self._tokens_generated += group.num_response_tokens


class _Stopwatch:
    """Time in which at least one of several things ran."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._started = 0.0
        self._num_running = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """One of them runs until the block ends."""
        if not self._num_running:
            self._started = time.perf_counter()
        self._num_running += 1
        try:
            yield
        finally:
            self._num_running -= 1
            if not self._num_running:
                self._seconds += time.perf_counter() - self._started

    @property
    def seconds(self) -> float:
        """So far."""
        return self._seconds + (time.perf_counter() - self._started if self._num_running else 0.0)
