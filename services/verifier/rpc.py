"""The gRPC edge of the verifier: decode, grade, encode. Errors are mapped by the server's interceptor."""

from typing import Any

import grpc

from prime import wire
from prime.v1 import verifier_pb2, verifier_pb2_grpc
from services.verifier.answers import group_answers
from services.verifier.grade import Grader


class VerifierServicer(verifier_pb2_grpc.VerifierServiceServicer):
    """`prime.v1.VerifierService` in front of a `Grader`."""

    def __init__(self, grader: Grader) -> None:
        self._grader = grader

    async def Grade(  # noqa: D102 - described in verifier.proto
        self, request: verifier_pb2.GradeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> verifier_pb2.GradeResponse:
        verdicts = await self._grader.grade(
            [wire.decode_item(item) for item in request.items],
            idempotency_key=request.idempotency_key,
            budget_seconds=request.budget_seconds,
        )
        return verifier_pb2.GradeResponse(verdicts=[wire.encode_verdict(verdict) for verdict in verdicts])

    async def GroupAnswers(  # noqa: D102 - described in verifier.proto
        self, request: verifier_pb2.GroupAnswersRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> verifier_pb2.GroupAnswersResponse:
        return wire.encode_answer_classes(await group_answers(self._grader, request.responses))

    async def GetInfo(  # noqa: D102 - described in verifier.proto
        self, request: verifier_pb2.VerifierServiceGetInfoRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> verifier_pb2.VerifierServiceGetInfoResponse:
        return wire.encode_verifier_info(await self._grader.info())
