"""The verifier behind a real gRPC server, asked by the client that the trainer uses."""

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from prime.adapters.grpc_clients import GrpcVerifier
from prime.adapters.grpc_server import build_server
from prime.adapters.telemetry import Meters
from prime.errors import PeerUnavailable, Unauthenticated
from prime.types import GradeItem, TestVerdict, VerdictStatus, VerifierInfo
from prime.v1 import verifier_pb2_grpc
from services.verifier.main import open_verifier
from services.verifier.rpc import VerifierServicer
from services.verifier.settings import VerifierSettings

TOKEN = "edge-token"
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def meters() -> Meters:
    return Meters()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def address(meters: Meters) -> AsyncIterator[str]:
    async with open_verifier(VerifierSettings(workers=2), meters) as parts:
        server = build_server(TOKEN, meters)
        verifier_pb2_grpc.add_VerifierServiceServicer_to_server(VerifierServicer(parts.grader), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        yield f"127.0.0.1:{port}"
        await server.stop(None)


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
        math("(x+1)^{5000}", "x^2"),
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
    assert [verdict.method for verdict in verdicts[:3]] == ["code:stdin", "exact", "math"]
    assert [verdict.tier for verdict in verdicts] == ["A", "", "A", "", "A", "", "", ""]
    (record,) = verdicts[4].tests
    assert (record.verdict, record.output_bytes) == (TestVerdict.WA, 2)
    assert record.cpu_ms > 0
    assert record.peak_mib > 1
    labels = {"grader": "math", "status": "undecided", "reason": "too_complex", "tier": ""}
    assert meters.registry.get_sample_value("prime_verdicts_total", labels) == 1.0
    assert (meters.registry.get_sample_value("prime_grade_seconds_count", {"grader": "code"}) or 0) >= 2.0
    await client.close()


async def test_info_names_graders_isolation_and_the_age_of_its_proof(address: str) -> None:
    client = GrpcVerifier(address, TOKEN, deadline_s=60.0)
    info = await client.info()
    assert (info.graders, info.tier, info.workers) == (("exact", "math", "code", "environment"), "A", 2)
    assert {"landlock", "seccomp"} <= set(info.isolation)
    assert 0 < info.canary_age_seconds < 60
    await client.close()


async def test_a_wrong_token_is_refused(address: str) -> None:
    client = GrpcVerifier(address, "guess", deadline_s=60.0)
    with pytest.raises(Unauthenticated):
        await client.grade([chain("#6")])
    await client.close()


async def test_an_unusable_ground_truth_is_told_for_its_item_and_costs_no_other(address: str) -> None:
    client = GrpcVerifier(address, TOKEN, deadline_s=60.0)
    torn = GradeItem(item_id="p", data_source="taco", ability="code", response="", ground_truth="{}")
    verdicts = await client.grade([chain("#6"), chain("#6", truth=" "), math("5", ""), torn])
    assert [verdict.status for verdict in verdicts] == [VerdictStatus.PASSED] + [VerdictStatus.INVALID_REQUEST] * 3
    assert all(verdict.score is None and "ground truth" in verdict.reason for verdict in verdicts[1:])
    await client.close()


async def test_options_kind_and_the_all_or_nothing_score_reach_the_grader(address: str) -> None:
    client = GrpcVerifier(address, TOKEN, deadline_s=60.0)
    program = code("print(input())", "8")
    tests = json.dumps({"inputs": ["1", "2"], "outputs": ["1", "0"]})
    verdicts = await client.grade(
        [
            replace(math("3.14", "\\pi"), options=("two_decimals",)),
            math("3.14", "\\pi"),
            replace(math("3.14", "3.14"), kind="exact"),
            replace(program, ground_truth=tests),
            replace(program, ground_truth=tests, binary=True),
        ]
    )
    assert [verdict.score for verdict in verdicts] == [1.0, 0.0, 0.0, 0.5, 0.0]
    await client.close()


async def test_a_call_whose_service_is_killed_is_graded_by_the_next_one_once() -> None:
    """The client's patience and key: nothing is lost, and no verdict comes twice."""
    listen, ops = free_address(), free_address()
    client = GrpcVerifier(listen, TOKEN, deadline_s=60.0, patience_s=60.0)
    first = await start_service(listen, ops)
    await asyncio.wait_for(until_it_answers(client), 60.0)
    asked = [code(f"import time; time.sleep(0.2); print({number})", str(number)) for number in range(20)]
    grading = asyncio.ensure_future(client.grade(asked))
    await asyncio.sleep(0.5)
    first.kill()
    await first.wait()
    second = await start_service(listen, ops)
    try:
        verdicts = await grading
        assert [(verdict.status, verdict.score) for verdict in verdicts] == [(VerdictStatus.PASSED, 1.0)] * 20
    finally:
        await client.close()
        second.send_signal(signal.SIGTERM)
        assert await second.wait() == 0


async def test_the_service_proves_its_sandbox_serves_and_stops_when_told() -> None:
    listen, ops = free_address(), free_address()
    service = await start_service(listen, ops)
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


async def start_service(listen: str, ops: str) -> asyncio.subprocess.Process:
    program = (
        "from pathlib import Path\n"
        "from prime.adapters.settings import RunSettings\n"
        "from services.verifier.main import main\n"
        "from services.verifier.settings import VerifierSettings\n"
        f"settings = VerifierSettings(listen='{listen}', ops_listen='{ops}', workers=1)\n"
        f"main(RunSettings(name='edge', model=Path('none')), settings, '{TOKEN}')\n"
    )
    return await asyncio.create_subprocess_exec(sys.executable, "-c", program)


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
