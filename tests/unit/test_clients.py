"""The clients and the edge of every service, over real local connections: errors, retries, token, health, HTTP."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import prime.errors
from prime.adapters.grpc_clients import GrpcRewardModel, GrpcTrainer, open_channel, resolve, to_prime_error
from prime.adapters.grpc_server import AUTHORIZATION_KEY, Health, build_server
from prime.adapters.ops_http import ops_app
from prime.adapters.service import Service, serve
from prime.adapters.settings import ServiceSettings
from prime.adapters.telemetry import CounterSpec, Meters
from prime.errors import (
    EngineError,
    InvalidInput,
    NotReady,
    Overloaded,
    PeerUnavailable,
    PrimeError,
    SettingsError,
    Unauthenticated,
)
from prime.types import PrmInfo
from prime.v1 import prm_pb2, prm_pb2_grpc
from prime.wire import encode_prm_info

TOKEN = "clients-token"
SERVICE = "prime.v1.PrmService"
INFO = PrmInfo(
    prm_version=3, beta=0.05, reference_id="sha256:1f", reference_mode="freeze", tokenizer_fingerprint="sha256:2e"
)
ERRORS: list[type[PrimeError]] = [
    each for each in vars(prime.errors).values() if isinstance(each, type) and issubclass(each, PrimeError)
]


class ScriptedPrm(prm_pb2_grpc.PrmServiceServicer):
    """Raises what it is told to, one error per call, then answers."""

    def __init__(self) -> None:
        self.script: list[Exception] = []
        self.calls = 0
        self.blocked = False

    async def GetInfo(
        self, request: prm_pb2.PrmServiceGetInfoRequest, context: Any
    ) -> prm_pb2.PrmServiceGetInfoResponse:
        self.calls += 1
        if self.blocked:
            await asyncio.Event().wait()
        if self.script:
            raise self.script.pop(0)
        return encode_prm_info(INFO)


class Edge:
    """A server with the scripted servicer and health, and what is needed to ask it."""

    def __init__(self) -> None:
        self.prm = ScriptedPrm()  # type: ignore[abstract]  # the other calls are not asked
        self.meters, self.health = Meters(), Health(SERVICE)
        self.server = build_server(TOKEN, self.meters)
        prm_pb2_grpc.add_PrmServiceServicer_to_server(self.prm, self.server)
        self.health.add_to(self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"

    async def ask_once(self, *, timeout: float = 30.0) -> PrimeError:
        """One call without the client's retries; the translated error."""
        async with open_channel(self.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await prm_pb2_grpc.PrmServiceStub(channel).GetInfo(
                    prm_pb2.PrmServiceGetInfoRequest(),
                    timeout=timeout,
                    metadata=((AUTHORIZATION_KEY, f"Bearer {TOKEN}"),),
                )
        return to_prime_error(caught.value, self.address)

    def count(self, code: str) -> float | None:
        """How many GetInfo calls ended with this code."""
        labels = {"method": f"/{SERVICE}/GetInfo", "code": code}
        return self.meters.registry.get_sample_value("prime_rpc_seconds_count", labels)


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    edge = Edge()
    await edge.health.set_ready(False)
    await edge.server.start()
    yield edge
    await edge.server.stop(None)


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[GrpcRewardModel]:
    client = GrpcRewardModel(edge.address, TOKEN, deadline_s=30.0, patience_s=30.0)
    yield client
    await client.close()


@pytest.fixture
async def taken() -> AsyncIterator[str]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield f"127.0.0.1:{holder.getsockname()[1]}"


def _free() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("kind", ERRORS)
async def test_an_error_arrives_as_its_own_class_with_address_and_message(edge: Edge, kind: type[PrimeError]) -> None:
    edge.prm.script = [kind("the reason, naïvely")]
    error = await edge.ask_once()
    assert type(error) is kind
    assert str(error) == f"{edge.address}: the reason, naïvely"


async def test_calls_are_counted_by_method_and_code(edge: Edge, client: GrpcRewardModel) -> None:
    edge.prm.script = [NotReady("loading")]
    await client.info()
    while not (edge.count("UNAVAILABLE") and edge.count("OK")):  # counted just after the answer is on its way
        await asyncio.sleep(0.01)
    assert (edge.count("UNAVAILABLE"), edge.count("OK"), edge.count("INTERNAL")) == (1, 1, None)


@pytest.mark.parametrize("kind", [each for each in ERRORS if not each.retryable])
async def test_an_error_that_a_repeat_cannot_cure_is_raised_at_once(
    edge: Edge, client: GrpcRewardModel, kind: type[PrimeError]
) -> None:
    edge.prm.script = [kind("no")]
    with pytest.raises(kind, match=f"{edge.address}: no"):
        await client.info()
    assert edge.prm.calls == 1


async def test_a_bug_in_a_servicer_is_an_engine_error_that_names_it(edge: Edge, client: GrpcRewardModel) -> None:
    edge.prm.script = [ZeroDivisionError("division by zero")]
    with pytest.raises(EngineError, match=rf"{edge.address}: internal: ZeroDivisionError: division by zero"):
        await client.info()


async def test_a_call_that_the_server_does_not_know_is_an_engine_error(edge: Edge) -> None:
    trainer = GrpcTrainer(edge.address, TOKEN, deadline_s=30.0)
    with pytest.raises(EngineError, match=f"{edge.address}: unimplemented"):
        await trainer.status()
    await trainer.close()


async def test_an_answer_that_does_not_come_in_time_is_an_unavailable_peer(edge: Edge) -> None:
    edge.prm.blocked = True
    error = await edge.ask_once(timeout=0.2)
    assert type(error) is PeerUnavailable
    assert str(error).startswith(f"{edge.address}: deadline_exceeded")


async def test_nothing_listening_is_an_unavailable_peer() -> None:
    address = _free()
    trainer = GrpcTrainer(address, TOKEN, deadline_s=30.0)
    with pytest.raises(PeerUnavailable, match=f"{address}: unavailable"):
        await trainer.status()
    await trainer.close()


def test_a_name_that_does_not_resolve_is_an_unavailable_peer() -> None:
    with pytest.raises(PeerUnavailable, match=r"no-such-host\.invalid:1: the host name does not resolve"):
        resolve("no-such-host.invalid:1")
    assert resolve("127.0.0.1:7") == ["127.0.0.1:7"]


# ---------------------------------------------------------------- retries


@pytest.mark.parametrize("kind", [NotReady, Overloaded, PeerUnavailable])
async def test_a_call_is_repeated_until_the_peer_is_ready(
    edge: Edge, client: GrpcRewardModel, kind: type[PrimeError]
) -> None:
    edge.prm.script = [kind("loading")]
    assert await client.info() == INFO
    assert edge.prm.calls == 2


async def test_when_patience_ends_the_error_is_raised(edge: Edge) -> None:
    impatient = GrpcRewardModel(edge.address, TOKEN, deadline_s=30.0, patience_s=0.3)
    edge.prm.script = [NotReady(f"loading, asked {number}") for number in range(1, 10)]
    with pytest.raises(NotReady, match="loading, asked 2"):
        await impatient.info()
    await impatient.close()
    assert edge.prm.calls == 2


async def test_without_patience_nothing_is_repeated(edge: Edge) -> None:
    impatient = GrpcRewardModel(edge.address, TOKEN, deadline_s=30.0)
    edge.prm.script = [NotReady("loading")]
    with pytest.raises(NotReady, match="loading"):
        await impatient.info()
    await impatient.close()
    assert edge.prm.calls == 1


async def test_another_error_ends_the_repeats(edge: Edge, client: GrpcRewardModel) -> None:
    edge.prm.script = [NotReady("loading"), InvalidInput("bad")]
    with pytest.raises(InvalidInput, match="bad"):
        await client.info()
    assert edge.prm.calls == 2


# ---------------------------------------------------------------- token and health


@pytest.mark.parametrize("token", ["", "guess", f"{TOKEN} ", TOKEN.upper()])
async def test_a_wrong_token_never_reaches_the_servicer(edge: Edge, token: str) -> None:
    client = GrpcRewardModel(edge.address, token, deadline_s=30.0)
    with pytest.raises(Unauthenticated, match=f"{edge.address}: the bearer token is missing or wrong"):
        await client.info()
    await client.close()
    assert edge.prm.calls == 0


async def test_a_call_without_any_token_is_refused(edge: Edge) -> None:
    async with open_channel(edge.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await prm_pb2_grpc.PrmServiceStub(channel).GetInfo(prm_pb2.PrmServiceGetInfoRequest(), timeout=30.0)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert edge.prm.calls == 0


async def test_health_answers_without_a_token_and_follows_readiness(edge: Edge) -> None:
    serving = health_pb2.HealthCheckResponse.SERVING
    not_serving = health_pb2.HealthCheckResponse.NOT_SERVING

    async def check(service: str) -> int:
        request = health_pb2.HealthCheckRequest(service=service)
        return int((await stub.Check(request, timeout=30.0)).status)

    async with open_channel(edge.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        assert (await check(""), await check(SERVICE)) == (serving, not_serving)
        await edge.health.set_ready(True)
        assert (await check(""), await check(SERVICE)) == (serving, serving)
        await edge.health.stop()
        assert (await check(""), await check(SERVICE)) == (not_serving, not_serving)


# ---------------------------------------------------------------- the life of a service


def _service(listen: str, ops_listen: str) -> Service:
    return Service(
        name=SERVICE,
        settings=ServiceSettings(listen=listen, ops_listen=ops_listen, grace_seconds=0.1),
        token=TOKEN,
        meters=Meters(),
        add_servicers=lambda server: None,
    )


async def test_a_taken_grpc_port_is_named(taken: str) -> None:
    with pytest.raises(SettingsError, match=rf"cannot listen on {taken} \(setting `listen` of {SERVICE}\)"):
        await serve(_service(taken, _free()))


async def test_a_taken_http_port_is_named(taken: str) -> None:
    with pytest.raises(SettingsError, match=rf"cannot listen on {taken} \(setting `ops_listen`\)"):
        await serve(_service(_free(), taken))


async def test_a_second_server_does_not_share_a_grpc_port(edge: Edge) -> None:
    with pytest.raises(SettingsError, match=f"cannot listen on {edge.address}"):
        await serve(_service(edge.address, _free()))


# ---------------------------------------------------------------- HTTP


async def test_the_http_app_says_alive_ready_and_what_was_counted() -> None:
    meters, ready = Meters(), False
    meters.counter(CounterSpec("prime_groups_total", "Groups.", ("kind",))).labels("kept").inc(3)
    app = ops_app("prm", lambda: ready, meters.registry)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://ops") as http:
        alive = await http.get("/healthz")
        assert (alive.status_code, alive.json()) == (200, {"service": "prm", "status": "alive"})
        before = await http.get("/readyz")
        assert (before.status_code, before.json()["status"]) == (503, "not ready")
        ready = True
        after = await http.get("/readyz")
        assert (after.status_code, after.json()["status"]) == (200, "ready")
        metrics = await http.get("/metrics")
        assert metrics.headers["content-type"].startswith("text/plain")
        assert 'prime_groups_total{kind="kept"} 3.0' in metrics.text
        assert (await http.get("/docs")).status_code == 404


async def test_replicas_behind_one_name_take_turns_and_a_limited_connection_costs_no_call() -> None:
    """What a headless service resolves to, written out as gRPC's own kind of address."""
    served: list[tuple[ScriptedPrm, grpc.aio.Server, int]] = []
    for _ in range(2):
        prm = ScriptedPrm()  # type: ignore[abstract]
        server = build_server(TOKEN, Meters(), connection_s=0.5)
        prm_pb2_grpc.add_PrmServiceServicer_to_server(prm, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        served.append((prm, server, port))
    addresses = ",".join(f"127.0.0.1:{port}" for _, _, port in served)
    client = GrpcRewardModel(f"ipv4:{addresses}", TOKEN, deadline_s=5.0)
    for _ in range(60):
        assert await client.info() == INFO
        await asyncio.sleep(0.03)
    assert min(prm.calls for prm, _, _ in served) > 15
    await client.close()
    for _, server, _ in served:
        await server.stop(None)
