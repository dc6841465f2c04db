"""The gRPC edge of a rollout replica: decode, call, encode. Errors are mapped by the interceptor."""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from prime import wire
from prime.errors import WeightPushError
from prime.v1 import rollout_pb2, rollout_pb2_grpc
from services.rollout.loop import RolloutWorker, StagedPush


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
        self, request_iterator: AsyncIterator[rollout_pb2.PushWeightsRequest | memoryview], context: Any
    ) -> rollout_pb2.PushWeightsResponse:
        """Begin, chunks, commit. A stream that ends without a commit changes nothing."""
        staged: StagedPush | None = None
        async for message in request_iterator:
            if isinstance(message, memoryview):
                if staged is None:
                    raise _out_of_order("chunk")
                staged.add(message)
            elif message.HasField("begin") and staged is None:
                staged = await self._worker.begin_push(wire.decode_manifest(message.begin))
            elif message.HasField("commit") and staged is not None:
                return wire.encode_receipt(await self._worker.push(staged, message.commit.digest))
            else:
                raise _out_of_order(message.WhichOneof("part"))
        raise WeightPushError("the push ended before its commit; the weights in use were not touched")

    async def GetStatus(
        self, request: rollout_pb2.RolloutServiceGetStatusRequest, context: Any
    ) -> rollout_pb2.RolloutServiceGetStatusResponse:
        """Where this replica stands."""
        return wire.encode_rollout_status(self._worker.status(self._fingerprint))


def _out_of_order(part: str | None) -> WeightPushError:
    return WeightPushError(f"{part!r} is out of order; a push is begin, chunks, commit")


def add_rollout_servicer(servicer: RolloutServicer, server: grpc.aio.Server) -> None:
    """What the generated function does, but chunks of weights are not copied into messages."""
    handlers: dict[str, Any] = {
        "Generate": grpc.unary_unary_rpc_method_handler(
            servicer.Generate,
            request_deserializer=rollout_pb2.GenerateRequest.FromString,
            response_serializer=rollout_pb2.GenerateResponse.SerializeToString,
        ),
        "PushWeights": grpc.stream_unary_rpc_method_handler(
            servicer.PushWeights,
            request_deserializer=wire.read_push_part,
            response_serializer=rollout_pb2.PushWeightsResponse.SerializeToString,
        ),
        "GetStatus": grpc.unary_unary_rpc_method_handler(
            servicer.GetStatus,
            request_deserializer=rollout_pb2.RolloutServiceGetStatusRequest.FromString,
            response_serializer=rollout_pb2.RolloutServiceGetStatusResponse.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("prime.v1.RolloutService", handlers),))
