"""Mutual TLS between services: who has a certificate of the same authority gets through, and nobody else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from prime.adapters.grpc_clients import GrpcTrainer, open_channel
from prime.adapters.grpc_server import Health, build_server
from prime.adapters.telemetry import Meters
from prime.adapters.tls import Tls
from prime.errors import PeerUnavailable, SettingsError, Unauthenticated
from prime.types import TrainerStatus
from prime.v1 import trainer_pb2, trainer_pb2_grpc
from prime.wire import encode_trainer_status

TOKEN = "tls-token"
STATUS = TrainerStatus(
    run="r",
    phase="idle",
    step=3,
    total_steps=4,
    policy_version=3,
    tokens_per_second=1.0,
    mean_score=0.5,
    accuracy=0.5,
    seconds_left=1.0,
    error="",
)


class OneStatus(trainer_pb2_grpc.TrainerServiceServicer):
    async def GetStatus(
        self, request: trainer_pb2.TrainerServiceGetStatusRequest, context: object
    ) -> trainer_pb2.TrainerServiceGetStatusResponse:
        return encode_trainer_status(STATUS)


def certificates(folder: Path, authority: trustme.CA, *names: str) -> Tls:
    folder.mkdir(exist_ok=True)
    own = authority.issue_cert(*names)
    (folder / "ca.crt").write_bytes(authority.cert_pem.bytes())
    (folder / "tls.crt").write_bytes(b"".join(part.bytes() for part in own.cert_chain_pems))
    (folder / "tls.key").write_bytes(own.private_key_pem.bytes())
    return Tls(folder)


@asynccontextmanager
async def serving(tls: Tls) -> AsyncIterator[str]:
    server = build_server(TOKEN, Meters())
    trainer_pb2_grpc.add_TrainerServiceServicer_to_server(OneStatus(), server)  # type: ignore[abstract]
    health = Health("prime.v1.TrainerService")
    health.add_to(server)
    port = server.add_secure_port("127.0.0.1:0", tls.for_server())
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def ask(address: str, tls: Tls | None, *, token: str = TOKEN, name: str = "") -> TrainerStatus:
    client = GrpcTrainer(address, token, deadline_s=2.0, tls=tls, name=name)
    try:
        return await client.status()
    finally:
        await client.close()


async def test_who_has_a_certificate_of_the_same_authority_gets_through(tmp_path: Path) -> None:
    authority = trustme.CA()
    server, client = (certificates(tmp_path / name, authority, "127.0.0.1", name) for name in ("server", "client"))
    async with serving(server) as address:
        assert await ask(address, client) == STATUS
        with pytest.raises(Unauthenticated):
            await ask(address, client, token="guess")


async def test_nobody_else_does(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    server = certificates(tmp_path / "server", authority, "127.0.0.1")
    foreign = certificates(tmp_path / "foreign", stranger, "127.0.0.1")
    # Trusts the server, but shows a certificate of somebody else's.
    (tmp_path / "foreign" / "ca.crt").write_bytes(authority.cert_pem.bytes())
    async with serving(server) as address:
        for tls in (None, foreign):
            with pytest.raises(PeerUnavailable):
                await ask(address, tls)
        anonymous = grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(authority.cert_pem.bytes()))
        async with anonymous as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2.0)


async def test_a_client_refuses_a_server_of_another_authority_or_name(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    client = certificates(tmp_path / "client", authority, "client")
    async with serving(certificates(tmp_path / "other", stranger, "127.0.0.1")) as address:
        with pytest.raises(PeerUnavailable):
            await ask(address, client)
    async with serving(certificates(tmp_path / "named", authority, "rollout")) as address:
        with pytest.raises(PeerUnavailable):
            await ask(address, client)
        # A replica is reached by its address, and its certificate says the service's name.
        assert await ask(address, client, name="rollout") == STATUS
        with pytest.raises(PeerUnavailable):
            await ask(address, client, name="prm")


async def test_a_renewed_certificate_is_used_without_a_restart(tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    server = certificates(tmp_path / "server", old, "127.0.0.1")
    before = certificates(tmp_path / "before", old, "client")
    async with serving(server) as address:
        assert await ask(address, before) == STATUS
        certificates(tmp_path / "server", new, "127.0.0.1")
        after = certificates(tmp_path / "after", new, "client")
        assert await ask(address, after) == STATUS
        with pytest.raises(PeerUnavailable):
            await ask(address, before)
        # Torn files, as while they are being replaced: the last whole ones stay in use.
        (tmp_path / "server" / "tls.key").unlink()
        assert await ask(address, after) == STATUS


def test_a_folder_without_certificates_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"run\.tls_folder = .* has to hold ca\.crt, tls\.crt and tls\.key"):
        Tls.of(tmp_path)
    assert Tls.of(None) is None


async def test_a_plain_channel_stays_plain(tmp_path: Path) -> None:
    server = build_server(TOKEN, Meters())
    health = Health("prime.v1.TrainerService")
    health.add_to(server)
    await health.set_ready(True)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2.0)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    await asyncio.wait_for(server.stop(None), 5)
