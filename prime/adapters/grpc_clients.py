"""Verifier, reward model and rollout over gRPC: deadlines on every call, retries where a repeat is harmless."""

import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

import prime.errors
from prime import tracing, wire
from prime.adapters.grpc_server import AUTHORIZATION_KEY, ERROR_CLASS_KEY, MAX_MESSAGE_BYTES
from prime.adapters.tls import Tls
from prime.errors import EngineError, PeerUnavailable, PrimeError, VersionConflict
from prime.patience import patiently
from prime.types import (
    AnswerClasses,
    GradeItem,
    PrmGroup,
    PrmInfo,
    PrmMetrics,
    PushManifest,
    PushReceipt,
    RolloutGroup,
    RolloutRequest,
    RolloutStatus,
    TokenRewards,
    TrainerStatus,
    Verdict,
    VerifierInfo,
)
from prime.v1 import (
    prm_pb2,
    prm_pb2_grpc,
    rollout_pb2,
    rollout_pb2_grpc,
    trainer_pb2,
    trainer_pb2_grpc,
    verifier_pb2,
    verifier_pb2_grpc,
)

# Well below the 64 MiB that a message may have.
_PART_BYTES = 16 * 1024 * 1024
_PART_ITEMS = 1024
# A question (status, info) is asked to learn whether somebody is there, so it soon takes no for an answer.
_QUESTION_SECONDS, _QUESTION_PATIENCE_S = 5.0, 3.0
# Of a grading call's deadline: what is graded by then is answered, instead of nothing a little later.
_BUDGET_SHARE = 0.9

# What grpc.aio says when a call ended while it was writing, whatever the server said.
_LOST_STATUS = "Internal error from Core"

AnswerT = TypeVar("AnswerT")
MessageT = TypeVar("MessageT", bound=Message)


def open_channel(address: str, *, tls: Tls | None = None, name: str = "") -> grpc.aio.Channel:
    """A channel to one service; connects when first used. Where a name has several addresses, they take turns.

    `name`: what the service's certificate has to say, where it is not the address' host.
    """
    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.lb_policy_name", "round_robin"),
    ]
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options)
    if name:
        options.append(("grpc.ssl_target_name_override", name))
    return grpc.aio.secure_channel(address, tls.for_client(), options=options)


def resolve(address: str) -> list[str]:
    """Every `ip:port` behind `host:port`: a name may stand for many replicas.

    Raises:
        PeerUnavailable: the name does not resolve.
    """
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise PeerUnavailable(f"{address}: the host name does not resolve ({error.strerror})") from None
    v4 = sorted({f"{info[4][0]}:{port}" for info in found if info[0] is socket.AF_INET})
    return v4 or sorted({f"[{info[4][0]}]:{port}" for info in found})


def to_prime_error(error: grpc.aio.AioRpcError, address: str) -> PrimeError:
    """The error that the server raised, or PeerUnavailable when nothing answered in time."""
    name = next((value for key, value in error.trailing_metadata() or () if key == ERROR_CLASS_KEY), "")
    raised = getattr(prime.errors, str(name), None)
    detail = error.details() or error.code().name
    if isinstance(raised, type) and issubclass(raised, PrimeError):
        return raised(f"{address}: {detail}")
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
        return PeerUnavailable(f"{address}: {error.code().name.lower()}: {detail}")
    return EngineError(f"{address}: {error.code().name.lower()}: {detail}")


def _in_parts(messages: Sequence[MessageT]) -> Iterator[list[MessageT]]:
    """The messages in order, in parts that stay well below the limit of one call."""
    part: list[MessageT] = []
    size = 0
    for message in messages:
        if part and (len(part) >= _PART_ITEMS or size + message.ByteSize() > _PART_BYTES):
            yield part
            part, size = [], 0
        part.append(message)
        size += message.ByteSize()
    if part:
        yield part


class _Peer:
    """One service at one address: the token and a deadline on every call, retries with back-off."""

    def __init__(
        self,
        address: str,
        token: str,
        *,
        deadline_s: float,
        patience_s: float = 0.0,
        tls: Tls | None = None,
        name: str = "",
    ) -> None:
        """`patience_s`: for how long a call is repeated while the service does not answer, e.g. is restarted.

        `tls`, `name`: see `open_channel`.
        """
        self.address = address
        self._channel = open_channel(address, tls=tls, name=name)
        self._metadata: tuple[tuple[str, str], ...] = ((AUTHORIZATION_KEY, f"Bearer {token}"),)
        self._deadline_s = deadline_s
        self._patience_s = patience_s
        self._connect()

    def _connect(self) -> None:
        """Make the stub of the service over `self._channel`."""
        raise NotImplementedError

    async def _call(self, method: Callable[..., Awaitable[AnswerT]], request: Any) -> AnswerT:
        return await self._repeat(method, request, deadline_s=self._deadline_s, patience_s=self._patience_s)

    async def _ask(self, method: Callable[..., Awaitable[AnswerT]], request: Any) -> AnswerT:
        return await self._repeat(
            method,
            request,
            deadline_s=min(self._deadline_s, _QUESTION_SECONDS),
            patience_s=min(self._patience_s, _QUESTION_PATIENCE_S),
        )

    async def _repeat(
        self, method: Callable[..., Awaitable[AnswerT]], request: Any, *, deadline_s: float, patience_s: float
    ) -> AnswerT:
        async def once() -> AnswerT:
            try:
                trace = ((tracing.TRACEPARENT, traceparent),) if (traceparent := tracing.current()) else ()
                return await method(request, timeout=deadline_s, metadata=self._metadata + trace)
            except grpc.aio.AioRpcError as error:
                raise to_prime_error(error, self.address) from None

        return await patiently(once, seconds=patience_s)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


class GrpcVerifier(_Peer):
    """`ports.Verifier` and `ports.AnswerGrouper` over gRPC.

    A call that is repeated joins the first by its idempotency key.
    """

    def _connect(self) -> None:
        self._stub = verifier_pb2_grpc.VerifierServiceStub(self._channel)

    async def grade(self, items: Sequence[GradeItem]) -> list[Verdict]:
        """One verdict per item, in order; what is not graded shortly before the call's deadline is undecided."""
        verdicts = []
        for part in _in_parts([wire.encode_item(item) for item in items]):
            request = verifier_pb2.GradeRequest(
                items=part, idempotency_key=uuid.uuid4().hex, budget_seconds=_BUDGET_SHARE * self._deadline_s
            )
            answer = await self._call(self._stub.Grade, request)
            verdicts += [wire.decode_verdict(verdict) for verdict in answer.verdicts]
        return verdicts

    async def group_answers(self, responses: Sequence[str]) -> AnswerClasses:
        """Classes of equal answers."""
        request = verifier_pb2.GroupAnswersRequest(responses=responses)
        return wire.decode_answer_classes(await self._call(self._stub.GroupAnswers, request))

    async def info(self) -> VerifierInfo:
        """What it can grade."""
        return wire.decode_verifier_info(
            await self._ask(self._stub.GetInfo, verifier_pb2.VerifierServiceGetInfoRequest())
        )


class GrpcRewardModel(_Peer):
    """`ports.RewardModel` over gRPC. Learn is repeatable because the service learns each step number once."""

    def _connect(self) -> None:
        self._stub = prm_pb2_grpc.PrmServiceStub(self._channel)

    async def score(self, groups: Sequence[PrmGroup]) -> TokenRewards:
        """Token rewards of every sample, asked for in parts that fit into messages.

        Raises:
            VersionConflict: the parts were answered by different PRM versions.
        """
        parts = [
            wire.decode_rewards(await self._call(self._stub.Score, prm_pb2.ScoreRequest(groups=part)))
            for part in _in_parts([wire.encode_prm_group(group) for group in groups])
        ]
        if len({part.prm_version for part in parts}) != 1:
            raise VersionConflict(f"{self.address}: the PRM learnt while a batch was being scored")
        return replace(parts[0], rows=tuple(row for part in parts for row in part.rows))

    async def learn(self, step: int, groups: Sequence[PrmGroup], outcomes: Sequence[float]) -> PrmMetrics:
        """Learn the outcomes once for this step number."""
        request = prm_pb2.LearnRequest(
            step=step,
            groups=[wire.encode_prm_group(group) for group in groups],
            outcomes=wire.encode_floats(outcomes),
        )
        return wire.decode_prm_metrics(await self._call(self._stub.Learn, request))

    async def save(self, step: int) -> str:
        """Write weights and optimiser; returns the folder."""
        return (await self._call(self._stub.Save, prm_pb2.SaveRequest(step=step))).path

    async def restore(self, step: int) -> int:
        """Go back to what was saved for `step`."""
        return (await self._call(self._stub.Restore, prm_pb2.RestoreRequest(step=step))).prm_version

    async def info(self) -> PrmInfo:
        """Version, scale, reference and tokenizer."""
        return wire.decode_prm_info(await self._ask(self._stub.GetInfo, prm_pb2.PrmServiceGetInfoRequest()))


class GrpcRollout(_Peer):
    """`ports.Rollout` over gRPC: one replica."""

    def _connect(self) -> None:
        self._stub = rollout_pb2_grpc.RolloutServiceStub(self._channel)
        self._push: Any = self._channel.stream_unary(
            "/prime.v1.RolloutService/PushWeights",
            response_deserializer=rollout_pb2.PushWeightsResponse.FromString,
        )

    async def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        """Sample at once, past the queue."""
        message = rollout_pb2.GenerateRequest(requests=[wire.encode_request(request) for request in requests])
        answer: rollout_pb2.GenerateResponse = await self._call(self._stub.Generate, message)
        return [wire.decode_group(group) for group in answer.groups]

    async def push(
        self, manifest: PushManifest, chunks: AsyncIterator[bytes | memoryview], digest: Callable[[], Awaitable[bytes]]
    ) -> PushReceipt:
        """Stream the weights. Not repeated here: the chunks are spent, and the caller knows whether to try again."""

        begin = rollout_pb2.PushWeightsRequest(begin=wire.encode_manifest(manifest)).SerializeToString()

        async def parts() -> AsyncIterator[bytes]:
            yield begin
            async for chunk in chunks:
                yield wire.lay_chunk(chunk)
            commit = rollout_pb2.PushCommit(digest=await digest())
            yield rollout_pb2.PushWeightsRequest(commit=commit).SerializeToString()

        async def beginning() -> AsyncIterator[bytes]:
            yield begin

        try:
            answer: rollout_pb2.PushWeightsResponse = await self._repeat(
                self._push, parts(), deadline_s=self._deadline_s, patience_s=0.0
            )
        except EngineError as error:
            if _LOST_STATUS in str(error) and manifest.offer is None:
                # A refusal came while a chunk was being written, and gRPC lost its words: hear them without chunks.
                await self._repeat(self._push, beginning(), deadline_s=_QUESTION_SECONDS, patience_s=0.0)
            raise
        return wire.decode_receipt(answer)

    async def status(self) -> RolloutStatus:
        """Where it stands."""
        return wire.decode_rollout_status(
            await self._ask(self._stub.GetStatus, rollout_pb2.RolloutServiceGetStatusRequest())
        )


class GrpcTrainer(_Peer):
    """A running trainer, for `primectl status` and for the supervisor."""

    def _connect(self) -> None:
        self._stub = trainer_pb2_grpc.TrainerServiceStub(self._channel)

    async def status(self) -> TrainerStatus:
        """Where the run stands. Asked often, so an answer that does not come is not asked for again."""
        request = trainer_pb2.TrainerServiceGetStatusRequest()
        return wire.decode_trainer_status(await self._ask(self._stub.GetStatus, request))

    async def stop(self) -> int:
        """Ask for an end after the step at hand; returns that step."""
        return (await self._call(self._stub.Stop, trainer_pb2.StopRequest())).step
