"""The rollout worker over the in-memory queue, the transformers engine, and weight staging."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prime.adapters.memory import MemoryBroker, MemoryQueue
from prime.deltas import digest_of
from prime.errors import EngineError, InvalidInput, NotReady, PeerUnavailable, WeightPushError
from prime.lm.inbox import checksum
from prime.lm.model import CausalLM, load_tokenizer, tensor_bytes
from prime.lm.packing import TokenRow
from prime.ports import Claim
from prime.types import (
    FinishReason,
    PushManifest,
    RolloutFailure,
    RolloutGroup,
    RolloutRequest,
    Sample,
    TensorSpec,
    VersionSpan,
)
from services.rollout.decoding import _invert
from services.rollout.loop import RolloutWorker
from services.rollout.staging import WeightStore
from services.rollout.stops import StopStrings
from services.rollout.transformers_engine import TransformersEngine
from tests.builders import group, perturb, request, tiny_model

PROBE = (5, 6, 7, 8, 9)
LEASE_S = 1.0


class ScriptedEngine:
    """Answers every request with the same samples; holds one number as its weights."""

    name = "scripted"
    dtype = "float32"
    transports: tuple[str, ...] = ()
    takes_adapters = False

    def __init__(self, *, hold: asyncio.Event | None = None, breaks: bool = False) -> None:
        self.hold = hold
        self.breaks = breaks
        self.weight = 0.0
        self.sampled: list[str] = []

    async def start(self) -> None:
        pass

    async def generate(self, requests: Sequence[RolloutRequest]) -> AsyncIterator[RolloutGroup]:
        for each in requests:
            if self.breaks:
                raise RuntimeError("out of memory")
            if self.hold is not None:
                await self.hold.wait()
            self.sampled.append(each.group_id)
            yield group(each.group_id)

    async def load_weights(self, version: int, tensors: Sequence[tuple[TensorSpec, memoryview]]) -> float:
        self.weight = torch.frombuffer(tensors[0][1], dtype=torch.float32).item()
        return 0.0

    async def begin_fetch(self, manifest: PushManifest) -> None:
        raise WeightPushError("a scripted engine fetches nothing")

    async def finish_fetch(self, manifest: PushManifest) -> None:
        raise WeightPushError("a scripted engine fetches nothing")

    async def load_fetched(self, manifest: PushManifest) -> float:
        raise WeightPushError("a scripted engine fetches nothing")

    async def logprobs(self, ids: Sequence[int]) -> tuple[float, ...]:
        return tuple(self.weight for _ in ids[1:])

    async def checksum(self) -> int | None:
        return checksum(torch.tensor([self.weight]))

    async def close(self) -> None:
        pass


def _manifest(weight: float, *, version: int = 1, probe: float | None = None) -> PushManifest:
    return PushManifest(
        version=version,
        tensors=(TensorSpec(name="w", dtype="float32", shape=(1,)),),
        probe_ids=(1, 2),
        probe_logprobs=(weight if probe is None else probe,),
        max_gap=1e-3,
    )


async def _push(
    worker: RolloutWorker,
    weight: float,
    *,
    version: int = 1,
    probe: float | None = None,
    sent: bytes | None = None,
    more: bytes = b"",
) -> None:
    """Push one number; `sent`: what arrives instead of it, `more`: after it."""
    data = bytes(tensor_bytes(torch.tensor([weight])))
    staged = await worker.begin_push(_manifest(weight, version=version, probe=probe))
    staged.add((data if sent is None else sent) + more)
    await worker.push(staged, digest_of([memoryview(data)]))


def _worker(engine: Any, broker: MemoryBroker, *, max_groups: int = 8, consumer: str = "a") -> RolloutWorker:
    queue = MemoryQueue(broker, consumer=consumer, lease_seconds=LEASE_S)
    return RolloutWorker(
        queue=queue,
        engine=engine,
        store=WeightStore(),
        max_groups=max_groups,
        lease_seconds=LEASE_S,
        max_context=32,
    )


async def _until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_replica_claims_nothing_before_its_first_weights() -> None:
    broker, engine = MemoryBroker(), ScriptedEngine()
    worker = _worker(engine, broker)
    trainer = MemoryQueue(broker, consumer="trainer")
    await trainer.ask([request("g1")])
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(0.2)
    assert engine.sampled == []
    with pytest.raises(NotReady):
        await worker.generate([request()])
    await _push(worker, 0.5)
    (claim,) = await trainer.take(1, 5.0)
    assert claim.item.group_id == "g1"
    running.cancel()


async def test_requests_in_flight_go_back_when_the_worker_stops() -> None:
    broker = MemoryBroker()
    worker = _worker(ScriptedEngine(hold=asyncio.Event()), broker)
    await _push(worker, 0.5)
    await MemoryQueue(broker, consumer="trainer").ask([request("g1"), request("g2")])
    running = asyncio.create_task(worker.run())
    await _until(lambda: all(held.holder for held in broker.requests.values()))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    claims = await MemoryQueue(broker, consumer="b").claim(5, 0.0)
    assert [claim.item.group_id for claim in claims] == ["g1", "g2"]


async def test_a_long_sample_keeps_its_lease() -> None:
    broker, hold = MemoryBroker(), asyncio.Event()
    worker = _worker(ScriptedEngine(hold=hold), broker)
    await _push(worker, 0.5)
    await MemoryQueue(broker, consumer="trainer").ask([request("g1")])
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(2.5 * LEASE_S)
    assert await MemoryQueue(broker, consumer="b").claim(1, 0.0) == []
    hold.set()
    await _until(lambda: not broker.requests)
    running.cancel()


async def test_a_broken_engine_ends_the_worker_and_loses_nothing() -> None:
    broker = MemoryBroker()
    worker = _worker(ScriptedEngine(breaks=True), broker)
    await _push(worker, 0.5)
    await MemoryQueue(broker, consumer="trainer").ask([request("g1")])
    with pytest.raises(EngineError, match="out of memory"):
        async with asyncio.timeout(10):
            await worker.run()
    assert [claim.item.group_id for claim in await MemoryQueue(broker, consumer="b").claim(5, 0.0)] == ["g1"]


class FlakyQueue(MemoryQueue):
    """Away for the first call of each kind."""

    def __init__(self, broker: MemoryBroker, *, consumer: str) -> None:
        super().__init__(broker, consumer=consumer)
        self.failed: set[str] = set()

    def _fail_once(self, call: str) -> None:
        if call not in self.failed:
            self.failed.add(call)
            raise PeerUnavailable("Redis is restarting")

    async def claim(self, limit: int, timeout_s: float) -> list[Claim[RolloutRequest]]:
        self._fail_once("claim")
        return await super().claim(limit, timeout_s)

    async def deliver(self, claim: Claim[RolloutRequest], group: RolloutGroup) -> bool:
        self._fail_once("deliver")
        return await super().deliver(claim, group)


async def test_a_queue_that_is_away_for_a_moment_costs_no_group() -> None:
    broker = MemoryBroker()
    queue = FlakyQueue(broker, consumer="a")
    worker = RolloutWorker(
        queue=queue,
        engine=ScriptedEngine(),
        store=WeightStore(),
        max_groups=8,
        lease_seconds=30.0,
        max_context=32,
    )
    await _push(worker, 0.5)
    await MemoryQueue(broker, consumer="trainer").ask([request("g1")])
    running = asyncio.create_task(worker.run())
    await _until(lambda: len(broker.results) == 1)
    assert queue.failed == {"claim", "deliver"}
    running.cancel()


async def test_a_request_that_never_fits_is_given_up_with_its_reason() -> None:
    broker = MemoryBroker()
    worker, trainer = _worker(ScriptedEngine(), broker), MemoryQueue(broker, consumer="trainer")
    await _push(worker, 0.5)
    await trainer.ask([request("long", max_tokens=100), request("fits")])
    running = asyncio.create_task(worker.run())
    await _until(lambda: len(broker.results) == 2)
    results = {claim.item.group_id: claim.item for claim in await trainer.take(5, 1.0)}
    assert isinstance(results["long"], RolloutFailure)
    assert "max_context" in results["long"].reason
    assert isinstance(results["fits"], RolloutGroup)
    with pytest.raises(InvalidInput, match="max_context"):
        await worker.generate([request("long", max_tokens=100)])
    running.cancel()


async def test_a_replica_behind_leaves_requests_to_others() -> None:
    broker = MemoryBroker()
    worker = _worker(ScriptedEngine(), broker)
    await _push(worker, 0.5, version=3)
    newer = request("g1")
    newer = RolloutRequest(**{**{name: getattr(newer, name) for name in newer.__slots__}, "min_version": 4})
    await MemoryQueue(broker, consumer="trainer").ask([newer])
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(0.3)
    assert not broker.results
    await _push(worker, 0.5, version=4)
    await _until(lambda: len(broker.results) == 1)
    running.cancel()


# ---------------------------------------------------------------- staging and push


async def test_a_probe_that_disagrees_takes_the_replica_out_of_service() -> None:
    worker = _worker(ScriptedEngine(), MemoryBroker())
    await _push(worker, 0.5, version=1)
    with pytest.raises(WeightPushError, match="differ from the trainer"):
        await _push(worker, 0.5, version=2, probe=0.6)
    assert not worker.is_ready
    await _push(worker, 0.7, version=2)
    assert worker.is_ready


async def test_a_probe_that_is_not_a_number_is_no_proof() -> None:
    worker = _worker(ScriptedEngine(), MemoryBroker())
    with pytest.raises(WeightPushError, match="differ from the trainer"):
        await _push(worker, float("nan"), probe=0.5)
    assert not worker.is_ready


async def test_weights_that_arrive_torn_are_not_used() -> None:
    engine = ScriptedEngine()
    worker = _worker(engine, MemoryBroker())
    await _push(worker, 0.5)
    with pytest.raises(WeightPushError, match="2 of 4 bytes"):
        await _push(worker, 0.9, sent=b"\0\0")
    with pytest.raises(WeightPushError, match="digest"):
        await _push(worker, 0.9, sent=b"\0\0\0\0")
    with pytest.raises(WeightPushError, match="1 bytes more arrived than were announced"):
        await _push(worker, 0.9, more=b"x")
    assert engine.weight == 0.5
    assert worker.is_ready


# ---------------------------------------------------------------- the transformers engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return perturb(tiny_model(tmp_path_factory.mktemp("model")), seed=1)


async def _engine(folder: Path) -> TransformersEngine:
    engine = TransformersEngine(model=folder, device="cpu", dtype="float32")
    await engine.start()
    return engine


async def _all(engine: TransformersEngine, requests: Sequence[RolloutRequest]) -> dict[str, RolloutGroup]:
    return {each.group_id: each async for each in engine.generate(requests)}


async def test_sampled_logprobs_are_the_models(folder: Path) -> None:
    groups = await _all(await _engine(folder), [request("a", samples=3), request("b", prompt=(9, 8, 7, 6), seed=2)])
    lm = CausalLM(folder, device=torch.device("cpu"))
    for each in groups.values():
        rows = [TokenRow(prompt_ids=each.prompt_ids, response_ids=sample.response_ids) for sample in each.samples]
        for sample, expected in zip(each.samples, lm.score_rows(rows, token_budget=100), strict=True):
            torch.testing.assert_close(torch.tensor(sample.logprobs), expected, atol=1e-4, rtol=1e-4)


async def test_the_same_seed_samples_the_same_whatever_else_is_in_the_batch(folder: Path) -> None:
    engine = await _engine(folder)
    alone = await _all(engine, [request("a", samples=3)])
    crowd = await _all(
        engine, [request(f"x{seed}", seed=seed, prompt=(9, 9, 9)) for seed in range(5)] + [request("a", samples=3)]
    )
    assert [each.response_ids for each in alone["a"].samples] == [each.response_ids for each in crowd["a"].samples]
    assert len({each.response_ids for each in alone["a"].samples}) > 1


async def test_limits_and_end_tokens_are_told_apart(folder: Path) -> None:
    groups = await _all(await _engine(folder), [request("a", samples=200, max_tokens=60)])
    (each,) = groups.values()
    reasons = {sample.finish_reason for sample in each.samples}
    assert reasons == {FinishReason.STOP, FinishReason.LENGTH}
    for sample in each.samples:
        assert (sample.response_ids[-1] == 1) == (sample.finish_reason is FinishReason.STOP)
        assert 1 not in sample.response_ids[:-1]
        assert len(sample.response_ids) <= 60


async def test_top_p_keeps_the_likeliest_tokens_and_renormalises(folder: Path) -> None:
    engine = await _engine(folder)
    narrow = request("a", samples=8, max_tokens=4)
    narrow = RolloutRequest(
        **{
            **{name: getattr(narrow, name) for name in narrow.__slots__},
            "sampling": type(narrow.sampling)(temperature=1.0, top_p=1e-6, max_tokens=4),
        }
    )
    (each,) = (await _all(engine, [narrow])).values()
    assert len({sample.response_ids for sample in each.samples}) == 1
    assert all(logprob == pytest.approx(0.0, abs=1e-5) for sample in each.samples for logprob in sample.logprobs)


async def test_temperature_zero_takes_the_likeliest_token_whatever_the_seed(folder: Path) -> None:
    engine = await _engine(folder)
    greedy = type(request("a").sampling)(temperature=0.0, top_p=1.0, max_tokens=6)
    found = await _all(
        engine,
        [
            replace(request("a", samples=2), sampling=greedy),
            replace(request("b", samples=1), sampling=greedy, seed=77),
            request("c", samples=4, max_tokens=6),
        ],
    )
    answers = {sample.response_ids for name in "ab" for sample in found[name].samples}
    assert len(answers) == 1
    assert {value for name in "ab" for sample in found[name].samples for value in sample.logprobs} == {0.0}
    assert len({sample.response_ids for sample in found["c"].samples}) > 1, "its neighbours still sample"


def _asking(name: str, **sampling: Any) -> RolloutRequest:
    plain = request(name, samples=64, max_tokens=1)
    return replace(plain, sampling=replace(plain.sampling, **sampling))


async def _all_samples(engine: TransformersEngine, *requests: RolloutRequest) -> dict[str, list[Sample]]:
    return {group.group_id: list(group.samples) async for group in engine.generate(requests)}


async def test_top_k_and_min_p_leave_tokens_out_and_renormalise(folder: Path) -> None:
    """Requests of all kinds in one batch, so each row has its own rule."""
    engine = await _engine(folder)
    found = await _all_samples(engine, _asking("all"), _asking("k", top_k=3), _asking("p", min_p=0.5))
    row = TokenRow(prompt_ids=request("x").prompt_ids, response_ids=(0,))
    lm = CausalLM(folder, device=torch.device("cpu"))
    rows = [replace(row, response_ids=(token,)) for token in range(lm.module.config.vocab_size)]
    logprobs_V = torch.cat(lm.score_rows(rows, token_budget=1000))
    best = set(logprobs_V.topk(3).indices.tolist())
    likely = set((logprobs_V >= logprobs_V.max() + math.log(0.5)).nonzero().flatten().tolist())
    assert {sample.response_ids[0] for sample in found["k"]} <= best
    assert {sample.response_ids[0] for sample in found["p"]} <= likely
    assert len({sample.response_ids[0] for sample in found["all"]}) > 3
    for name, kept in (("k", best), ("p", likely)):
        mass = float(logprobs_V[sorted(kept)].logsumexp(dim=0))
        for sample in found[name]:
            expected = float(logprobs_V[sample.response_ids[0]]) - mass
            assert sample.logprobs[0] == pytest.approx(expected, abs=1e-4)


async def test_a_response_ends_at_a_token_or_string_that_was_asked_for(folder: Path) -> None:
    engine = await _engine(folder)
    tokenizer = load_tokenizer(folder)
    free = replace(request("free", samples=8, max_tokens=12), seed=7)
    [plain] = [group async for group in engine.generate([free])]
    longest = max(plain.samples, key=lambda sample: len(sample.response_ids))
    token = longest.response_ids[2]
    text = tokenizer.decode(longest.response_ids[1:3])
    asked = [
        replace(free, group_id="token", sampling=replace(free.sampling, stop_token_ids=(token,))),
        replace(free, group_id="text", sampling=replace(free.sampling, stop=("never", text))),
    ]
    found = await _all_samples(engine, *asked)
    for sample, whole in zip(found["token"], plain.samples, strict=True):
        ends = [place for place, each in enumerate(whole.response_ids) if each == token]
        length = ends[0] + 1 if ends else len(whole.response_ids)
        assert sample.response_ids == whole.response_ids[:length]
        assert sample.finish_reason is (FinishReason.STOP if ends else whole.finish_reason)
    cut = 0
    for sample, whole in zip(found["text"], plain.samples, strict=True):
        length = StopStrings(tokenizer).length(whole.response_ids, (text,)) or len(whole.response_ids)
        assert sample.response_ids == whole.response_ids[:length]
        assert sum(span.length for span in sample.spans) == len(sample.response_ids) == len(sample.logprobs)
        cut += length < len(whole.response_ids)
    assert cut, "no sample was ended by the string, so nothing was tested"


def test_a_sample_that_is_cut_afterwards_is_the_same() -> None:
    spans = (VersionSpan(version=3, length=2), VersionSpan(version=4, length=3))
    sample = Sample(response_ids=(5, 6, 7, 8, 9), logprobs=(-1.0,) * 5, spans=spans, finish_reason=FinishReason.LENGTH)
    cut = sample.first(3)
    assert (cut.response_ids, len(cut.logprobs), cut.finish_reason) == ((5, 6, 7), 3, FinishReason.STOP)
    assert cut.spans == (VersionSpan(version=3, length=2), VersionSpan(version=4, length=1))


@pytest.mark.parametrize("size", [7, 256, 1000, 4096])
def test_drawing_by_blocks_inverts_the_running_sum(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    weights_RV = torch.rand(64, size, generator=generator).square()
    weights_RV[torch.rand(64, size, generator=generator) < 0.5] = 0.0
    weights_RV[:, size // 2] = 1.0
    uniforms_R1 = torch.rand(64, 1, generator=generator, dtype=torch.float64)
    uniforms_R1[:2, 0] = torch.tensor([0.0, 1.0 - 2.0**-53])
    chosen_R1, total_R1 = _invert(weights_RV, uniforms_R1)
    cumulative_RV = weights_RV.double().cumsum(dim=1)
    torch.testing.assert_close(total_R1, cumulative_RV[:, -1:])
    plain_R1 = torch.searchsorted(cumulative_RV, uniforms_R1 * cumulative_RV[:, -1:], right=True)
    assert torch.equal(chosen_R1[2:], plain_R1[2:])
    assert bool((weights_RV.gather(1, chosen_R1) > 0).all())
    alone_R1 = torch.cat([_invert(weights_RV[row, None], uniforms_R1[row, None])[0] for row in range(64)])
    assert torch.equal(chosen_R1, alone_R1)


def _tensors(folder: Path) -> list[tuple[TensorSpec, memoryview]]:
    lm = CausalLM(folder, device=torch.device("cpu"))
    return [
        (
            TensorSpec(name=name, dtype="float32", shape=tuple(tensor.shape)),
            memoryview(bytearray(tensor_bytes(tensor))),
        )
        for name, tensor in lm.named_tensors()
    ]


async def test_pushed_weights_are_the_ones_that_answer(folder: Path, tmp_path: Path) -> None:
    engine = await _engine(folder)
    before = await engine.logprobs(PROBE)
    other = perturb(tiny_model(tmp_path / "other", seed=5), seed=9)
    await engine.load_weights(1, _tensors(other))
    row = TokenRow(prompt_ids=PROBE[:1], response_ids=PROBE[1:])
    (expected,) = CausalLM(other, device=torch.device("cpu")).score_rows([row], token_budget=100)
    torch.testing.assert_close(torch.tensor(await engine.logprobs(PROBE)), expected, atol=1e-4, rtol=1e-4)
    assert max(abs(old - new) for old, new in zip(before, expected.tolist(), strict=True)) > 0.01


async def test_a_push_for_another_model_replaces_nothing(folder: Path) -> None:
    engine = await _engine(folder)
    before = await engine.logprobs(PROBE)
    with pytest.raises(WeightPushError, match="another model"):
        await engine.load_weights(1, [(TensorSpec(name="w", dtype="float32", shape=(1,)), memoryview(bytearray(4)))])
    assert await engine.logprobs(PROBE) == before


async def test_a_sample_in_flight_survives_a_push_and_tells_both_versions(folder: Path, tmp_path: Path) -> None:
    engine = await _engine(folder)
    other = perturb(tiny_model(tmp_path / "other", seed=5), seed=9)
    tensors = _tensors(other)
    # When the short one is there, the long one is under way.
    sampling = engine.generate([request("short", max_tokens=1), request("a", samples=16, max_tokens=200)])
    assert (await anext(sampling)).newest_version == 0
    await engine.load_weights(1, tensors)
    (each,) = [group async for group in sampling]
    versions = {span.version for sample in each.samples for span in sample.spans}
    assert versions == {0, 1}
    assert (each.oldest_version, each.newest_version) == (0, 1)
    for sample in each.samples:
        assert sum(span.length for span in sample.spans) == len(sample.response_ids)


async def test_requests_join_others_in_flight_and_sample_what_they_would_alone(folder: Path) -> None:
    """Prompts and responses of other lengths in between; rows that end leave, and with them columns of the cache."""
    asked = [
        request("a", samples=3, max_tokens=60, prompt=(9, 9, 9, 9, 9, 9, 9), seed=1),
        request("b", samples=2, max_tokens=20, prompt=(5,), seed=2),
        request("c", samples=4, max_tokens=40, prompt=tuple(range(3, 43)), seed=3),
    ]
    alone = {each.group_id: (await _all(await _engine(folder), [each]))[each.group_id] for each in asked}
    engine = await _engine(folder)
    await engine.load_weights(1, _tensors(folder))  # then none of them needs the newest
    leader = engine.generate([request("lead", max_tokens=1), asked[0]])
    await anext(leader)
    others = [asyncio.create_task(_all(engine, [each])) for each in asked[1:]]
    together = {each.group_id: each async for each in leader}
    for other in others:
        together |= await other
    for name, each in alone.items():
        for mine, theirs in zip(together[name].samples, each.samples, strict=True):
            assert mine.response_ids == theirs.response_ids
            assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
            assert mine.finish_reason is theirs.finish_reason


async def test_requests_for_the_newest_weights_wait_until_nothing_is_in_flight(folder: Path) -> None:
    engine = await _engine(folder)
    order: list[str] = []

    async def sample(name: str, tokens: int) -> None:
        order.extend((await _all(engine, [request(name, max_tokens=tokens)])).keys())

    first = asyncio.create_task(sample("long", 60))
    await asyncio.sleep(0)
    await asyncio.gather(first, sample("short", 1))
    assert order == ["long", "short"]


async def test_requests_that_are_given_up_leave_and_those_beside_them_go_on(folder: Path) -> None:
    engine = await _engine(folder)
    await engine.load_weights(1, _tensors(folder))
    leader = engine.generate([request("lead", max_tokens=1), request("endless", samples=8, max_tokens=200)])
    await anext(leader)
    other = asyncio.create_task(_all(engine, [request("a", samples=3, max_tokens=30)]))
    await asyncio.sleep(0)
    await leader.aclose()
    assert len((await other)["a"].samples) == 3
    assert (await _all(engine, [request("a", samples=3, max_tokens=30)]))["a"] == (await other)["a"]
