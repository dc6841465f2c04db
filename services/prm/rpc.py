"""The gRPC edge of the PRM: who may call what, and decode, call, encode. Errors are mapped by the interceptor."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from prime import wire
from prime.ports import RewardModel
from prime.v1 import prm_pb2, prm_pb2_grpc
from services.prm.batching import count_tokens
from services.prm.callers import calling
from services.prm.key_file import Scope
from services.prm.keys import Keys

_SCOPES: Mapping[str, Scope | None] = {"Score": Scope.SCORE, "GetInfo": None}
"""By rpc: None: any key will do. All others steer the training."""


class KeyedGate:
    """A `Gate` that asks the keys of the API."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def admit(self, method: str, key: str) -> AbstractContextManager[None]:
        """Let a caller in who has the scope; raises as `Keys.admit` does."""
        return calling(self._keys.admit(key, _SCOPES.get(method.rpartition("/")[2], Scope.LEARN)))


class PrmServicer(prm_pb2_grpc.PrmServiceServicer):
    """`prime.v1.PrmService` over a reward model."""

    def __init__(self, reward_model: RewardModel, *, charge: Callable[[int], None] = lambda tokens: None) -> None:
        """`charge` is told the tokens that were scored for whoever called."""
        self._reward_model = reward_model
        self._charge = charge

    async def Score(self, request: prm_pb2.ScoreRequest, context: Any) -> prm_pb2.ScoreResponse:
        """Token rewards."""
        groups = [wire.decode_prm_group(group) for group in request.groups]
        rewards = await self._reward_model.score(groups)
        self._charge(count_tokens(groups))
        return wire.encode_rewards(rewards)

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
