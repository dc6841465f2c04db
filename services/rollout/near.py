"""A replica within reach of a call: the in-memory twin of `prime.adapters.grpc_clients.GrpcRollout`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from prime.types import PushManifest, PushReceipt, RolloutGroup, RolloutRequest, RolloutStatus
from services.rollout.loop import RolloutWorker


class NearReplica:
    """`ports.Rollout` over a worker of this process."""

    def __init__(self, worker: RolloutWorker, tokenizer_fingerprint: str) -> None:
        self._worker = worker
        self._fingerprint = tokenizer_fingerprint

    async def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        """Sample past the queue."""
        return await self._worker.generate(requests)

    async def push(
        self, manifest: PushManifest, chunks: AsyncIterator[bytes | memoryview], digest: Callable[[], Awaitable[bytes]]
    ) -> PushReceipt:
        """Stage the chunks, and put them to use."""
        staged = await self._worker.begin_push(manifest)
        async for chunk in chunks:
            staged.add(chunk)
        return await self._worker.push(staged, await digest())

    async def status(self) -> RolloutStatus:
        """Where it stands."""
        return self._worker.status(self._fingerprint)
