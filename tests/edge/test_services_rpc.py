"""Rollout and PRM behind real gRPC on a loopback socket, called through the clients that ship."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import torch

from prime.adapters.grpc_clients import GrpcRewardModel, GrpcRollout
from prime.adapters.grpc_server import build_server
from prime.adapters.memory import MemoryBroker, MemoryQueue
from prime.adapters.telemetry import Meters
from prime.errors import InvalidInput, NotReady, StaleBase, WeightPushError
from prime.lm.packing import TokenRow
from prime.lm.shared_memory import share
from prime.ports import Rollout
from prime.types import PrmGroup, PushOffer
from prime.v1 import prm_pb2_grpc
from services.prm.reward import IsWanted, RewardService, ScoredRows
from services.prm.reward_model import ImplicitPrm
from services.prm.rpc import PrmServicer
from services.prm.settings import PrmSettings
from services.rollout.loop import RolloutWorker
from services.rollout.rpc import RolloutServicer, add_rollout_servicer
from services.rollout.staging import WeightStore
from services.rollout.transformers_engine import TransformersEngine
from services.trainer.batch import PolicyBatch
from services.trainer.direct import DirectPush
from services.trainer.outgoing import OutgoingWeights, Probe
from services.trainer.policy import Policy
from services.trainer.publisher import Publisher
from services.trainer.settings import TrainerSettings
from tests.builders import finder, perturb, request, tiny_model

TOKEN = "token"
_ROW = TokenRow(prompt_ids=(5, 6), response_ids=(9, 30, 1))
BATCH = PolicyBatch(rows=[_ROW], advantages=[torch.tensor([1.0, -1.0, 2.0])], sampler_logprobs=[torch.zeros(3)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return perturb(tiny_model(tmp_path_factory.mktemp("model")), seed=1)


@asynccontextmanager
async def _serving(server: grpc.aio.Server, *, port: int = 0) -> AsyncIterator[str]:
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def _replica(folder: Path, *, dtype: str = "float32", port: int = 0) -> AsyncIterator[GrpcRollout]:
    engine = TransformersEngine(model=folder, device="cpu", dtype=dtype)
    await engine.start()
    queue = MemoryQueue(MemoryBroker(), consumer="w")
    worker = RolloutWorker(
        queue=queue, engine=engine, store=WeightStore(), max_groups=4, lease_seconds=5.0, max_context=256
    )
    server = build_server(TOKEN, Meters())
    add_rollout_servicer(RolloutServicer(worker, "f"), server)
    async with _serving(server, port=port) as address:
        client = GrpcRollout(address, TOKEN, deadline_s=30.0)
        yield client
        await client.close()
    await engine.close()


def _policy(folder: Path) -> Policy:
    return Policy(folder, TrainerSettings(problems="x", steps=1))


async def test_weights_travel_and_answer_as_the_trainers_do(folder: Path, tmp_path: Path) -> None:
    other = perturb(tiny_model(tmp_path / "other", seed=3), seed=4)
    async with _replica(folder) as replica:
        with pytest.raises(NotReady, match="no weights were pushed"):
            await replica.generate([request("g")])
        publisher = Publisher(finder(replica), source=_policy(other), probe_ids=tuple(range(5, 40)), max_gap=1e-3)
        report = await publisher.push(7)
        assert report.probe_gap < 1e-4
        status = await replica.status()
        assert (status.ready, status.version, status.tokenizer_fingerprint) == (True, 7, "f")
        (group,) = await replica.generate([request("g", samples=3)])
        assert group.oldest_version == group.newest_version == 7
        assert len(group.samples) == 3


def _outgoing(policy: Policy, version: int, base: OutgoingWeights | None = None) -> OutgoingWeights:
    ids = tuple(range(5, 40))
    probe = Probe(ids=ids, logprobs=policy.probe_logprobs(ids), max_gap=0.1)
    return OutgoingWeights(version, *policy.weights("bfloat16"), probe=probe, base=base, keep_base=True)


async def test_a_push_that_was_changed_on_its_way_changes_nothing(folder: Path) -> None:
    outgoing = _outgoing(_policy(folder), 1)
    async with _replica(folder, dtype="bfloat16") as replica:

        async def tampered() -> AsyncIterator[bytes]:
            async for chunk in outgoing.full():
                yield bytes(100) + bytes(chunk[100:])

        with pytest.raises(WeightPushError, match="digest"):
            await replica.push(outgoing.manifest(as_delta=False), tampered(), outgoing.digest)
        assert not (await replica.status()).ready


@pytest.mark.parametrize("tied", [False, True])
async def test_what_changed_is_enough_for_who_holds_the_rest(tmp_path: Path, tied: bool) -> None:
    folder = perturb(tiny_model(tmp_path / "model", tied=tied), seed=1)
    policy = Policy(folder, TrainerSettings.model_validate({"problems": "x", "steps": 1, "optimiser": {"lr": 1e-5}}))
    async with _replica(folder, dtype="bfloat16") as replica:
        publisher = Publisher(finder(replica), source=policy, probe_ids=tuple(range(5, 40)))
        assert (await publisher.push(0)).delta_share == 1.0
        for version in range(1, 4):
            policy.update(BATCH, seed=version)
            report = await publisher.push(version)
            assert 0.0 < report.delta_share < 0.3
            assert report.probe_gap < 0.1
        # To the bit: a whole push over what the deltas made is accepted as no change at all.
        last = _outgoing(policy, 3)
        again = _outgoing(policy, 4, base=last)
        receipt = await replica.push(again.manifest(as_delta=True), again.changes(), again.digest)
        assert receipt.version == 4
        assert again.num_delta_bytes == 0


def _fetching(transport: str, policy: Policy, replicas: Sequence[GrpcRollout]) -> Publisher:
    """Has replicas fetch what is pushed."""

    async def find() -> list[tuple[str, Rollout]]:
        return [(replica.address, replica) for replica in replicas]

    return Publisher(find, source=policy, probe_ids=tuple(range(5, 40)), direct=DirectPush(transport, deadline_s=20.0))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("transport", ["ipc", "gloo"])
async def test_replicas_fetch_weights_past_grpc(tmp_path: Path, transport: str, tied: bool) -> None:
    folder = perturb(tiny_model(tmp_path / "model", tied=tied), seed=1)
    policy = Policy(folder, TrainerSettings.model_validate({"problems": "x", "steps": 1, "optimiser": {"lr": 1e-3}}))
    other = perturb(tiny_model(tmp_path / "other", seed=3, tied=tied), seed=4)
    async with _replica(other) as one, _replica(other) as two:
        publisher = _fetching(transport, policy, [one, two])
        for version in range(3):
            policy.update(BATCH, seed=version)
            report = await publisher.push(version)
            assert (report.replicas, report.fetched) == (2, 2)
            assert report.probe_gap < 1e-4
        (group,) = await one.generate([request("g", samples=3)])
        assert group.oldest_version == group.newest_version == 2
        # Deltas do not build on weights that the chunks' buffers never saw.
        base = _outgoing(policy, 2)
        delta = _outgoing(policy, 3, base=base)
        with pytest.raises(StaleBase, match="holds no weights"):
            await one.push(delta.manifest(as_delta=True), delta.changes(), delta.digest)


async def test_a_replica_that_was_started_anew_is_linked_anew(folder: Path, tmp_path: Path) -> None:
    policy = _policy(perturb(tiny_model(tmp_path / "other", seed=3), seed=4))
    replicas: list[GrpcRollout] = []
    publisher = _fetching("gloo", policy, replicas)
    port = 0
    for version in (1, 2):
        async with _replica(folder, port=port) as replica:
            replicas[:] = [replica]
            report = await publisher.push(version)
            assert (report.replicas, report.refused, report.fetched) == (1, 0, 1)
            assert (await replica.status()).version == version
            port = int(replica.address.rpartition(":")[2])


async def test_a_replica_that_cannot_fetch_gets_all_chunks(folder: Path) -> None:
    async with _replica(folder) as replica:
        report = await _fetching("nccl", _policy(folder), [replica]).push(1)
        assert (report.replicas, report.fetched, report.delta_share) == (1, 0, 1.0)
        assert (await replica.status()).version == 1


async def test_weights_that_are_not_those_that_were_offered_leave_the_old_ones_in_use(folder: Path) -> None:
    policy = _policy(folder)
    async with _replica(folder) as replica:
        await _fetching("ipc", policy, [replica]).push(1)
        outgoing = OutgoingWeights(
            2,
            *policy.weights("float32"),
            probe=Probe(ids=(5, 6), logprobs=policy.probe_logprobs((5, 6)), max_gap=1e-3),
            base=None,
            keep_base=False,
        )
        shared = share([tensor + 1 for tensor in outgoing.tensors])
        offer = PushOffer(
            key="k", transport="ipc", place=shared.place(), checksums=await outgoing.checksums(), deadline_s=5.0
        )
        with pytest.raises(WeightPushError, match="are not the ones that were sent"):
            await replica.push(outgoing.manifest(offer=offer), _no_chunks(), _no_digest)
        unproven = outgoing.manifest(offer=replace(offer, checksums=()))
        with pytest.raises(WeightPushError, match="tensors are offered with 0 checksums"):
            await replica.push(unproven, _no_chunks(), _no_digest)
        with pytest.raises(WeightPushError, match="a chunk came, but its tensors are fetched"):
            await replica.push(outgoing.manifest(offer=offer), outgoing.full(), _no_digest)
        status = await replica.status()
        assert (status.ready, status.version) == (True, 1)
        shared.close()


async def _no_chunks() -> AsyncIterator[bytes]:
    for chunk in list[bytes]():
        yield chunk


async def _no_digest() -> bytes:
    return b""


async def test_a_delta_on_weights_that_are_not_held_is_refused_by_name(folder: Path) -> None:
    policy = _policy(folder)
    base = _outgoing(policy, 4)
    outgoing = _outgoing(policy, 5, base=base)
    async with _replica(folder, dtype="bfloat16") as replica:
        with pytest.raises(StaleBase, match="changes version 4; this replica holds no weights"):
            await replica.push(outgoing.manifest(as_delta=True), outgoing.changes(), outgoing.digest)


async def test_a_push_is_refused_by_name_also_while_its_chunks_are_on_their_way(folder: Path) -> None:
    """gRPC loses the words of about every second refusal that comes while it writes."""
    policy = _policy(folder)
    outgoing = _outgoing(policy, 5, base=_outgoing(policy, 4))

    async def large_chunks() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield bytes(1024 * 1024)

    async with _replica(folder, dtype="bfloat16") as replica:
        for _ in range(12):
            with pytest.raises(StaleBase, match="changes version 4; this replica holds no weights"):
                await replica.push(outgoing.manifest(as_delta=True), large_chunks(), outgoing.digest)


async def test_a_request_that_no_engine_can_serve_is_refused_by_name(folder: Path) -> None:
    policy = _policy(folder)
    async with _replica(folder) as replica:
        await Publisher(finder(replica), source=policy, probe_ids=(5, 6, 7), max_gap=1e-3).push(1)
        with pytest.raises(InvalidInput, match="'g'"):
            await replica.generate([request("g", prompt=())])
        with pytest.raises(InvalidInput, match="max_context"):
            await replica.generate([request("g", max_tokens=1000)])


async def test_the_prm_answers_over_grpc_as_it_does_in_process(folder: Path, tmp_path: Path) -> None:
    weights = ImplicitPrm(PrmSettings(lr=1e-3, device="cpu"), start=folder)
    service = RewardService(weights, checkpoints=tmp_path)
    server = build_server(TOKEN, Meters())
    prm_pb2_grpc.add_PrmServiceServicer_to_server(PrmServicer(service), server)
    groups = [PrmGroup(group_id="a", prompt_ids=(5, 6), responses=((3, 4, 1), (9, 1)))]
    async with _serving(server) as address:
        client = GrpcRewardModel(address, TOKEN, deadline_s=30.0)
        metrics = await client.learn(1, groups, [1.0, 0.0])
        assert metrics.prm_version == 1
        remote, local = await client.score(groups), await service.score(groups)
        for theirs, ours in zip(remote.rows, local.rows, strict=True):
            torch.testing.assert_close(torch.tensor(theirs), torch.tensor(ours))
        assert (remote.prm_version, remote.reference_id) == (1, local.reference_id)
        assert Path(await client.save(1), "config.json").is_file()
        assert await client.restore(0) == 0
        assert (await client.info()).reference_mode == "freeze"
        with pytest.raises(InvalidInput, match="at least one token"):
            await client.score([PrmGroup(group_id="a", prompt_ids=(5,), responses=((),))])
        await client.close()


class PassingPrm(ImplicitPrm):
    """Takes a while for each pass, and counts them."""

    passes = 0

    def score(
        self, groups: Sequence[PrmGroup], *, reuse: bool = False, is_wanted: IsWanted | None = None
    ) -> ScoredRows:
        def counted() -> bool:
            self.passes += 1
            time.sleep(0.02)
            return is_wanted is None or is_wanted()

        return super().score(groups, reuse=reuse, is_wanted=counted)


async def test_a_client_that_leaves_its_score_stops_it_between_two_passes(folder: Path, tmp_path: Path) -> None:
    prm = PassingPrm(PrmSettings(device="cpu", token_budget=1), start=folder)
    groups = [PrmGroup(group_id=str(number), prompt_ids=(5, number), responses=((3, 1),)) for number in range(20)]
    server = build_server(TOKEN, Meters())
    service = RewardService(prm, checkpoints=tmp_path)
    prm_pb2_grpc.add_PrmServiceServicer_to_server(PrmServicer(service), server)
    async with _serving(server) as address:
        client = GrpcRewardModel(address, TOKEN, deadline_s=30.0)
        asking = asyncio.ensure_future(client.score(groups))
        while prm.passes < 3:
            await asyncio.sleep(0.005)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        # The PRM is free again: this waits for the pass that is under way, and for no other.
        await client.score(groups[:1])
        await client.close()
    assert prm.passes < 20
