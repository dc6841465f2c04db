"""Pushes the policy's weights to every rollout replica and checks, by the probe, that they are the ones that answer."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog
from torch import Tensor

from prime.errors import EngineError, PeerUnavailable, PrimeError, TokenizerMismatch, WeightPushError
from prime.maths.agreement import mean_gap, tells_old_from_new
from prime.patience import patiently
from prime.ports import Rollout
from prime.types import PushReceipt, TensorAlias
from services.trainer.direct import DirectPush
from services.trainer.outgoing import OutgoingWeights, Probe

_log = structlog.get_logger()
_NOISE_TIMES, _LEAST_GAP = 4.0, 1e-3
"""A replica may differ by so many times what two right computations differ by, and always by so many nats."""
_LEAST_NOISE = 1e-5
"""Nats; a probe of which less was measured has only been lucky."""
_KEEP_UP_PERIOD_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PushReport:
    """What one push did: replicas that took it, the largest of their probe gaps (a mean over tokens) in nats, and the
    longest times in seconds."""

    replicas: int
    refused: int
    probe_gap: float
    probe_limit: float
    """What the gap may be, in nats."""
    stage_seconds: float
    """To send them, put them together and prove them."""
    pause_seconds: float
    """In which a replica sampled nothing."""
    delta_share: float
    """Of the weights' bytes that were sent to a replica that held the version before."""
    fetched: int
    """Replicas that fetched the weights past gRPC."""

    def figures(self) -> dict[str, float]:
        """For the step's metrics."""
        return {
            "push/probe_gap": self.probe_gap,
            "push/probe_limit": self.probe_limit,
            "push/replicas": float(self.replicas),
            "push/refused": float(self.refused),
            "push/delta_share": self.delta_share,
            "push/fetched": float(self.fetched),
            "time/push_stage_seconds": self.stage_seconds,
            "time/push_pause_seconds": self.pause_seconds,
        }


class WeightSource(Protocol):
    """Where the weights come from: the policy. Both methods block."""

    fingerprint: str

    @property
    def has_adapters(self) -> bool:
        """Whether low-rank adapters are trained, and the weights stay what they are."""

    def weights(
        self, dtype: str, *, on_cpu: bool = True, merged: bool = True
    ) -> tuple[list[tuple[str, Tensor]], list[TensorAlias]]:
        """Copies of all weights, on the CPU or where the policy is, and which of them have two names.

        With adapters added in, or if not `merged`, beside them.
        """

    def probe_logprobs(self, ids: tuple[int, ...]) -> tuple[float, ...]:
        """Log-prob of each token after the first."""

    def plain_logprobs(self, ids: tuple[int, ...], named: Mapping[str, Tensor]) -> tuple[float, ...]:
        """The same by another right computation, with these copies of the weights."""


@dataclass(frozen=True, slots=True)
class _Taken:
    """What a replica says about a push, and whether it fetched it past gRPC."""

    receipt: PushReceipt
    was_fetched: bool


class Publisher:
    """Finds the replicas anew for every push and between pushes, so that one that joins late gets its weights too."""

    def __init__(
        self,
        find_replicas: Callable[[], Awaitable[Sequence[tuple[str, Rollout]]]],
        *,
        source: WeightSource,
        probe_ids: tuple[int, ...],
        max_gap: float = 0.0,
        patience_s: float = 0.0,
        deltas: bool = True,
        direct: DirectPush | None = None,
    ) -> None:
        """What is pushed, to whom, and how.

        `max_gap`: largest mean probe gap; 0: four times what rounding makes of the probe, measured at the first push.
        `deltas`: send what changed, where that is less. `direct`: have replicas that can fetch everything past gRPC.
        `patience_s`: for how long a push is repeated while no replica answers at all, e.g. the only one restarts.
        """
        self._patience_s = patience_s
        self._find_replicas = find_replicas
        self._source = source
        self._fingerprint = source.fingerprint
        self._probe_ids = probe_ids
        self._max_gap = max_gap
        self._deltas = deltas and direct is None
        self._direct = direct
        self._last_dtype = "float32"
        self._noise: dict[str, float] = {}
        """By dtype of the replicas: how much two right computations of the probe differ, in nats."""
        self._last_logprobs: tuple[float, ...] = ()
        self._current: OutgoingWeights | None = None
        self._held: dict[str, int] = {}
        """Which version each replica took last."""
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
        return await self.send(await self.read(version))

    async def send(self, outgoing: OutgoingWeights) -> PushReport:
        """Push what was read, to all replicas at once; raises as `push` does."""
        taken, num_failures = await patiently(partial(self._push_to_all, outgoing), seconds=self._patience_s)
        receipts = [each.receipt for each in taken]
        report = PushReport(
            replicas=len(receipts),
            refused=num_failures,
            probe_gap=max(_gap(outgoing, receipt) for receipt in receipts),
            probe_limit=outgoing.probe.max_gap,
            stage_seconds=max(receipt.stage_seconds for receipt in receipts),
            pause_seconds=max(receipt.pause_seconds for receipt in receipts),
            delta_share=outgoing.num_delta_bytes / outgoing.num_bytes if outgoing.base_version is not None else 1.0,
            fetched=sum(each.was_fetched for each in taken),
        )
        outgoing.drop_base()
        return report

    async def read(self, version: int) -> OutgoingWeights:
        """Copy the source's weights as `version`; they may change afterwards.

        Raises:
            WeightPushError: replicas hold their weights in different dtypes.
        """
        dtype, apart = await self._form()
        on_cpu = self._direct is None or self._direct.from_cpu
        read = partial(self._source.weights, dtype, on_cpu=on_cpu, merged=not apart)
        tensors, aliases = await asyncio.to_thread(read)
        probe = await asyncio.to_thread(self._probe, dtype, tensors, aliases)
        # Of weights of two bytes a PRIME step changes few; of four, nearly all; beside adapters, none.
        keep_base = self._deltas and (apart or dtype != "float32")
        return OutgoingWeights(
            version,
            tensors,
            aliases,
            probe=probe,
            base=self._current if keep_base else None,
            keep_base=keep_base,
        )

    def _probe(self, dtype: str, tensors: Sequence[tuple[str, Tensor]], aliases: Sequence[TensorAlias]) -> Probe:
        """What proves these weights: their log-probs, how far off an answer may be, and what the version before had."""
        logprobs = self._source.probe_logprobs(self._probe_ids)
        if dtype not in self._noise:
            named = dict(tensors)
            named |= {alias.name: named[alias.of] for alias in aliases}
            plain = self._source.plain_logprobs(self._probe_ids, named)
            self._noise[dtype] = mean_gap(plain, logprobs)
            _log.info("probe measured", rounding_nats=self._noise[dtype], dtype=dtype)
        noise = self._noise[dtype]
        previous, self._last_logprobs = self._last_logprobs, logprobs
        is_telling = bool(previous) and tells_old_from_new(previous, logprobs, noise=max(noise, _LEAST_NOISE))
        return Probe(
            ids=self._probe_ids,
            logprobs=logprobs,
            max_gap=self._max_gap or max(_LEAST_GAP, _NOISE_TIMES * noise),
            previous=previous if is_telling else (),
        )

    async def _form(self) -> tuple[str, bool]:
        """What all replicas hold their weights in, what it was last when none answers; and whether all take adapters
        apart from them."""
        found: dict[str, str] = {}
        apart = self._source.has_adapters
        for address, replica in await self._find_replicas():
            with contextlib.suppress(PeerUnavailable):
                status = await replica.status()
                found[status.dtype] = address
                apart = apart and status.takes_adapters
        if len(found) > 1:
            raise WeightPushError(f"replicas hold their weights in different dtypes: {found}; set rollout.dtype alike")
        self._last_dtype = next(iter(found), self._last_dtype)
        return self._last_dtype, apart

    async def _push_to_all(self, outgoing: OutgoingWeights) -> tuple[list[_Taken], int]:
        """What the replicas say that took it, and how many did not."""
        async with self._one_push:
            self._current = outgoing
            replicas = await self._find_replicas()
            outcomes = await asyncio.gather(
                *(self._push_to_one(address, replica, outgoing) for address, replica in replicas),
                return_exceptions=True,
            )
            self._release()
        taken = []
        failures: list[PrimeError] = []
        for (address, _), outcome in zip(replicas, outcomes, strict=True):
            if isinstance(outcome, _Taken):
                taken.append(outcome)
            elif isinstance(outcome, PrimeError):
                failures.append(outcome)
                _log.error("replica refused", address=address, version=outgoing.version, reason=str(outcome))
            elif isinstance(outcome, BaseException):
                raise outcome
        if not taken:
            if all(isinstance(failure, PeerUnavailable) for failure in failures):
                raise PeerUnavailable(f"no rollout replica answers: {'; '.join(map(str, failures))}")
            raise WeightPushError(f"no replica took version {outgoing.version}: {'; '.join(map(str, failures))}")
        return taken, len(failures)

    def _release(self) -> None:
        if self._direct is not None:
            self._direct.release()

    async def _push_to_one(self, address: str, replica: Rollout, outgoing: OutgoingWeights) -> _Taken:
        """The quickest way that is set up, and where that failed, everything over gRPC."""
        if self._direct is not None and await self._can_fetch(address, replica, self._direct.transport):
            try:
                return _Taken(await self._direct.push(address, replica, outgoing), was_fetched=True)
            except (WeightPushError, EngineError) as error:
                _log.warning("weights not fetched; pushing over gRPC", address=address, reason=str(error))
        return _Taken(await self._push_over_grpc(address, replica, outgoing), was_fetched=False)

    async def _can_fetch(self, address: str, replica: Rollout, transport: str) -> bool:
        ways = (await replica.status()).transports
        if transport not in ways:
            _log.warning("replica cannot fetch; pushing over gRPC", address=address, wanted=transport, can=ways)
        return transport in ways

    async def _push_over_grpc(self, address: str, replica: Rollout, outgoing: OutgoingWeights) -> PushReceipt:
        """What changed, to a replica that holds the version before; everything to others, and where that failed."""
        held = self._held.pop(address, None)
        if held is not None and held == outgoing.base_version:
            try:
                receipt = await replica.push(outgoing.manifest(as_delta=True), outgoing.changes(), outgoing.digest)
                self._held[address] = outgoing.version
                return receipt
            except (WeightPushError, EngineError) as error:
                _log.warning("delta refused; pushing in full", address=address, reason=str(error))
        receipt = await replica.push(outgoing.manifest(as_delta=False), outgoing.full(), outgoing.digest)
        self._held[address] = outgoing.version
        return receipt

    async def keep_up(self) -> None:
        """Between pushes, bring replicas that joined late or were restarted up to date. Runs until cancelled."""
        while True:
            await asyncio.sleep(_KEEP_UP_PERIOD_S)
            try:
                async with self._one_push:
                    await self._push_to_those_behind()
                    self._release()
            except PrimeError as error:
                _log.warning("replicas cannot be found; will try again", reason=str(error))

    async def _push_to_those_behind(self) -> None:
        if self._current is None:
            return
        outgoing = self._current
        for address, replica in await self._find_replicas():
            try:
                status = await replica.status()
                if status.ready and status.version == outgoing.version:
                    continue
                if status.tokenizer_fingerprint != self._fingerprint:
                    raise TokenizerMismatch(f"rollout replica {address} has another tokenizer than the policy")
                self._held.pop(address, None)
                await self._push_to_one(address, replica, outgoing)
                _log.info("replica brought up to date", address=address, version=outgoing.version)
            except PrimeError as error:
                _log.warning("replica is behind; will try again", address=address, reason=str(error))


def _gap(outgoing: OutgoingWeights, receipt: PushReceipt) -> float:
    return mean_gap(receipt.probe_logprobs, outgoing.probe.logprobs)
