"""The gRPC edge of a rollout replica: decode, call, encode. Errors are mapped by the interceptor."""

from collections.abc import AsyncIterator
from typing import Any

from prime import wire
from prime.errors import WeightPushError
from prime.v1 import rollout_pb2, rollout_pb2_grpc
from services.rollout.loop import RolloutWorker
from services.rollout.staging import StagedWeights


class RolloutServicer(rollout_pb2_grpc.RolloutServiceServicer):
    """`prime.v1.RolloutService` over a worker."""

    def __init__(self, worker: RolloutWorker, tokenizer_fingerprint: str) -> None:
        self._worker = worker
        self._fingerprint = tokenizer_fingerprint

    async def Generate(self, request: rollout_pb2.GenerateRequest, context: Any) -> rollout_pb2.GenerateResponse:
        """Sample past the queue."""
        requests = [wire.decode_request(each) for each in request.requests]
        groups = await self._worker.generate(requests)
        return rollout_pb2.GenerateResponse(groups=[wire.encode_group(group) for group in groups])

    async def PushWeights(
        self, request_iterator: AsyncIterator[rollout_pb2.PushWeightsRequest], context: Any
    ) -> rollout_pb2.PushWeightsResponse:
        """Begin, chunks, commit. A stream that ends without a commit changes nothing."""
        staged: StagedWeights | None = None
        async for message in request_iterator:
            match message.WhichOneof("part"), staged:
                case "begin", None:
                    staged = StagedWeights(wire.decode_manifest(message.begin))
                case "chunk", StagedWeights():
                    staged.add(message.chunk)
                case "commit", StagedWeights():
                    return wire.encode_receipt(await self._worker.push(staged))
                case part, _:
                    raise WeightPushError(f"{part!r} is out of order; a push is begin, chunks, commit")
        raise WeightPushError("the push ended before its commit; the weights in use were not touched")

    async def GetStatus(
        self, request: rollout_pb2.RolloutServiceGetStatusRequest, context: Any
    ) -> rollout_pb2.RolloutServiceGetStatusResponse:
        """Where this replica stands."""
        return wire.encode_rollout_status(self._worker.status(self._fingerprint))
