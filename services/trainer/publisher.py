"""Pushes the policy's weights to every rollout replica and checks, by the probe, that they are the ones that answer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from prime.errors import PeerUnavailable, PrimeError, TokenizerMismatch, WeightPushError
from prime.patience import patiently
from prime.ports import Rollout
from prime.types import PushManifest, PushReceipt

_log = structlog.get_logger()
_CHUNK_BYTES = 1024 * 1024
_KEEP_UP_PERIOD_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PushReport:
    """What one push did: replicas that took it, the largest probe gap in nats, the longest pause in seconds."""

    replicas: int
    refused: int
    probe_gap: float
    pause_seconds: float


class WeightSource(Protocol):
    """Where the weights come from: the policy."""

    fingerprint: str

    def push_manifest(
        self, version: int, *, probe_ids: tuple[int, ...], max_gap: float
    ) -> tuple[PushManifest, list[memoryview]]:
        """Announcement and bytes of all weights. Blocks."""


class Publisher:
    """Finds the replicas anew for every push and between pushes, so that one that joins late gets its weights too."""

    def __init__(
        self,
        find_replicas: Callable[[], Awaitable[Sequence[tuple[str, Rollout]]]],
        *,
        source: WeightSource,
        probe_ids: tuple[int, ...],
        max_gap: float,
        patience_s: float = 0.0,
    ) -> None:
        """`patience_s`: for how long a push is repeated while no replica answers at all, e.g. the only one restarts."""
        self._patience_s = patience_s
        self._find_replicas = find_replicas
        self._source = source
        self._fingerprint = source.fingerprint
        self._probe_ids = probe_ids
        self._max_gap = max_gap
        self._current: tuple[PushManifest, Sequence[memoryview]] | None = None
        self._one_push = asyncio.Lock()

    async def sampling_seconds(self) -> float:
        """For how long the busiest replica has been sampling since it started; 0 when none answers."""
        seconds = [0.0]
        for _, replica in await self._find_replicas():
            with contextlib.suppress(PrimeError):
                seconds.append((await replica.status()).busy_seconds)
        return max(seconds)

    async def check_tokenizers(self) -> None:
        """Refuse replicas whose token ids mean something else.

        Raises:
            TokenizerMismatch: a replica loaded another tokenizer.
            PeerUnavailable: a replica does not answer.
        """
        for address, replica in await self._find_replicas():
            status = await replica.status()
            if status.tokenizer_fingerprint != self._fingerprint:
                raise TokenizerMismatch(
                    f"rollout replica {address} has another tokenizer than the policy; start it with the same run.model"
                )

    async def push(self, version: int) -> PushReport:
        """Push the source's weights, as `version`, to all replicas at once.

        A replica that fails is left out until the next push: it holds no current version, so it samples nothing that
        would be used.

        Raises:
            WeightPushError: no replica took the weights.
            PeerUnavailable: no replica answers.
        """
        manifest, data = await asyncio.to_thread(
            self._source.push_manifest, version, probe_ids=self._probe_ids, max_gap=self._max_gap
        )
        receipts, num_failures = await patiently(partial(self._push_to_all, manifest, data), seconds=self._patience_s)
        return PushReport(
            replicas=len(receipts),
            refused=num_failures,
            probe_gap=max(_gap(manifest, receipt) for receipt in receipts),
            pause_seconds=max(receipt.pause_seconds for receipt in receipts),
        )

    async def _push_to_all(self, manifest: PushManifest, data: Sequence[memoryview]) -> tuple[list[PushReceipt], int]:
        """Receipts of the replicas that took it, and how many did not."""
        async with self._one_push:
            self._current = (manifest, data)
            replicas = await self._find_replicas()
            outcomes = await asyncio.gather(
                *(replica.push(manifest, _chunks(data)) for _, replica in replicas), return_exceptions=True
            )
        receipts = []
        failures: list[PrimeError] = []
        for (address, _), outcome in zip(replicas, outcomes, strict=True):
            if isinstance(outcome, PushReceipt):
                receipts.append(outcome)
            elif isinstance(outcome, PrimeError):
                failures.append(outcome)
                _log.error("replica refused", address=address, version=manifest.version, reason=str(outcome))
            elif isinstance(outcome, BaseException):
                raise outcome
        if not receipts:
            if all(isinstance(failure, PeerUnavailable) for failure in failures):
                raise PeerUnavailable(f"no rollout replica answers: {'; '.join(map(str, failures))}")
            raise WeightPushError(f"no replica took version {manifest.version}: {'; '.join(map(str, failures))}")
        return receipts, len(failures)

    async def keep_up(self) -> None:
        """Between pushes, bring replicas that joined late or were restarted up to date. Runs until cancelled."""
        while True:
            await asyncio.sleep(_KEEP_UP_PERIOD_S)
            try:
                async with self._one_push:
                    await self._push_to_those_behind()
            except PrimeError as error:
                _log.warning("replicas cannot be found; will try again", reason=str(error))

    async def _push_to_those_behind(self) -> None:
        if self._current is None:
            return
        manifest, data = self._current
        for address, replica in await self._find_replicas():
            try:
                status = await replica.status()
                if status.ready and status.version == manifest.version:
                    continue
                if status.tokenizer_fingerprint != self._fingerprint:
                    raise TokenizerMismatch(f"rollout replica {address} has another tokenizer than the policy")
                await replica.push(manifest, _chunks(data))
                _log.info("replica brought up to date", address=address, version=manifest.version)
            except PrimeError as error:
                _log.warning("replica is behind; will try again", address=address, reason=str(error))


def _gap(manifest: PushManifest, receipt: PushReceipt) -> float:
    pairs = zip(receipt.probe_logprobs, manifest.probe_logprobs, strict=True)
    return max(abs(theirs - ours) for theirs, ours in pairs)


async def _chunks(data: Sequence[memoryview]) -> AsyncIterator[bytes]:
    """All tensors' bytes in pieces of 1 to 2 MiB; small tensors share one."""
    piece = bytearray()
    for view in data:
        for start in range(0, len(view), _CHUNK_BYTES):
            piece += view[start : start + _CHUNK_BYTES]
            if len(piece) >= _CHUNK_BYTES:
                yield bytes(piece)
                piece.clear()
    if piece:
        yield bytes(piece)
