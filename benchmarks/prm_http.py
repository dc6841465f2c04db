"""What HTTP adds to the engine: the service as a process of its own, asked over loopback by one client at a time; and
what it does when far more is asked than it takes.
"""

import asyncio
import http.client
import json
import statistics
import tempfile
import time
from pathlib import Path

import httpx

from benchmarks.prm_server import Server, scoring_service

_REQUESTS, _WARM_UP = 300, 30
_CAPACITY, _AT_ONCE = 8, 200


def measure_http() -> dict[str, object]:
    """Overhead in milliseconds, and counts of a burst.

    Overhead is the client's time for a request without what the engine says it took: to encode, to wait, to compute.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        scoring_service(Path(folder), f"api.max_waiting={_CAPACITY}") as server,
    ):
        return _overhead(server) | asyncio.run(_burst(server))


def _body(candidates: int, number: int) -> dict[str, object]:
    answer = "First we multiply the two numbers.\n\nThe product of 7 and 8 is 56.\n\nSo the answer is 56."
    responses = [f"{answer} ({number}, {candidate})" for candidate in range(candidates)]
    return {"inputs": {"prompt": "What is 7 * 8?", "responses": responses}}


def _overhead(server: Server) -> dict[str, object]:
    report: dict[str, object] = {}
    # The plainest client there is: what it costs is not what the service costs.
    client = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    for candidates in (4, 16):
        spent: list[float] = []
        tokenizing: list[float] = []
        for number in range(_WARM_UP + _REQUESTS):
            body = json.dumps(_body(candidates, number))
            started = time.perf_counter()
            client.request("POST", "/v1/prm/score", body, server.headers)
            response = client.getresponse()
            response.read()
            seconds = time.perf_counter() - started
            if response.status != 200:
                raise SystemExit(f"the scoring service answered {response.status}")
            tokenize = float(response.headers["x-tokenization-time"])
            engine = tokenize + float(response.headers["x-queue-time"]) + float(response.headers["x-inference-time"])
            spent.append(1000 * seconds - engine)
            tokenizing.append(tokenize)
        centiles = statistics.quantiles(spent[_WARM_UP:], n=100)
        name = "http_overhead" if candidates == 4 else f"http_overhead_{candidates}_candidates"
        report[f"{name}_p50_ms"] = round(centiles[49], 2)
        report[f"{name}_p95_ms"] = round(centiles[94], 2)
        report[f"{name}_tokenizing_p50_ms"] = round(statistics.median(tokenizing[_WARM_UP:]), 2)
    client.close()
    return report


async def _burst(server: Server) -> dict[str, object]:
    """Many requests at once against a service that takes a few: each is answered, or told to come again."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, headers=server.headers, timeout=120, limits=limits) as client:
        asked = [client.post("/v1/prm/score", json=_body(4, number)) for number in range(_AT_ONCE)]
        responses = await asyncio.gather(*asked)
        metrics = (await client.get("/metrics")).text
    statuses = [response.status_code for response in responses]
    return {
        "burst_requests": len(statuses),
        "burst_capacity": _CAPACITY,
        "burst_answered": statuses.count(200),
        "burst_429": statuses.count(429),
        "burst_other": len(statuses) - statuses.count(200) - statuses.count(429),
        "burst_waiting_after": float(
            next(line for line in metrics.splitlines() if line.startswith("prime_prm_waiting")).split()[1]
        ),
    }
