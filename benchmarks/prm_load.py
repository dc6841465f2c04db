"""`make bench-prm-load`: the scoring service with a greedy client, clients that leave, and hostile bodies.

Each part has a service of its own, as a process, over a pair of tiny models; only what is computed for clients that
have left is counted inside this process, where the passes can be seen. The last line is one JSON object:

* `small_request_slowdown`: the 95th percentile of a one-token request while another client sends 40 responses of 1,200
  tokens, again and again, over the median without that client;
* `wasted_token_share`: of all tokens computed while half of the clients leave at random moments, those that were
  computed for a client after it had left;
* `healthz_p99_ms`: of `/healthz` while hostile bodies are sent by two clients;
* `memory_ratio`: the service's memory after 1,000 hostile bodies over that before;
* `accepted`, `lost`: requests of all parts that were to be answered, and those of them without an answer.
"""

import asyncio
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.machine import machine
from benchmarks.prm_server import KEY, Server, scoring_service
from prime.adapters.ops_http import OpsServer, ops_app
from prime.adapters.telemetry import Meters
from prime.data.rendering import encode_scoring_prompt
from prime.data.tiny import build_byte_tokenizer, write_tiny_model
from prime.scoring import Prompt
from prime.types import PrmGroup
from primectl.places import free_port
from services.prm.batching import count_tokens
from services.prm.http.app import add_prm_routes
from services.prm.keys import Keys
from services.prm.main import SHORT_TOKENS, scorer_of
from services.prm.reward import IsWanted, RewardService, ScoredRows
from services.prm.reward_model import ImplicitPrm
from services.prm.settings import PrmSettings

_ROUTE = "/v1/prm/score"
_SMALL = json.dumps({"inputs": {"prompt": "q", "responses": ["a"]}, "end_token": False})
_SECONDS = 20.0
"""Under the greedy client, and under hostile bodies."""
_LEAVERS = 40
_HOSTILE = 1000
_GOALS = {
    "small_request_slowdown": 3.0,
    "wasted_token_share": 0.02,
    "healthz_p99_ms": 100.0,
    "memory_ratio": 1.1,
    "lost": 0,
}


@dataclass(slots=True)
class _Tally:
    accepted: int = 0
    lost: int = 0

    def take(self, response: httpx.Response) -> None:
        """Count a response to what should have been answered."""
        self.accepted += 1
        self.lost += response.status_code != 200


def main() -> None:
    """All parts, one after the other."""
    tally = _Tally()
    report: dict[str, Any] = {}
    for part in (_fairness, _hostility):
        with tempfile.TemporaryDirectory() as folder, scoring_service(Path(folder)) as server:
            report |= asyncio.run(part(server, tally))
            print(report, file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report |= asyncio.run(_leaving(Path(folder), tally))
    print(json.dumps(report | {"accepted": tally.accepted, "lost": tally.lost, "goals": _GOALS, "machine": machine()}))


# ---------------------------------------------------------------- a greedy client


async def _fairness(server: Server, tally: _Tally) -> dict[str, Any]:
    async with _client(server.url) as client:
        await _small_requests(client, tally, seconds=2.0)  # warm
        alone = await _small_requests(client, tally, seconds=5.0)
        greedy = asyncio.ensure_future(_be_greedy(server, tally))
        await asyncio.sleep(1.0)
        beside = await _small_requests(client, tally, seconds=_SECONDS)
        greedy.cancel()
        await asyncio.gather(greedy, return_exceptions=True)
    p95 = statistics.quantiles(beside, n=20)[-1]
    return {
        "small_request_slowdown": round(p95 / statistics.median(alone), 2),
        "small_request_alone_ms": round(1000 * statistics.median(alone), 2),
        "small_request_beside_p50_ms": round(1000 * statistics.median(beside), 2),
        "small_request_beside_p95_ms": round(1000 * p95, 2),
        "small_requests": len(beside),
    }


async def _small_requests(client: httpx.AsyncClient, tally: _Tally, *, seconds: float) -> list[float]:
    spent = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        tally.take(await client.post(_ROUTE, content=_SMALL))
        spent.append(time.perf_counter() - started)
        await asyncio.sleep(0.005)
    return spent


async def _be_greedy(server: Server, tally: _Tally) -> None:
    async with _client(server.url) as client:
        number = 0
        while True:
            number += 1
            tally.take(await client.post(_ROUTE, content=_large(number, responses=40)))


def _large(number: int, *, responses: int) -> str:
    texts = [f"{number} {each} ".ljust(1200, "a") for each in range(responses)]
    return json.dumps({"inputs": {"prompt": f"question {number}", "responses": texts}, "end_token": False})


# ---------------------------------------------------------------- hostile bodies


def hostile_bodies() -> list[tuple[str, str]]:
    """Routes and bodies, each of which is refused or cheap."""
    text = "a" * (15 * 2**20)
    return [
        (_ROUTE, json.dumps({"inputs": {"prompt": "a", "responses": [1] * 250_000}})),
        (_ROUTE, json.dumps({"inputs": {"prompt": "a", "responses": [1] * 1_000_000}})),
        (_ROUTE, json.dumps({"inputs": [1] * 250_000})),
        (_ROUTE, json.dumps({"inputs": {"prompt": "a", "responses": [{"token_ids": ["a"] * 250_000}]}})),
        (_ROUTE, json.dumps({"inputs": {"prompt": "a", "responses": ["b"]}, "step_separator": ["a" * 20] * 20_000})),
        (_ROUTE, json.dumps({"inputs": {"prompt": "a", "responses": ["b"]}, "step_pattern": "(a+)+$"})),
        (_ROUTE, json.dumps({"inputs": {"prompt": text, "responses": ["b"]}})),
        (_ROUTE, json.dumps({"inputs": {"prompt": "a", "responses": [text]}})),
        (_ROUTE, "[" * 200_000),
        (_ROUTE, '{"inputs": ' * 50_000),
        (_ROUTE, json.dumps({"inputs": {"prompt": "a", "responses": ["\\ud83d"]}})),
        ("/rerank", json.dumps({"query": "q", "documents": [{}] * 250_000})),
        ("/rerank", json.dumps({"query": "q", "texts": [1] * 250_000})),
        ("/pooling", json.dumps({"input": [[]] * 250_000})),
        ("/score", json.dumps({"queries": "q", "documents": [1] * 250_000})),
        ("/get_reward", json.dumps({"query": [1] * 250_000})),
    ]


async def _hostility(server: Server, tally: _Tally) -> dict[str, Any]:
    process, bodies = psutil.Process(server.pid), hostile_bodies()
    async with _client(server.url) as client:
        await _small_requests(client, tally, seconds=1.0)
        # Each once, for what a first time allocates is not a leak.
        for route, body in bodies:
            await client.post(route, content=body)
        before = process.memory_info().rss
        sending = asyncio.ensure_future(_send_hostile(server.url, bodies))
        health = await _healthz_beside(server, sending)
        statuses = await sending
        after = process.memory_info().rss
        await _small_requests(client, tally, seconds=1.0)
    return {
        "healthz_p99_ms": round(1000 * statistics.quantiles(health, n=100)[-1], 1),
        "healthz_max_ms": round(1000 * max(health), 1),
        "healthz_asked": len(health),
        "memory_ratio": round(after / before, 3),
        "hostile_bodies": len(statuses),
        "hostile_500s": sum(status >= 500 for status in statuses),
    }


async def _send_hostile(url: str, bodies: Sequence[tuple[str, str]]) -> list[int]:
    """By processes of their own: to write 15 MiB would hold up who measures."""
    halves = [_HOSTILE // 2, _HOSTILE - _HOSTILE // 2]
    found = await asyncio.gather(*(asyncio.to_thread(_send_from_process, url, count) for count in halves))
    return [status for half in found for status in half]


def _send_from_process(url: str, count: int) -> list[int]:
    command = [sys.executable, "-m", "benchmarks.prm_load_hostile", url, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return list(map(int, done.stdout.split()))


async def _healthz_beside(server: Server, sending: "asyncio.Future[list[int]]") -> list[float]:
    spent = []
    async with _client(server.url) as client:
        while not sending.done():
            started = time.perf_counter()
            (await client.get("/healthz")).raise_for_status()
            spent.append(time.perf_counter() - started)
            await asyncio.sleep(0.01)
    return spent


# ---------------------------------------------------------------- clients that leave


@dataclass(slots=True)
class _Pass:
    started: float
    ended: float
    groups: Sequence[PrmGroup]


@dataclass(slots=True)
class _SeenPrm:
    """A PRM whose passes are written down."""

    prm: ImplicitPrm
    passes: list[_Pass] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.prm, name)

    def score(
        self, groups: Sequence[PrmGroup], *, reuse: bool = False, is_wanted: IsWanted | None = None
    ) -> ScoredRows:
        started = time.perf_counter()
        scored = self.prm.score(groups, reuse=reuse, is_wanted=is_wanted)
        with self.lock:
            self.passes.append(_Pass(started, time.perf_counter(), groups))
        return scored


async def _leaving(folder: Path, tally: _Tally) -> dict[str, Any]:
    for name, seed in (("prm", 1), ("reference", 2)):
        write_tiny_model(folder / name, seed=seed, context=4096)
    settings = PrmSettings(reference=folder / "reference", device="cpu", frozen=True)
    seen = _SeenPrm(ImplicitPrm(settings, start=folder / "prm"))
    prm: Any = seen
    async with _running(prm, settings, folder / "prm") as url:
        left = await _come_and_leave(url, tally)
    total = wasted = 0.0
    for each in seen.passes:
        for group in each.groups:
            tokens = count_tokens([group])
            total += tokens
            when = left.get(group.prompt_ids, float("inf"))
            if when < each.ended:
                wasted += tokens * min(1.0, (each.ended - when) / (each.ended - each.started))
    return {"wasted_token_share": round(wasted / total, 4), "computed_tokens": int(total), "clients": _LEAVERS}


async def _come_and_leave(url: str, tally: _Tally) -> dict[tuple[int, ...], float]:
    """When which prompt's client left."""
    draw = random.Random(0)
    left: dict[str, float] = {}

    async def come(number: int) -> None:
        await asyncio.sleep(draw.uniform(0, 10.0))
        async with _client(url) as client:
            asking = asyncio.ensure_future(client.post(_ROUTE, content=_large(number, responses=20)))
            if number % 2:
                tally.take(await asking)
                return
            await asyncio.wait([asking], timeout=draw.uniform(0.05, 4.0))
            if asking.done():
                tally.take(asking.result())
                return
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            left[f"question {number}"] = time.perf_counter()

    await asyncio.gather(*map(come, range(_LEAVERS)))
    tokenizer = build_byte_tokenizer()
    return {encode_scoring_prompt(tokenizer, Prompt(text=text)): when for text, when in left.items()}


@contextlib.asynccontextmanager
async def _running(prm: ImplicitPrm, settings: PrmSettings, start: Path) -> AsyncIterator[str]:
    """The API of this process, over a PRM."""
    reward_service = RewardService(prm, checkpoints=Path(), short_tokens=SHORT_TOKENS)
    scorer, _ = scorer_of(prm, reward_service, settings, start, short_tokens=SHORT_TOKENS)
    meters = Meters()
    keys = Keys(KEY, meters=meters)
    add_routes = partial(add_prm_routes, scorer=scorer, keys=keys, settings=settings.api, meters=meters)
    listen = f"127.0.0.1:{free_port()}"
    server = OpsServer(ops_app("bench", lambda: True, meters.registry, add_routes), listen, grace_seconds=1)
    async with server.running():
        yield f"http://{listen}"


def _client(url: str) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=300)


if __name__ == "__main__":
    main()
