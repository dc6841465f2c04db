"""Puts the API on the service's HTTP app: the native route, those of other servers' clients, best-of-N."""

from collections.abc import Mapping, Sequence
from typing import Literal

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException

from prime.adapters.telemetry import Meters
from prime.ports import Scorer
from prime.prm_api import InfoReply, OpenAIRefusal, PlainRefusal
from services.prm.best_of_n import BestOfN
from services.prm.http import chat, models, native, predict, rerank, training, vllm
from services.prm.http.description import add_docs, describe
from services.prm.http.edge import OPEN_PATHS, Edge
from services.prm.http.errors import (
    Dialect,
    OpenAIRoute,
    OpenRoute,
    PlainRoute,
    fault_of,
    openai_answer,
    plain_answer,
    refused,
)
from services.prm.http.replies import HealthReply
from services.prm.http.scorers import Scorers
from services.prm.keys import Keys
from services.prm.settings import ApiSettings

_NO_ENGINE = (
    "this service has no engine to sample from: start it with best_of_n.engine=http://HOST:PORT/v1 (docs/prm-api.md)"
)
_DESCRIPTION = """Implicit process rewards: `beta * (log pi_prm - log pi_ref)` of every token, summed to steps and
responses. Rewards are log-ratios, unbounded and around 0; where a route promises 0..1 it gives their sigmoid."""


def add_prm_routes(
    app: FastAPI,
    *,
    scorer: Scorer,
    keys: Keys,
    settings: ApiSettings,
    meters: Meters,
    best_of_n: BestOfN | None = None,
    also: Mapping[str, Scorer] | None = None,
) -> None:
    """Add all routes, behind the key check; those of best-of-N where there is an engine to sample from.

    `also`: more PRMs by their names; `scorer` has the name `settings.model_id`.
    """
    app.title, app.description = "PRIME: PRM scoring API", _DESCRIPTION

    async def own_names() -> Sequence[str]:
        return scorers.names or [(await scorer.info()).model_id]

    scorers = Scorers(scorer, also, name=settings.model_id)
    for routes in (native, rerank, predict, training):
        app.include_router(routes.build_router(scorers), responses=refused(PlainRefusal, *_statuses(scorers)))
    app.include_router(vllm.build_router(scorers), responses=refused(OpenAIRefusal, *_statuses(scorers)))
    app.include_router(_about(scorers))
    if best_of_n is None:
        app.include_router(models.build_router({"prime": own_names}))
    else:
        app.include_router(chat.build_router(best_of_n))
        prms: dict[Literal["engine", "prime"], models.Names] = {"prime": own_names} if scorers.names else {}
        app.include_router(models.build_router({"engine": best_of_n.models, **prms}))
    plain = {route.path for route in app.routes if isinstance(route, PlainRoute)}
    openai = {route.path for route in app.routes if isinstance(route, OpenAIRoute)}

    def dialect_of(path: str) -> Dialect:
        """In whose words a path's clients are answered, also where there is no such path."""
        is_openai = path in openai or (path.startswith("/v1/") and path not in plain)
        return openai_answer if is_openai else plain_answer

    async def nowhere(request: Request, error: Exception) -> Response:
        if best_of_n is None and request.url.path.startswith("/v1/chat/"):
            error = HTTPException(404, _NO_ENGINE)
        answer = dialect_of(request.url.path)(fault_of(error))
        # Of a 405: the methods that there are.
        answer.headers.update(getattr(error, "headers", None) or {})
        return answer

    app.add_exception_handler(HTTPException, nowhere)
    add_docs(app)
    describe(app, open_paths=OPEN_PATHS, requires_key=settings.require_key)
    app.add_middleware(Edge, keys=keys, settings=settings, meters=meters, dialect_of=dialect_of)


def _statuses(scorers: Scorers) -> Sequence[int]:
    """With which a request's `model` may be refused."""
    return (404,) if scorers.names else ()


def _about(scorers: Scorers) -> APIRouter:
    router = APIRouter(route_class=OpenRoute, tags=["about"])

    @router.get("/info", responses=refused(PlainRefusal, *_statuses(scorers)))
    async def info(model: str = "") -> InfoReply:
        """Which PRM answers, how it reads, and the limits; `model` names one where there are several."""
        about = await scorers.of(model).info()
        return InfoReply(
            models=list(scorers.names) or [about.model_id],
            model_id=about.model_id,
            kind=about.kind,
            prm_version=about.prm_version,
            reference=about.reference,
            reference_id=about.reference_id,
            tokenizer_fingerprint=about.tokenizer_fingerprint,
            dtype=about.dtype,
            beta=about.config.beta,
            aggregation=about.config.aggregation,
            step_value=about.config.step_value,
            activation=about.config.activation,
            step_separators=list(about.config.separators),
            end_token=about.config.end_token,
            step_mark=about.config.step_mark,
            closing=about.config.closing,
            generation_prompt=about.generation_prompt,
            generation_prompt_ids=list(about.generation_prompt_ids),
            end_text=about.end_text,
            max_input_length=about.max_tokens,
            max_client_batch_size=about.max_candidates,
            max_concurrent_requests=about.max_waiting,
            max_batch_tokens=about.token_budget,
        )

    @router.get("/health")
    async def health() -> HealthReply:
        """200 while scores are given: the port opens when the PRM is loaded."""
        await scorers.default.info()
        return HealthReply(status="ok")

    return router
