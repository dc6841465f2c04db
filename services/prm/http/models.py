"""`GET /v1/models`, which OpenAI's clients ask first: the engine's models, or the PRMs, or both.

PRMs are listed where there is no engine, and where there are several of them.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

from fastapi import APIRouter
from starlette.exceptions import HTTPException

from prime.prm_api import OpenAIRefusal
from services.prm.http.errors import OpenAIRoute, refused
from services.prm.http.replies import ModelCard, ModelsReply

Names = Callable[[], Awaitable[Sequence[str]]]


def build_router(sources: Mapping[Literal["engine", "prime"], Names]) -> APIRouter:
    """The routes; the names of every owner are asked for anew each time."""
    router = APIRouter(route_class=OpenAIRoute, tags=["about"])

    @router.get("/v1/models", response_model=ModelsReply)
    async def models() -> dict[str, Any]:
        """All of them."""
        return {"object": "list", "data": [_page(*each) for each in await _listed(sources)]}

    @router.get("/v1/models/{name:path}", response_model=ModelCard, responses=refused(OpenAIRefusal, 404))
    async def model(name: str) -> dict[str, Any]:
        """One by its name."""
        for found, owner in await _listed(sources):
            if found == name:
                return _page(found, owner)
        raise HTTPException(404, f"there is no model {name!r}; GET /v1/models lists what there is")

    return router


async def _listed(sources: Mapping[Literal["engine", "prime"], Names]) -> list[tuple[str, str]]:
    return [(name, owner) for owner, names in sources.items() for name in await names()]


def _page(name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}
