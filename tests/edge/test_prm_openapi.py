"""The description of the API is true, and its page needs no other host."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from prime.adapters.telemetry import Meters
from prime.chat import ChatCandidate, ChatSamples
from prime.prm_api import Completion, InfoReply, ScoreReply
from services.prm.best_of_n import BestOfN
from services.prm.http.app import add_prm_routes
from services.prm.keys import Keys
from services.prm.settings import ApiSettings, BestOfNSettings
from tests.edge.prm_api import KEY, open_tiny_scorer, running_app

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLES = 30
"""Per operation, besides those that schemathesis derives from every limit of the description: 25 s on two cores."""
OPEN = {"/info", "/health", "/healthz", "/readyz", "/metrics"}
OPENAI = ("/pooling", "/score", "/classify", "/v1/score", "/v1/classify", "/v1/embeddings", "/v1/chat", "/v1/models")


class Parrot:
    """An engine whose answers are numbered."""

    async def sample(self, request: Mapping[str, Any], n: int) -> ChatSamples:
        candidates = tuple(
            ChatCandidate(message={"role": "assistant", "content": f"answer {number}"}, finish_reason="stop")
            for number in range(n)
        )
        usage = {"prompt_tokens": 1, "completion_tokens": n, "total_tokens": n + 1}
        return ChatSamples(candidates=candidates, model="parrot", usage=usage)

    async def models(self) -> Sequence[str]:
        return ["parrot"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(prm_pair: tuple[Path, Path]) -> AsyncIterator[str]:
    scorer, meters = open_tiny_scorer(*prm_pair, max_tokens=256), Meters()
    best_of_n = BestOfN(Parrot(), scorer, None, BestOfNSettings())
    add_routes = partial(
        add_prm_routes,
        scorer=scorer,
        keys=Keys(KEY, meters=meters),
        settings=ApiSettings(),
        meters=meters,
        best_of_n=best_of_n,
    )
    async with running_app(add_routes, meters) as address:
        yield address


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def description(url: str) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=url) as stranger:
        found: dict[str, Any] = (await stranger.get("/openapi.json")).json()
    return found


def _operations(description: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in description["paths"].items():
        yield from ((path, operation) for operation in operations.values())


async def test_schemathesis_finds_nothing(url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "--no-color"]
    command += ["--config-file", str(Path(__file__).with_name("schemathesis.toml"))]
    command += ["run", f"{url}/openapi.json", "--header", f"Authorization: Bearer {KEY}", "--checks", "all"]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES), "--seed", "1"]
    command += ["--continue-on-failure", "--no-shrink", "--warnings", "off"]
    process = await asyncio.create_subprocess_exec(
        # It writes files of what it found where it runs.
        *command,
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    tested, generated = re.search(r"Tested: (\d+)", output), re.search(r"(\d+) generated", output)
    assert tested is not None
    assert generated is not None
    assert int(tested[1]) == 21
    assert int(generated[1]) > 1000


async def test_every_route_names_its_key_its_reply_and_its_refusals(description: dict[str, Any]) -> None:
    assert description["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert "HTTPValidationError" not in description["components"]["schemas"]
    for path, operation in _operations(description):
        responses = operation["responses"]
        for status, response in responses.items():
            for body in response["content"].values():
                assert body.get("schema") or body.get("itemSchema"), (path, status)
        refusals = set(responses) - {"200"}
        if path in OPEN:
            assert refusals == ({"503"} if path == "/readyz" else set()), path
            assert "security" not in operation
            continue
        assert operation["security"] == [{"key": []}], path
        assert "X-Request-Timeout" in [parameter["name"] for parameter in operation["parameters"]]
        shape = "OpenAIRefusal" if path.startswith(OPENAI) else "PlainRefusal"
        expected = {"400", "401", "403", "408", "424", "429", "503"} | (
            set() if shape == "OpenAIRefusal" else {"413", "422"}
        )
        assert expected <= refusals, path
        assert refusals - expected <= {"404", "412"}
        for status in refusals:
            schema = responses[status]["content"]["application/json"]["schema"]
            assert schema == {"$ref": f"#/components/schemas/{shape}"}, (path, status)


async def test_every_body_has_an_example_that_is_answered(url: str, description: dict[str, Any]) -> None:
    def examples(schema: Mapping[str, Any]) -> list[Any]:
        if "$ref" in schema:
            schema = description["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        parts = [example for each in schema.get("oneOf", ()) for example in examples(each)]
        return [*schema.get("examples", ()), *parts]

    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as client:
        for path, operation in _operations(description):
            if "requestBody" in operation:
                found = examples(operation["requestBody"]["content"]["application/json"]["schema"])
                assert found, path
                for body in found:
                    response = await client.post(path, json=body)
                    assert response.status_code == 200, (path, response.text)


async def test_replies_hold_what_is_described_and_nothing_else(url: str) -> None:
    inputs = {"prompt": "q", "responses": ["one\n\ntwo", {"steps": ["a", "b"]}]}
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as client:
        for options in ({}, {"return_tokens": True}, {"return_tokens": True, "encoding_format": "base64"}):
            response = await client.post("/v1/prm/score", json={"inputs": inputs, **options})
            reply = ScoreReply.model_validate_json(response.content, strict=True, extra="forbid")
            assert reply.model_dump(mode="json", exclude_none=True) == response.json()
        info = await client.get("/info")
        assert InfoReply.model_validate_json(info.content, extra="forbid").model_dump(mode="json") == info.json()
        chat = {"messages": [{"role": "user", "content": "q"}], "best_of": 3, "prime": {"min_candidates": 2}}
        answer = await client.post("/v1/chat/completions", json=chat)
        completion = Completion.model_validate_json(answer.content, extra="forbid")
    assert completion.prime is not None
    assert completion.prime.candidates == 3


async def test_without_a_key_none_is_described(prm_pair: tuple[Path, Path]) -> None:
    settings, meters = ApiSettings(require_key=False), Meters()
    add_routes = partial(
        add_prm_routes,
        scorer=open_tiny_scorer(*prm_pair),
        keys=Keys(KEY, meters=meters),
        settings=settings,
        meters=meters,
    )
    async with running_app(add_routes, meters) as url, httpx.AsyncClient(base_url=url) as client:
        description = (await client.get("/openapi.json")).json()
    assert "securitySchemes" not in description["components"]
    for path, operation in _operations(description):
        assert "security" not in operation, path
        assert "401" not in operation["responses"], path


async def test_a_wrong_method_is_told_which_there_are(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {KEY}"}) as client:
        response = await client.get("/v1/prm/score")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


async def test_the_page_loads_from_this_service_alone_and_without_a_key(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as stranger:
        page = await stranger.get("/docs")
        loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(loaded) == 3
        parts = [await stranger.get(f"/{part}") for part in loaded]
    for part in parts:
        assert part.status_code == 200
        assert len(part.content) > 1000
    assert not re.findall(
        r"""(?:@import|url\(["']?https?:)""", next(part.text for part in parts if "css" in part.headers["content-type"])
    )
    # Swagger UI before 5 cannot show OpenAPI 3.1, and any has a validator on another host unless it is told.
    assert '"validatorUrl": null' in page.text
    assert "https:" not in page.text
    # What is not seen here, the browser refuses.
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
