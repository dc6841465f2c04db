"""Clients that leave: nothing more is computed for them, on any route, and the engine's call ends with them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from prime.adapters.openai_engine import OpenAIEngine
from prime.adapters.telemetry import Meters
from prime.data.tiny import build_byte_tokenizer
from prime.types import PrmGroup, TokenRewards
from services.prm.batching import Batcher
from services.prm.best_of_n import BestOfN
from services.prm.http.app import add_prm_routes
from services.prm.keys import Keys
from services.prm.scoring import PrmScorer
from services.prm.settings import ApiSettings, BestOfNSettings
from tests.edge.prm_api import KEY, Api, open_tiny_scorer, running_api, running_app

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = ["a" * 60] * 6
"""Each of them a pass of its own, with this budget."""
BUDGET = 100
CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a" * 60}]

BODIES: dict[str, dict[str, Any]] = {
    "/v1/prm/score": {"inputs": {"prompt": "q", "responses": LONG}},
    "/rerank": {"query": "q", "documents": LONG},
    "/score": {"queries": "q", "documents": LONG},
    "/predict": {"inputs": [["q", each] for each in LONG]},
    "/get_reward": {"query": [f"q{each}" for each in LONG], "prompts": ["q"] * len(LONG)},
}


class HeldModel:
    """A reward model whose passes take as long as the test wishes; counts them."""

    def __init__(self) -> None:
        self.begun = asyncio.Semaphore(0)
        self.go = asyncio.Event()
        self.passes = 0

    async def score(self, groups: Sequence[PrmGroup], *, reuse: bool = False) -> TokenRewards:
        self.passes += 1
        self.begun.release()
        await self.go.wait()
        rows = tuple((0.0,) * len(response) for group in groups for response in group.responses)
        cached = (False,) * len(rows)
        return TokenRewards(rows=rows, prm_version=0, beta=0.05, reference_id="r", reference_cached=cached)


@contextlib.asynccontextmanager
async def _held_api(prm_pair: tuple[Path, Path]) -> AsyncIterator[tuple[HeldModel, Api]]:
    model, info = HeldModel(), await open_tiny_scorer(*prm_pair).info()
    batcher = Batcher(model, token_budget=BUDGET, max_waiting=8)
    async with running_api(PrmScorer(batcher, build_byte_tokenizer(), lambda: info)) as api:
        yield model, api


@pytest.mark.parametrize("route", BODIES)
async def test_the_rest_of_a_request_is_not_computed_when_its_client_has_gone(
    route: str, prm_pair: tuple[Path, Path]
) -> None:
    async with _held_api(prm_pair) as (model, api):
        async with httpx.AsyncClient(base_url=api.url, headers={"Authorization": f"Bearer {KEY}"}) as leaving:
            asking = asyncio.ensure_future(leaving.post(route, json=BODIES[route]))
            await asyncio.wait_for(model.begun.acquire(), 20)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await _counted(api, route, "499")
        model.go.set()
        small = await api.client.post("/v1/prm/score", json={"inputs": {"prompt": "q", "responses": ["a"]}})
        assert small.status_code == 200
        # The pass that was under way, and that of the small request.
        assert model.passes == 2


@pytest.mark.parametrize("route", ["/v1/prm/score", "/score"])
async def test_a_request_ends_when_its_time_is_over(route: str, prm_pair: tuple[Path, Path]) -> None:
    async with _held_api(prm_pair) as (model, api):
        late = await api.client.post(route, json=BODIES[route], headers={"X-Request-Timeout": "0.2"})
        assert late.status_code == 408
        assert "0.2 s of X-Request-Timeout" in late.text
        model.go.set()
        in_time = {"inputs": {"prompt": "q", "responses": ["a"]}}
        answered = await api.client.post("/v1/prm/score", json=in_time, headers={"X-Request-Timeout": "60"})
        assert (answered.status_code, model.passes) == (200, 2)
        for wrong in ("soon", "0", "-1", "nan", "inf"):
            refused = await api.client.post("/v1/prm/score", json=in_time, headers={"X-Request-Timeout": wrong})
            assert refused.status_code == 422
            assert "no number of seconds" in refused.json()["error"]


async def test_a_body_has_to_come_in_its_time(prm_pair: tuple[Path, Path]) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"inputs"'
        await asyncio.sleep(20)

    settings = ApiSettings(body_seconds=0.2)
    async with running_api(open_tiny_scorer(*prm_pair), settings) as api:
        response = await api.client.post("/v1/prm/score", content=slowly())
        assert (response.status_code, response.json()["error_type"]) == (408, "timeout")


async def test_a_request_that_stays_is_computed_whole(prm_pair: tuple[Path, Path]) -> None:
    async with _held_api(prm_pair) as (model, api):
        model.go.set()
        for route, body in BODIES.items():
            model.passes = 0
            assert (await api.client.post(route, json=body)).status_code == 200
            assert model.passes == len(LONG)


async def _counted(api: Api, route: str, status: str) -> None:
    """Wait until the service has noticed."""
    wanted = f'prime_prm_http_seconds_count{{route="{route}",status="{status}"}}'
    async with asyncio.timeout(20):
        while wanted not in (await api.client.get("/metrics")).text:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_engines_call_ends_with_its_client(stream: bool, prm_pair: tuple[Path, Path]) -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Reads a request and never answers."""
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        while await reader.read(1024):
            pass
        closed.set()
        writer.close()

    server = await asyncio.start_server(engine, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    generator = OpenAIEngine(f"http://127.0.0.1:{port}/v1", timeout_s=60, setting="engine")
    scorer = open_tiny_scorer(*prm_pair)
    best_of_n = BestOfN(generator, scorer, None, BestOfNSettings())
    add_routes = partial(
        add_prm_routes,
        scorer=scorer,
        keys=Keys(KEY, meters=Meters()),
        settings=ApiSettings(),
        meters=Meters(),
        best_of_n=best_of_n,
    )
    body = {"model": "m", "messages": CHAT[:1], "stream": stream}
    async with running_app(add_routes) as url:
        async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=30) as client:
            if stream:
                async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                    # The stream is open, and says that it is alive.
                    assert (await anext(response.aiter_lines())).startswith(":")
            else:
                asking = asyncio.ensure_future(client.post("/v1/chat/completions", json=body))
                await asyncio.wait_for(asked.wait(), 20)
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
        await asyncio.wait_for(closed.wait(), 20)
    await generator.close()
    server.close()
