"""A scoring API as it ships, with tiny models, on a loopback socket of the tests' own."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
from fastapi import FastAPI

from prime.adapters.ops_http import OpsServer, ops_app
from prime.adapters.telemetry import Meters
from prime.ports import Scorer
from primectl.places import free_port
from services.prm.http.app import add_prm_routes
from services.prm.keys import Keys
from services.prm.main import open_scorer
from services.prm.scoring import PrmScorer
from services.prm.settings import ApiSettings, PrmSettings

KEY = "a-key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """Where it listens, a client with the key, and the scorer behind it."""

    url: str
    client: httpx.AsyncClient
    scorer: Scorer


@contextlib.asynccontextmanager
async def running_app(
    add_routes: Callable[[FastAPI], None], meters: Meters | None = None, *, header_seconds: float = 20.0
) -> AsyncIterator[str]:
    """An app with these routes behind a real socket; yields its address."""
    listen = f"127.0.0.1:{free_port()}"
    registry = (meters or Meters()).registry
    app = ops_app("test", lambda: True, registry, add_routes)
    server = OpsServer(app, listen, grace_seconds=1, header_seconds=header_seconds)
    async with server.running():
        yield f"http://{listen}"


@contextlib.asynccontextmanager
async def running_api(
    scorer: Scorer, settings: ApiSettings | None = None, *, also: Mapping[str, Scorer] | None = None
) -> AsyncIterator[Api]:
    """The whole API over a scorer, and others by their names."""
    meters = Meters()
    settings = settings or ApiSettings()
    add_routes = partial(
        add_prm_routes, scorer=scorer, keys=Keys(KEY, meters=meters), settings=settings, meters=meters, also=also
    )
    async with (
        running_app(add_routes, meters) as url,
        httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as client,
    ):
        yield Api(url=url, client=client, scorer=scorer)


def open_tiny_scorer(prm: Path, reference: Path, *, max_tokens: int = 0, max_candidates: int = 128) -> PrmScorer:
    """The real scorer over two tiny models."""
    settings = PrmSettings(
        reference=reference,
        device="cpu",
        frozen=True,
        api=ApiSettings(max_tokens=max_tokens, max_candidates=max_candidates, model_id="tiny-prm"),
    )
    return open_scorer(settings, model=prm)
