"""Pushes past gRPC: the stream says where the tensors are, and the replica fetches them by itself (ADR 23)."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from functools import partial

from prime.errors import PrimeError, WeightPushError
from prime.lm.link import Link
from prime.lm.shared_memory import Shared, share
from prime.ports import Rollout
from prime.types import PushOffer, PushReceipt
from services.trainer.outgoing import OutgoingWeights


class DirectPush:
    """`ipc`: through memory that both have. `nccl`, `gloo`: over a link with each replica, kept from push to push."""

    def __init__(self, transport: str, *, deadline_s: float) -> None:
        """`deadline_s`: for a replica to join, and for every tensor."""
        self.transport = transport
        self.from_cpu = transport == "gloo"
        """Whether the tensors must lie on a CPU; else where the policy is."""
        self._deadline_s = deadline_s
        self._links: dict[str, Link] = {}
        self._shared: Shared | None = None
        self._sharing = asyncio.Lock()

    async def push(self, address: str, replica: Rollout, outgoing: OutgoingWeights) -> PushReceipt:
        """Push to one replica.

        Raises:
            WeightPushError: the tensors did not arrive, or other weights answer.
            EngineError: the replica's engine could not take them.
            PeerUnavailable: the replica does not answer.
        """
        if self.transport == "ipc":
            shared = await self._share(outgoing)
            return await self._offer(replica, outgoing, await asyncio.to_thread(shared.place), _nothing())
        while True:
            link = self._links.pop(address, None)
            was_used = link is not None
            if link is None:
                listen = partial(Link.listen, self.transport, towards=address.rpartition(":")[0])
                link = await asyncio.to_thread(listen, deadline_s=self._deadline_s)
            try:
                receipt = await self._push_over(link, replica, outgoing)
            except BaseException as error:
                link.close()
                if was_used and isinstance(error, PrimeError):
                    continue  # at its other end may have been a process that is no more: once again over a new one
                raise
            self._links[address] = link
            return receipt

    def release(self) -> None:
        """All replicas have what was shared; the memory is free."""
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.close()

    async def _share(self, outgoing: OutgoingWeights) -> Shared:
        async with self._sharing:
            if self._shared is None:
                self._shared = await asyncio.to_thread(share, outgoing.tensors)
            return self._shared

    async def _push_over(self, link: Link, replica: Rollout, outgoing: OutgoingWeights) -> PushReceipt:
        async def send() -> None:
            try:
                await asyncio.to_thread(link.send, outgoing.tensors)
            except WeightPushError:
                link.close()  # so that the other end does not wait
                raise

        sending = asyncio.create_task(send())
        try:
            return await self._offer(replica, outgoing, link.place, _nothing(after=sending))
        except PrimeError:
            if sending.done() and isinstance(reason := sending.exception(), WeightPushError):
                raise reason from None
            raise
        finally:
            # A thread cannot be cancelled; closing the link ends it, and nobody asks for what it has to say.
            sending.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _offer(
        self, replica: Rollout, outgoing: OutgoingWeights, place: str, chunks: AsyncIterator[bytes]
    ) -> PushReceipt:
        offer = PushOffer(
            key=uuid.uuid4().hex,
            transport=self.transport,
            place=place,
            checksums=await outgoing.checksums(),
            deadline_s=self._deadline_s,
        )
        return await replica.push(outgoing.manifest(offer=offer), chunks, _no_digest)


async def _nothing(after: "asyncio.Task[None] | None" = None) -> AsyncIterator[bytes]:
    """No chunks; the stream ends with its commit when the tensors are sent."""
    if after is not None:
        # How it went the replica will say; a stream that breaks off would only look like a call that was cancelled.
        await asyncio.wait([after])
    for chunk in list[bytes]():
        yield chunk


async def _no_digest() -> bytes:
    """Checksums were offered instead: the bytes may lie on a GPU."""
    return b""
