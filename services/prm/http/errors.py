"""From the error tree to HTTP, by the table `prime.prm_api.REFUSALS`, and the two bodies that clients know.

    class              status  error_type          raised when
    EmptyInput         400     empty               nothing to score
    InputTooLong       400     too_long            over the limit, and truncation was not asked for (422 towards TEI)
    Unauthenticated    401     unauthenticated     no key, or a wrong one
    Forbidden          403     forbidden           the key lacks the scope, or may not ask for priority
    UnknownModel       404     model_not_found     several PRMs are served, and none has the name in `model`
    TookTooLong        408     timeout             X-Request-Timeout is over, or the body did not come in time
    VersionConflict    412     version             require_version is not the version that answers
    BatchTooLarge      413     batch_too_large     too many candidates, or too large a body
    InvalidInput       422     validation          anything else that is wrong with a request
    EngineError        424     backend             the model failed
    LimitReached       429     rate_limited        the key's requests or tokens are used up; Retry-After says until when
    Overloaded         429     overloaded          too many requests wait; Retry-After says how many seconds
    NotReady           503     unhealthy           starting, stopping, or a peer is away

Classes and bodies are those of text-embeddings-inference; routes that come from OpenAI or vLLM answer in their form.
"""

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar

import structlog
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from prime.errors import EngineError, PrimeError
from prime.prm_api import REFUSALS, OpenAIRefusal, PlainRefusal, explain
from services.prm.http.bodies import BoundedRequest

_MEANINGS = {
    400: "There is nothing to score, or too much; on OpenAI's routes whatever is wrong with the request.",
    401: "The key is missing or wrong.",
    403: "The key may not do this.",
    404: "There is no such thing.",
    408: "X-Request-Timeout is over, or the body did not come in time.",
    412: "`require_version` is not the version that answers.",
    413: "Too many candidates, or too large a body.",
    422: "Anything else that is wrong with the request.",
    424: "The model or the engine failed.",
    429: "Too many requests wait already, or the key's limit is reached.",
    503: "The service is starting or stopping, or the engine is away.",
}
_RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds.", "required": True}}
_HEADERS: Mapping[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}, "required": True}},
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
}
_log = structlog.get_logger()


class Fault(Exception):
    """What goes over the wire instead of an answer: `Fault(429, "overloaded", "64 requests wait already")`."""

    def __init__(self, status: int, error_type: str, text: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(text)
        # What was sent may be quoted, and need not be text that can be sent back.
        self.text = text.encode("utf-8", "replace").decode()
        self.status, self.error_type = status, error_type
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> Mapping[str, str]:
        """`Retry-After` where trying again helps."""
        if self.status in (429, 503):
            return {"Retry-After": str(math.ceil(self.retry_after_s))}
        return {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}


def fault_of(error: Exception) -> Fault:
    """The fault of an error; one that we do not know is logged and becomes a 500 without its text."""
    match error:
        case Fault():
            return error
        case RequestValidationError():
            return Fault(422, "validation", _explain(error))
        case HTTPException():
            # What stopped the reading of a body is the cause of FastAPI's own complaint.
            if isinstance(error.__cause__, PrimeError):
                return fault_of(error.__cause__)
            said = "not_found" if error.status_code in (404, 405) else "validation"
            return Fault(422 if error.status_code == 400 else error.status_code, said, str(error.detail))
    for kind, status, error_type in REFUSALS:
        if isinstance(error, kind):
            return Fault(status, error_type, str(error), retry_after_s=getattr(error, "retry_after_s", 1.0))
    _log.error("request failed", exc_info=error)
    return Fault(500, "internal", "the service failed on this request; its log has the reason")


def plain_body(fault: Fault) -> dict[str, Any]:
    """As text-embeddings-inference says it."""
    return {"error": fault.text, "error_type": fault.error_type}


def openai_body(fault: Fault) -> dict[str, Any]:
    """As OpenAI and vLLM say it."""
    return {"error": {"message": fault.text, "type": fault.error_type, "param": None, "code": fault.status}}


def plain_answer(fault: Fault) -> Response:
    """As text-embeddings-inference answers."""
    return answer(fault, plain_body)


def openai_answer(fault: Fault) -> Response:
    """As OpenAI answers: what is wrong with a request is a 400."""
    if fault.status in (413, 422):
        fault = Fault(400, fault.error_type, fault.text)
    return answer(fault, openai_body)


Dialect = Callable[[Fault], Response]


def answer(fault: Fault, body: Callable[[Fault], dict[str, Any]]) -> JSONResponse:
    """The response."""
    return JSONResponse(body(fault), status_code=fault.status, headers=dict(fault.headers))


class _FaultyRoute(APIRoute):
    """Turns whatever a handler raises into a fault. Handlers hold no `try`."""

    refusals: ClassVar[Mapping[int | str, dict[str, Any]]]
    """What such a route may refuse with, for the description."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **how: Any) -> None:
        super().__init__(path, endpoint, **how | {"responses": {**self.refusals, **(how.get("responses") or {})}})

    def render(self, fault: Fault) -> Response:
        """The fault in the words of this route's clients."""
        raise NotImplementedError

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """FastAPI's handler, guarded."""
        handler = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                return await handler(BoundedRequest(request.scope, request.receive))
            except Exception as error:  # noqa: BLE001  the edge: fault_of logs what it does not know
                fault = fault_of(error)
                request.state.error_type = fault.error_type
                return self.render(fault)

        return guarded


def refused(shape: type[BaseModel], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """These statuses in FastAPI's words: for the description, as `responses` of a route."""
    refusals: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        refusals[status] = {"model": shape, "description": _MEANINGS[status]}
        if header := _HEADERS.get(status):
            refusals[status]["headers"] = header
    return refusals


class PlainRoute(_FaultyRoute):
    """Errors as `{"error": text, "error_type": class}`."""

    refusals: ClassVar[Mapping[int | str, dict[str, Any]]] = refused(
        PlainRefusal, 400, 401, 403, 408, 413, 422, 424, 429, 503
    )

    def render(self, fault: Fault) -> Response:
        """As text-embeddings-inference says it."""
        return plain_answer(fault)


class OpenRoute(PlainRoute):
    """A plain route without key and work, which refuses nothing."""

    refusals: ClassVar[Mapping[int | str, dict[str, Any]]] = {}


class OpenAIRoute(_FaultyRoute):
    """Errors as `{"error": {"message": text, ...}}`; what is wrong with a request is a 400."""

    refusals: ClassVar[Mapping[int | str, dict[str, Any]]] = refused(OpenAIRefusal, 400, 401, 403, 408, 424, 429, 503)

    def render(self, fault: Fault) -> Response:
        """As OpenAI says it."""
        return openai_answer(fault)


def finite(value: float) -> float:
    """A number that JSON can carry.

    Raises:
        EngineError: the model gave an infinite score or none at all.
    """
    if not math.isfinite(value):
        raise EngineError("the PRM gave a score that is not finite; are its weights whole?")
    return value


def _explain(error: RequestValidationError) -> str:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return f"the body is no JSON: {first['ctx']['error']} at character {first['loc'][-1]}"
    if isinstance(first.get("input"), bytes):
        return "the body is not read as JSON: send `Content-Type: application/json`"
    # Places begin with where the value came from: the body.
    return explain([{**each, "loc": each["loc"][1:]} for each in error.errors()])
