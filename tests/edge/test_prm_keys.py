"""Several keys over real sockets: what each opens, what it has used up, and who goes before whom."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from prime.adapters.grpc_clients import GrpcRewardModel
from prime.adapters.grpc_server import build_server
from prime.adapters.http_scorer import HttpScorer
from prime.adapters.openai_engine import OpenAIEngine
from prime.adapters.telemetry import Meters
from prime.client import AsyncPrmClient
from prime.data.tiny import build_byte_tokenizer
from prime.errors import Forbidden, LimitReached, Unauthenticated
from prime.ports import CheckingScorer
from prime.scoring import Candidate, Prompt, ScoringRequest
from prime.types import PrmGroup, TokenRewards
from prime.v1 import prm_pb2_grpc
from services.prm.batching import Batcher
from services.prm.best_of_n import BestOfN
from services.prm.http.app import add_prm_routes
from services.prm.key_file import digest_of
from services.prm.keys import Keys
from services.prm.metrics import MeteredScorer
from services.prm.reward import RewardService
from services.prm.reward_model import ImplicitPrm
from services.prm.rpc import KeyedGate, PrmServicer
from services.prm.scoring import PrmScorer
from services.prm.settings import ApiSettings, BestOfNSettings, PrmSettings
from tests.edge.prm_api import KEY, open_tiny_scorer, running_app

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY: dict[str, Any] = {"inputs": {"prompt": "q", "responses": ["abc"]}}
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "q"}], "best_of": 1}
GROUPS = [PrmGroup(group_id="a", prompt_ids=(5, 6), responses=((3, 4, 1), (9, 1)))]
SCORING = {
    "/v1/prm/score": BODY,
    "/rerank": {"query": "q", "documents": ["abc"]},
    "/v1/score": {"model": "m", "text_1": "q", "text_2": "abc"},
    "/get_reward": {"query": ["user: q\nassistant: a"], "prompts": ["user: q\nassistant: "]},
}


def _table(name: str, *lines: str, scopes: str = '["score"]') -> str:
    """The key is named as its holder."""
    return "\n".join((f"[{name}]", f'sha256 = "{digest_of(name)}"', f"scopes = {scopes}", *lines, ""))


TABLES = (
    _table("scorer"),
    _table("chatter", scopes='["chat"]'),
    _table("watcher", scopes='["metrics"]'),
    _table("trainer", scopes='["learn"]'),
    _table("urgent", "priority = true"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedApi:
    """An API with the keys of a file."""

    url: str
    client: httpx.AsyncClient
    file: Path

    async def post(self, key: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """Ask with a key."""
        return await self.client.post(path, json=body or BODY, headers={"Authorization": f"Bearer {key}", **headers})

    async def get(self, key: str, path: str) -> httpx.Response:
        """Ask with a key."""
        return await self.client.get(path, headers={"Authorization": f"Bearer {key}"})


@contextlib.asynccontextmanager
async def _keyed(
    scorer: CheckingScorer,
    folder: Path,
    tables: Sequence[str] = TABLES,
    *,
    open_metrics: bool = True,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[KeyedApi]:
    """As `services.prm.main` wires it, but for the models."""
    file = folder / "keys.toml"
    file.write_text("\n".join(tables))
    meters = Meters()
    settings = ApiSettings(keys=file, open_metrics=open_metrics)
    keys = Keys(KEY, meters=meters, file=settings.keys, clock=clock)
    metered = MeteredScorer(scorer, meters, waiting=lambda: 0, charge=keys.charge)
    async with running_app(_add_engine) as engine_url:
        engine = OpenAIEngine(f"{engine_url}/v1", timeout_s=20, setting="engine")
        add_routes = partial(
            add_prm_routes,
            scorer=metered,
            keys=keys,
            settings=settings,
            meters=meters,
            best_of_n=BestOfN(engine, metered, None, BestOfNSettings()),
        )
        async with running_app(add_routes, meters) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
            try:
                yield KeyedApi(url=url, client=client, file=file)
            finally:
                await engine.close()


def _add_engine(app: FastAPI) -> None:
    @app.post("/v1/chat/completions")
    async def complete() -> dict[str, Any]:
        choice = {"index": 0, "message": {"role": "assistant", "content": "56"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return {"model": "m", "choices": [choice], "usage": usage}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"data": [{"id": "m"}]}


@pytest.fixture(scope="module")
def scorer(prm_pair: tuple[Path, Path]) -> CheckingScorer:
    return open_tiny_scorer(*prm_pair)


# ---------------------------------------------------------------- scopes


@pytest.mark.parametrize("path", SCORING)
async def test_the_scope_score_opens_the_scoring_routes(scorer: CheckingScorer, tmp_path: Path, path: str) -> None:
    async with _keyed(scorer, tmp_path) as api:
        for key in ("scorer", KEY):
            assert (await api.post(key, path, SCORING[path])).status_code == 200
        for key in ("chatter", "watcher", "trainer"):
            refused = await api.post(key, path, SCORING[path])
            assert refused.status_code == 403
            error = refused.json()["error"]
            text = error["message"] if path == "/v1/score" else error
            assert f"the key {key!r} lacks the scope 'score'" in text
            assert "forbidden" in (error["type"] if path == "/v1/score" else refused.json()["error_type"])
        assert (await api.post("nobody", path, SCORING[path])).status_code == 401
        assert (await api.client.post(path, json=SCORING[path])).status_code == 401


async def test_the_scope_chat_opens_best_of_n_and_any_key_the_list_of_models(
    scorer: CheckingScorer, tmp_path: Path
) -> None:
    async with _keyed(scorer, tmp_path) as api:
        for key in ("chatter", KEY):
            answer = await api.post(key, "/v1/chat/completions", CHAT)
            assert answer.json()["choices"][0]["message"]["content"] == "56"
        refused = await api.post("scorer", "/v1/chat/completions", CHAT)
        assert refused.status_code == 403
        assert refused.json()["error"] == {
            "message": "the key 'scorer' lacks the scope 'chat' (it has: score)",
            "type": "forbidden",
            "param": None,
            "code": 403,
        }
        for key in ("chatter", "scorer"):
            assert (await api.get(key, "/v1/models")).json()["data"][0]["id"] == "m"
        assert (await api.get("nobody", "/v1/models")).status_code == 401


async def test_metrics_are_open_unless_they_are_closed(scorer: CheckingScorer, tmp_path: Path) -> None:
    async with _keyed(scorer, tmp_path) as api:
        assert (await api.client.get("/metrics")).status_code == 200
    async with _keyed(scorer, tmp_path, open_metrics=False) as api:
        assert (await api.client.get("/metrics")).status_code == 401
        assert (await api.get("scorer", "/metrics")).status_code == 403
        assert "prime_prm_key_requests_total" in (await api.get("watcher", "/metrics")).text
        assert (await api.client.get("/healthz")).status_code == 200


# ---------------------------------------------------------------- limits


async def test_over_its_requests_a_key_is_told_when_to_come_again(scorer: CheckingScorer, tmp_path: Path) -> None:
    now_s = 1e9
    tables = (_table("hasty", "requests_per_minute = 4"), _table("calm"))
    async with _keyed(scorer, tmp_path, tables, clock=lambda: now_s) as api:
        answers = await asyncio.gather(*(api.post("hasty", "/v1/prm/score") for _ in range(6)))
        assert sorted(answer.status_code for answer in answers) == [200] * 4 + [429] * 2
        refused = await api.post("hasty", "/v1/score", SCORING["/v1/score"])
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "15")
        assert refused.json()["error"]["type"] == "rate_limited"
        assert (await api.post("calm", "/v1/prm/score")).status_code == 200
        now_s += 14
        assert (await api.post("hasty", "/v1/prm/score")).headers["retry-after"] == "1"
        now_s += 1
        assert (await api.post("hasty", "/v1/prm/score")).status_code == 200
        assert (await api.post("hasty", "/v1/prm/score")).status_code == 429
        metrics = (await api.client.get("/metrics")).text
    assert 'prime_prm_key_refused_total{key="hasty",reason="requests"} 5.0' in metrics
    assert 'prime_prm_key_requests_total{key="hasty"} 5.0' in metrics


async def test_tokens_are_counted_on_every_route_and_renewed_at_midnight(
    scorer: CheckingScorer, tmp_path: Path
) -> None:
    now_s = 86_400.0 * 20_000 - 600
    table = _table("thrifty", "tokens_per_day = 60", scopes='["score", "chat"]')
    async with _keyed(scorer, tmp_path, (table,), clock=lambda: now_s) as api:
        usage = (await api.post("thrifty", "/v1/prm/score")).json()["usage"]
        spent = usage["total_tokens"]
        chat = await api.post("thrifty", "/v1/chat/completions", CHAT)
        spent += chat.json()["prime"]["scored_tokens"]
        assert spent < 60
        ranked = await api.post("thrifty", "/rerank", {"query": "q", "documents": ["a" * 40]})
        spent += int(ranked.headers["x-compute-tokens"])
        assert spent > 60
        for path, body in (("/v1/prm/score", BODY), ("/v1/chat/completions", CHAT)):
            refused = await api.post("thrifty", path, body)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "600")
        assert (await api.post(KEY, "/v1/prm/score")).status_code == 200
        assert f'prime_prm_key_tokens_total{{key="thrifty"}} {float(spent)}' in (await api.client.get("/metrics")).text
        now_s += 600
        assert (await api.post("thrifty", "/v1/prm/score")).status_code == 200


async def test_a_changed_file_counts_without_a_restart(scorer: CheckingScorer, tmp_path: Path) -> None:
    now_s = 1e9
    async with _keyed(scorer, tmp_path, (_table("alice"),), clock=lambda: now_s) as api:
        assert (await api.post("alice", "/v1/prm/score")).status_code == 200
        assert (await api.post("bob", "/v1/prm/score")).status_code == 401
        api.file.write_text(_table("bob"))
        now_s += 1
        assert (await api.post("alice", "/v1/prm/score")).status_code == 401
        assert (await api.post("bob", "/v1/prm/score")).status_code == 200
        api.file.write_text("[bob")
        now_s += 1
        assert (await api.post("bob", "/v1/prm/score")).status_code == 200
        assert "prime_prm_key_file_stale 1.0" in (await api.client.get("/metrics")).text


async def test_a_client_of_ours_gets_the_class_back(scorer: CheckingScorer, tmp_path: Path) -> None:
    tables = (_table("hasty", "requests_per_minute = 1"), *TABLES)
    request = ScoringRequest(prompt=Prompt(text="q"), candidates=(Candidate(text="abc"),))
    async with _keyed(scorer, tmp_path, tables) as api:
        for key, kind in (("chatter", Forbidden), ("hasty", LimitReached)):
            async with AsyncPrmClient(api.url, key=key, timeout_s=20) as client:
                remote = HttpScorer(client)
                with contextlib.suppress(Forbidden):
                    await remote.score(request)
                with pytest.raises(kind, match=f"the key '{key}'"):
                    await remote.score(request)


# ---------------------------------------------------------------- who goes first


_BYTES = build_byte_tokenizer()


class HeldModel:
    """A reward model that is let go by the test; keeps the first letter of every pass, in order."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.order: list[str] = []

    async def score(self, groups: Sequence[PrmGroup], *, reuse: bool = False) -> TokenRewards:
        self.order += [_BYTES.decode(group.responses[0][:1]) for group in groups]
        await self.go.wait()
        rows = tuple((0.0,) * len(response) for group in groups for response in group.responses)
        cached = (False,) * len(rows)
        return TokenRewards(rows=rows, prm_version=0, beta=0.05, reference_id="r", reference_cached=cached)


@contextlib.asynccontextmanager
async def _held(scorer: CheckingScorer, folder: Path) -> AsyncIterator[tuple[HeldModel, Batcher, KeyedApi]]:
    model, info = HeldModel(), await scorer.info()
    batcher = Batcher(model, token_budget=40, max_waiting=64)
    async with _keyed(PrmScorer(batcher, _BYTES, lambda: info), folder) as api:
        yield model, batcher, api


def _passes(letter: str, count: int) -> dict[str, Any]:
    """A request that takes so many passes."""
    return {"inputs": {"prompt": "q", "responses": [letter * 30] * count}}


async def _when(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_key_with_one_request_gets_as_much_as_a_key_with_forty(scorer: CheckingScorer, tmp_path: Path) -> None:
    async with _held(scorer, tmp_path) as (model, batcher, api):
        asking = [asyncio.ensure_future(api.post("scorer", "/v1/prm/score", _passes("m", 1))) for _ in range(40)]
        await _when(lambda: batcher.unanswered == 40)
        asking.append(asyncio.ensure_future(api.post("urgent", "/v1/prm/score", _passes("o", 5))))
        await _when(lambda: batcher.unanswered == 41)
        model.go.set()
        answers = await asyncio.gather(*asking)
    assert {answer.status_code for answer in answers} == {200}
    letters = "".join(model.order)
    assert letters[:11] == "momomomomom"
    assert len(letters) == 45


async def test_priority_is_obeyed_for_those_who_may_and_refused_to_others(
    scorer: CheckingScorer, tmp_path: Path
) -> None:
    high = {"X-Priority": "high"}
    async with _held(scorer, tmp_path) as (model, batcher, api):
        refused = await api.post("scorer", "/v1/prm/score", **high)
        assert refused.status_code == 403
        assert "the key 'scorer' may not send `X-Priority: high`" in refused.json()["error"]
        unknown = await api.post("urgent", "/v1/prm/score", **{"X-Priority": "soon"})
        assert (unknown.status_code, unknown.json()["error_type"]) == (422, "validation")
        asking = [asyncio.ensure_future(api.post("scorer", "/v1/prm/score", _passes("n", 3)))]
        await _when(lambda: batcher.unanswered == 1)
        asking.append(asyncio.ensure_future(api.post("urgent", "/v1/prm/score", _passes("u", 1))))
        await _when(lambda: batcher.unanswered == 2)
        asking.append(asyncio.ensure_future(api.post("urgent", "/v1/prm/score", _passes("h", 4), **high)))
        await _when(lambda: batcher.unanswered == 3)
        model.go.set()
        assert {answer.status_code for answer in await asyncio.gather(*asking)} == {200}
    assert "".join(model.order) == "nhhhhunn"


# ---------------------------------------------------------------- gRPC


@pytest.fixture(scope="module")
def reward_service(prm_pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> RewardService:
    weights = ImplicitPrm(PrmSettings(lr=1e-3, device="cpu"), start=prm_pair[0])
    return RewardService(weights, checkpoints=tmp_path_factory.mktemp("checkpoints"))


@contextlib.asynccontextmanager
async def _serving(service: RewardService, folder: Path, *tables: str) -> AsyncIterator[tuple[str, Meters]]:
    file, meters = folder / "keys.toml", Meters()
    file.write_text("\n".join(tables))
    keys = Keys(KEY, meters=meters, file=file)
    server = build_server(KEY, meters, gate=KeyedGate(keys))
    prm_pb2_grpc.add_PrmServiceServicer_to_server(PrmServicer(service, charge=keys.charge), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", meters
    finally:
        await server.stop(None)


@contextlib.asynccontextmanager
async def _calling(address: str, key: str) -> AsyncIterator[GrpcRewardModel]:
    client = GrpcRewardModel(address, key, deadline_s=30)
    try:
        yield client
    finally:
        await client.close()


async def test_a_scoring_key_opens_neither_learn_nor_save_nor_restore(
    reward_service: RewardService, tmp_path: Path
) -> None:
    async with _serving(reward_service, tmp_path, *TABLES) as (address, meters), _calling(address, "scorer") as client:
        version = (await client.info()).prm_version
        assert len((await client.score(GROUPS)).rows) == 2
        for refused in (client.learn(1, GROUPS, [1.0, 0.0]), client.save(1), client.restore(0)):
            with pytest.raises(Forbidden, match=r"the key 'scorer' lacks the scope 'learn' \(it has: score\)"):
                await refused
        assert (await client.info()).prm_version == version
        refused_calls = {"method": "/prime.v1.PrmService/Learn", "code": "PERMISSION_DENIED"}
        assert meters.registry.get_sample_value("prime_rpc_seconds_count", refused_calls) == 1
        # The prompt once, and both responses.
        assert meters.registry.get_sample_value("prime_prm_key_tokens_total", {"key": "scorer"}) == 7


@pytest.mark.parametrize("key", ["trainer", KEY])
async def test_a_learning_key_and_the_shared_token_steer_the_training(
    reward_service: RewardService, tmp_path: Path, key: str
) -> None:
    async with _serving(reward_service, tmp_path, *TABLES) as (address, _), _calling(address, key) as client:
        assert await client.restore(0) == 0
        assert (await client.learn(1, GROUPS, [1.0, 0.0])).prm_version == 1
        assert Path(await client.save(1), "config.json").is_file()
        if key == KEY:
            await client.score(GROUPS)
        else:
            with pytest.raises(Forbidden, match="lacks the scope 'score'"):
                await client.score(GROUPS)


async def test_limits_hold_over_grpc_and_a_wrong_key_opens_nothing(
    reward_service: RewardService, tmp_path: Path
) -> None:
    table = _table("thrifty", "tokens_per_day = 7")
    async with _serving(reward_service, tmp_path, table) as (address, _):
        async with _calling(address, "thrifty") as client:
            await client.score(GROUPS)
            with pytest.raises(LimitReached, match="used its 7 tokens of this day"):
                await client.score(GROUPS)
        async with _calling(address, "nobody") as client:
            for call in (client.score(GROUPS), client.info()):
                with pytest.raises(Unauthenticated):
                    await call
