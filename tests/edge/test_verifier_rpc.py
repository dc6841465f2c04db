"""The verifier behind a real gRPC server, asked by the client that the trainer uses."""

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator

import pytest

from prime.adapters.grpc_clients import GrpcVerifier
from prime.adapters.grpc_server import build_server
from prime.adapters.telemetry import Meters
from prime.errors import InvalidInput, PeerUnavailable, Unauthenticated
from prime.types import GradeItem, VerdictStatus, VerifierInfo
from prime.v1 import verifier_pb2_grpc
from services.verifier.grade import Grader
from services.verifier.mathematics import MathPool
from services.verifier.rpc import VerifierServicer
from services.verifier.sandbox import Sandbox
from services.verifier.settings import VerifierSettings

TOKEN = "edge-token"


@pytest.fixture
def meters() -> Meters:
    return Meters()


@pytest.fixture
async def address(meters: Meters) -> AsyncIterator[str]:
    settings = VerifierSettings(workers=2, math_seconds=20.0)
    sandbox, pool = Sandbox(2), MathPool(1, 20.0)
    grader = Grader(settings, sandbox, pool, meters)
    grader.isolation = ("landlock:7", "seccomp")
    server = build_server(TOKEN, meters)
    verifier_pb2_grpc.add_VerifierServiceServicer_to_server(VerifierServicer(grader), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)
    sandbox.close()
    pool.close()


def chain(response: str, truth: str = "6") -> GradeItem:
    return GradeItem(item_id="c", data_source="chain", ability="sum", response=response, ground_truth=truth)


def math(answer: str, truth: str) -> GradeItem:
    response = f"\\boxed{{{answer}}}"
    return GradeItem(item_id="m", data_source="numina", ability="math", response=response, ground_truth=truth)


def code(program: str, expected: str) -> GradeItem:
    truth = json.dumps({"inputs": ["3 5"], "outputs": [expected]})
    return GradeItem(
        item_id="p", data_source="taco", ability="code", response=f"```python\n{program}\n```", ground_truth=truth
    )


async def test_a_mixed_batch_is_graded_in_order(address: str, meters: Meters) -> None:
    client = GrpcVerifier(address, TOKEN, deadline_s=60.0)
    batch = [
        code("import time; time.sleep(0.5); print(8)", "8"),
        chain("3+5=8;8+8=6#6"),
        math("(x+1)^2", "x^2+2x+1"),
        math("9^{9^{9^9}}", "42"),
        code("print(7)", "8"),
        chain("3+5=8#7"),
        math("41", "42"),
        chain("no answer"),
    ]
    verdicts = await client.grade(batch)
    assert [(verdict.status, verdict.score, verdict.reason) for verdict in verdicts] == [
        (VerdictStatus.PASSED, 1.0, "all_tests"),
        (VerdictStatus.PASSED, 1.0, "exact"),
        (VerdictStatus.PASSED, 1.0, "symbolic"),
        (VerdictStatus.UNDECIDED, None, "too_complex"),
        (VerdictStatus.FAILED, 0.0, "wrong_output:0"),
        (VerdictStatus.FAILED, 0.0, "mismatch"),
        (VerdictStatus.FAILED, 0.0, "mismatch"),
        (VerdictStatus.FAILED, 0.0, "no_answer"),
    ]
    labels = {"grader": "math", "status": "undecided", "reason": "too_complex"}
    assert meters.registry.get_sample_value("prime_verdicts_total", labels) == 1.0
    assert meters.registry.get_sample_value("prime_grade_seconds_count", {"grader": "code"}) == 2.0
    await client.close()


async def test_info_names_graders_and_isolation(address: str) -> None:
    client = GrpcVerifier(address, TOKEN, deadline_s=60.0)
    info = await client.info()
    assert (info.graders, info.isolation, info.workers) == (("exact", "math", "code"), ("landlock:7", "seccomp"), 2)
    await client.close()


async def test_a_wrong_token_is_refused(address: str) -> None:
    client = GrpcVerifier(address, "guess", deadline_s=60.0)
    with pytest.raises(Unauthenticated):
        await client.grade([chain("#6")])
    await client.close()


async def test_an_empty_ground_truth_is_an_error_of_the_caller_and_not_a_verdict(address: str) -> None:
    client = GrpcVerifier(address, TOKEN, deadline_s=60.0)
    torn = GradeItem(item_id="p", data_source="taco", ability="code", response="", ground_truth="{}")
    for bad in (chain("#6", truth=" "), math("5", ""), torn):
        with pytest.raises(InvalidInput, match="item"):
            await client.grade([chain("#6"), bad])
    await client.close()


async def test_the_service_proves_its_sandbox_serves_and_stops_when_told() -> None:
    listen, ops = free_address(), free_address()
    program = (
        "from pathlib import Path\n"
        "from prime.adapters.settings import RunSettings\n"
        "from services.verifier.main import main\n"
        "from services.verifier.settings import VerifierSettings\n"
        f"settings = VerifierSettings(listen='{listen}', ops_listen='{ops}', workers=1, math_seconds=30.0)\n"
        f"main(RunSettings(name='edge', model=Path('none')), settings, '{TOKEN}')\n"
    )
    service = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    client = GrpcVerifier(listen, TOKEN, deadline_s=30.0)
    try:
        info = await asyncio.wait_for(until_it_answers(client), 60.0)
        assert {"landlock", "seccomp", "no_new_privs"} <= {layer.partition(":")[0] for layer in info.isolation}
        (verdict,) = await client.grade([code("print(8)", "8")])
        assert verdict.status is VerdictStatus.PASSED
    finally:
        await client.close()
        service.send_signal(signal.SIGTERM)
        assert await service.wait() == 0


async def until_it_answers(client: GrpcVerifier) -> VerifierInfo:
    while True:
        try:
            return await client.info()
        except PeerUnavailable:
            await asyncio.sleep(0.2)


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
