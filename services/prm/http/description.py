"""`/openapi.json` and `/docs`: FastAPI's description of the routes, and what `Edge` adds to all of them.

The page `/docs` loads its parts from this service alone, so it works without the internet.
"""

from collections.abc import Collection
from importlib import resources
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html

_DOCS = "/docs"
_PAGE_PARTS = {
    f"{_DOCS}/swagger-ui-bundle.js": "text/javascript",
    f"{_DOCS}/swagger-ui.css": "text/css",
    f"{_DOCS}/favicon.png": "image/png",
}
DOCS_PATHS = frozenset((_DOCS, *_PAGE_PARTS, "/openapi.json"))
"""What a browser asks for to show the description."""
_POLICY = "default-src 'self' 'unsafe-inline'; img-src 'self' data:"
"""Has the browser refuse whatever the page would load from another host."""

_FASTAPIS_OWN = ("HTTPValidationError", "ValidationError")
_TIMEOUT = {
    "name": "X-Request-Timeout",
    "in": "header",
    "required": False,
    "description": "Seconds after which the client no longer waits; the work is then dropped, and the answer is 408.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
    "example": 30,
}
_PRIORITY = {
    "name": "X-Priority",
    "in": "header",
    "required": False,
    "description": "`high` goes before others, for keys that may.",
    "schema": {"type": "string", "enum": ["normal", "high"]},
    "example": "normal",
}
_KEY = {"type": "http", "scheme": "bearer", "description": "The API key: PRIME_TOKEN, or as printed at the start."}


def describe(app: FastAPI, *, open_paths: Collection[str], requires_key: bool) -> None:
    """Have the description name the key and the time limit, except for `open_paths`."""
    of_fastapi = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _with_edge(of_fastapi(), open_paths, requires_key)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def add_docs(app: FastAPI) -> None:
    """Add the page `/docs` and its parts."""

    @app.get(_DOCS, include_in_schema=False)
    def page() -> Response:
        response = get_swagger_ui_html(
            openapi_url="openapi.json",
            title=app.title,
            swagger_js_url="docs/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="docs/favicon.png",
            # Without this Swagger UI has a validator on another host read the description.
            swagger_ui_parameters={"validatorUrl": None},
        )
        response.headers["Content-Security-Policy"] = _POLICY
        return response

    for path, media_type in _PAGE_PARTS.items():
        app.add_api_route(path, _part(path.rpartition("/")[2], media_type), include_in_schema=False)


def _part(name: str, media_type: str) -> Any:
    def part() -> Response:
        content = resources.files("fastapi_offline").joinpath("static", name).read_bytes()
        return Response(content, media_type=media_type, headers={"Cache-Control": "max-age=86400"})

    return part


def _with_edge(schema: dict[str, Any], open_paths: Collection[str], requires_key: bool) -> dict[str, Any]:
    components = schema["components"]
    for name in _FASTAPIS_OWN:
        components["schemas"].pop(name, None)
    if requires_key:
        components["securitySchemes"] = {"key": _KEY}
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            _drop_fastapis_own(operation["responses"])
            if path not in open_paths:
                operation.setdefault("parameters", []).extend(
                    # What computes nothing has no turn to wait for.
                    (_TIMEOUT, _PRIORITY) if "requestBody" in operation else (_TIMEOUT,)
                )
                if requires_key:
                    operation["security"] = [{"key": []}]
                else:
                    for status in ("401", "403"):
                        del operation["responses"][status]
    return schema


def _drop_fastapis_own(responses: dict[str, Any]) -> None:
    """FastAPI promises a 422 of its own form wherever none is named; here no route answers in that form."""
    content = responses.get("422", {}).get("content", {}).get("application/json", {})
    if content.get("schema", {}).get("$ref", "").endswith("/HTTPValidationError"):
        del responses["422"]
