"""Equal answers are one class, however they are written; what gives no answer is in none."""

from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from prime.adapters.grpc_clients import GrpcVerifier
from prime.adapters.grpc_server import build_server
from prime.adapters.telemetry import Meters
from prime.errors import InvalidInput
from prime.ports import AnswerGrouper
from prime.v1 import verifier_pb2_grpc
from services.verifier.answers import AnswerGroups
from services.verifier.main import open_verifier
from services.verifier.rpc import VerifierServicer
from services.verifier.sandbox.zygotes import Tier
from services.verifier.settings import VerifierSettings

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def groupers() -> AsyncIterator[list[AnswerGrouper]]:
    """In this process, and behind a real gRPC server."""
    meters = Meters()
    async with open_verifier(VerifierSettings(workers=2, min_tier=Tier.B), meters) as parts:
        server = build_server("t", meters)
        verifier_pb2_grpc.add_VerifierServiceServicer_to_server(VerifierServicer(parts.grader), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        remote = GrpcVerifier(f"127.0.0.1:{port}", "t", deadline_s=60)
        yield [AnswerGroups(parts.grader), remote]
        await remote.close()
        await server.stop(None)


@pytest.mark.parametrize(
    ("responses", "answers", "classes"),
    [
        ([], (), ()),
        (["nothing", "\\boxed{}"], ("", ""), (-1, -1)),
        (
            ["so \\boxed{1/2}", "none", "\\boxed{0.5}", "\\boxed{2}", "#### 2", "\\boxed{\\frac{1}{2}}"],
            ("1/2", "", "0.5", "2", "2", "\\frac{1}{2}"),
            (0, -1, 0, 1, 1, 0),
        ),
        (
            ["\\boxed{x^2-1}", "\\boxed{(x-1)(x+1)}", "\\boxed{x^2+1}"],
            ("x^2-1", "(x-1)(x+1)", "x^2+1"),
            (0, 0, 1),
        ),
        (["\\boxed{9^{9^{9^9}}}", "\\boxed{9^{9^{9^9}}}"], ("9^{9^{9^9}}",) * 2, (0, 0)),
        (["#### }{", "#### }{", "\\boxed{1}"], ("}{", "}{", "1"), (0, 0, 1)),
    ],
)
async def test_responses_with_equal_answers_are_one_class(
    groupers: list[AnswerGrouper], responses: Sequence[str], answers: tuple[str, ...], classes: tuple[int, ...]
) -> None:
    for grouper in groupers:
        found = await grouper.group_answers(responses)
        assert (found.answers, found.classes) == (answers, classes)


async def test_more_than_one_call_may_hold_is_refused(groupers: list[AnswerGrouper]) -> None:
    for grouper in groupers:
        with pytest.raises(InvalidInput, match="at most 1024"):
            await grouper.group_answers(["a"] * 1025)
