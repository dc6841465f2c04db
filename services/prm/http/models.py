"""`GET /v1/models`, which OpenAI's clients ask first: the engine's models, or without an engine the PRM itself."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

from fastapi import APIRouter
from starlette.exceptions import HTTPException

from prime.prm_api import OpenAIRefusal
from services.prm.http.errors import OpenAIRoute, refused
from services.prm.http.replies import ModelCard, ModelsReply

Names = Callable[[], Awaitable[Sequence[str]]]


def build_router(names: Names, *, owner: Literal["engine", "prime"]) -> APIRouter:
    """The routes; `names` are asked for anew each time."""
    router = APIRouter(route_class=OpenAIRoute, tags=["about"])

    @router.get("/v1/models", response_model=ModelsReply)
    async def models() -> dict[str, Any]:
        """All of them."""
        return {"object": "list", "data": [_page(name, owner) for name in await names()]}

    @router.get("/v1/models/{name:path}", response_model=ModelCard, responses=refused(OpenAIRefusal, 404))
    async def model(name: str) -> dict[str, Any]:
        """One by its name."""
        if name not in await names():
            raise HTTPException(404, f"there is no model {name!r}; GET /v1/models lists what there is")
        return _page(name, owner)

    return router


def _page(name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}
