"""The gRPC edge of the PRM: decode, call, encode. Errors are mapped by the interceptor."""

from typing import Any

from prime import wire
from prime.ports import RewardModel
from prime.v1 import prm_pb2, prm_pb2_grpc


class PrmServicer(prm_pb2_grpc.PrmServiceServicer):
    """`prime.v1.PrmService` over a reward model."""

    def __init__(self, reward_model: RewardModel) -> None:
        self._reward_model = reward_model

    async def Score(self, request: prm_pb2.ScoreRequest, context: Any) -> prm_pb2.ScoreResponse:
        """Token rewards."""
        groups = [wire.decode_prm_group(group) for group in request.groups]
        return wire.encode_rewards(await self._reward_model.score(groups))

    async def Learn(self, request: prm_pb2.LearnRequest, context: Any) -> prm_pb2.LearnResponse:
        """One batch of outcomes."""
        groups = [wire.decode_prm_group(group) for group in request.groups]
        outcomes = wire.decode_floats(request.outcomes)
        return wire.encode_prm_metrics(await self._reward_model.learn(request.step, groups, outcomes))

    async def Save(self, request: prm_pb2.SaveRequest, context: Any) -> prm_pb2.SaveResponse:
        """A checkpoint."""
        return prm_pb2.SaveResponse(path=await self._reward_model.save(request.step))

    async def Restore(self, request: prm_pb2.RestoreRequest, context: Any) -> prm_pb2.RestoreResponse:
        """Back to a checkpoint."""
        return prm_pb2.RestoreResponse(prm_version=await self._reward_model.restore(request.step))

    async def GetInfo(
        self, request: prm_pb2.PrmServiceGetInfoRequest, context: Any
    ) -> prm_pb2.PrmServiceGetInfoResponse:
        """Which PRM answers."""
        return wire.encode_prm_info(await self._reward_model.info())
