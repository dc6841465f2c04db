"""Several PRMs in one service: a request's `model` chooses, on every route."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from prime.client import AsyncPrmClient
from prime.errors import CheckpointError, SettingsError, UnknownModel
from prime.prm_api import ScoreOptions
from services.prm.main import load_others, open_scorer
from services.prm.settings import ApiSettings, PrmSettings
from tests.edge.prm_api import KEY, Api, open_tiny_scorer, running_api
from tests.heads import qwen_prm

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = "user: What is 7 * 8?\nassistant: 56"
CHATML = "<|im_start|>user\nWhat is 7 * 8?<|im_end|>\n<|im_start|>assistant\n56"
RERANK = {"query": "What is 7 * 8?"}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/prm/score": {"inputs": {"prompt": "What is 7 * 8?", "responses": ["56"]}},
    "/rerank": RERANK | {"documents": ["56"]},
    "/v1/rerank": RERANK | {"texts": ["56"]},
    "/predict": {"inputs": ["What is 7 * 8?", "56"]},
    "/score": {"text_1": "What is 7 * 8?", "text_2": "56"},
    "/reward": {"prompt": "What is 7 * 8?", "response": "56"},
}
RENDERED: dict[str, str] = {"/pooling": "input", "/classify": "input", "/v1/embeddings": "input"}


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qwen_prm(tmp_path_factory.mktemp("qwen"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def several(prm_pair: tuple[Path, Path], qwen: Path) -> AsyncIterator[Api]:
    head = PrmSettings(frozen=True, reference_mode="none", device="cpu", api=ApiSettings(model_id="qwen"))
    also = {"qwen": open_scorer(head, model=qwen)}
    settings = ApiSettings(model_id="tiny-prm")
    async with running_api(open_tiny_scorer(*prm_pair), settings, also=also) as api:
        yield api


async def _post(api: Api, path: str, body: dict[str, Any]) -> Any:
    response = await api.client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def _numbers(answer: Any) -> list[float]:
    """All rewards and scores of an answer; counts are whole."""
    if isinstance(answer, dict):
        answer = list(answer.values())
    if isinstance(answer, list):
        return [number for each in answer for number in _numbers(each)]
    return [answer] if isinstance(answer, float) else []


@pytest.mark.parametrize("path", BODIES)
async def test_the_model_field_chooses(several: Api, path: str) -> None:
    by_default = await _post(several, path, BODIES[path])
    expected = pytest.approx(_numbers(by_default), abs=1e-6)
    assert _numbers(await _post(several, path, BODIES[path] | {"model": "tiny-prm"})) == expected
    assert _numbers(await _post(several, path, BODIES[path] | {"model": "qwen"})) != expected


@pytest.mark.parametrize("path", RENDERED)
async def test_the_model_field_chooses_the_template_too(several: Api, path: str) -> None:
    field = RENDERED[path]
    await _post(several, path, {field: TEXT, "model": "tiny-prm"})
    await _post(several, path, {field: CHATML, "model": "qwen"})
    response = await several.client.post(path, json={field: CHATML, "model": "tiny-prm"})
    assert response.status_code == 400


async def test_openrlhf_may_name_one(several: Api) -> None:
    body = {"query": [CHATML], "prompts": [CHATML.removesuffix("56")], "model": "qwen"}
    assert 0 < (await _post(several, "/get_reward", body))["rewards"][0] < 1


@pytest.mark.parametrize("path", [*BODIES, *RENDERED, "/get_reward"])
async def test_an_unknown_name_is_a_404_with_the_list(several: Api, path: str) -> None:
    body = BODIES.get(path) or {"input": TEXT, "query": [TEXT], "prompts": [TEXT[:-2]]}
    response = await several.client.post(path, json=body | {"model": "gpt"})
    assert response.status_code == 404
    assert "the model 'gpt' does not exist; this service has tiny-prm, qwen" in response.text


async def test_the_openai_package_sees_them(several: Api) -> None:
    async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{several.url}/v1") as client:
        assert [each.id async for each in client.models.list()] == ["tiny-prm", "qwen"]
        assert (await client.models.retrieve("qwen")).owned_by == "prime"
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            await client.embeddings.create(model="gpt", input=TEXT)


async def test_the_typed_client_chooses(several: Api) -> None:
    async with AsyncPrmClient(several.url, KEY) as client:
        reply = await client.score(["56"], prompt="What is 7 * 8?", options=ScoreOptions(model="qwen"))
        assert reply.model == (await client.info(model="qwen")).model_id == "qwen"
        with pytest.raises(UnknownModel, match="tiny-prm, qwen"):
            await client.score(["56"], prompt="What is 7 * 8?", options=ScoreOptions(model="gpt"))
        with pytest.raises(UnknownModel, match="tiny-prm, qwen"):
            await client.info(model="gpt")


async def test_the_404_is_described_where_there_are_several(several: Api, api: Api) -> None:
    async def described(service: Api) -> set[str]:
        paths = (await service.client.get("/openapi.json")).json()["paths"]
        return {path for path, each in paths.items() if any("404" in one["responses"] for one in each.values())}

    chosen = {*BODIES, *RENDERED, "/get_reward", "/info"}
    assert chosen <= await described(several)
    assert not chosen & await described(api)


async def test_info_describes_each(several: Api) -> None:
    first = (await several.client.get("/info")).json()
    head = (await several.client.get("/info", params={"model": "qwen"})).json()
    assert first["models"] == head["models"] == ["tiny-prm", "qwen"]
    assert (first["model_id"], first["kind"]) == ("tiny-prm", "implicit")
    assert (head["model_id"], head["kind"]) == ("qwen", "step_head")
    assert (await several.client.get("/info", params={"model": "gpt"})).status_code == 404


async def test_with_one_prm_no_name_is_looked_at(api: Api) -> None:
    await _post(api, "/v1/prm/score", BODIES["/v1/prm/score"] | {"model": "gpt"})
    assert (await api.client.get("/info", params={"model": "gpt"})).json()["models"] == ["tiny-prm"]


async def test_others_are_loaded_as_the_setting_says(prm_pair: tuple[Path, Path], qwen: Path) -> None:
    prm, reference = prm_pair
    entries = (f"qwen={qwen}", f"second={prm},reference={reference}", f"bare={prm},reference=none")
    settings = PrmSettings(reference=reference, device="cpu", frozen=True, beta=0.1, api=ApiSettings(also=entries))
    others = load_others(settings, start=prm)
    assert {name: (each.prm.kind, each.prm.beta) for name, each in others.items()} == {
        "qwen": ("step_head", 1.0),
        "second": ("implicit", 0.05),
        "bare": ("implicit", 0.05),
    }
    assert others["second"].prm.reference_id.startswith("sha256:")
    assert others["bare"].prm.reference_id == "none"
    scorer, batcher = others["qwen"].scorer(start=prm)
    assert (await scorer.info()).model_id == "qwen"
    assert batcher.unanswered == 0


async def test_entries_that_say_too_little_are_refused(prm_pair: tuple[Path, Path], qwen: Path, tmp_path: Path) -> None:
    prm, reference = prm_pair

    def load(*also: str) -> object:
        settings = PrmSettings(reference=reference, device="cpu", frozen=True, api=ApiSettings(also=also))
        return load_others(settings, start=prm)

    for entry in ("qwen", "=folder", "qwen=", f"qwen={qwen},beta=1", f"qwen={qwen},reference="):
        with pytest.raises(SettingsError, match="is not NAME=FOLDER"):
            load(entry)
    with pytest.raises(SettingsError, match="is an implicit PRM"):
        load(f"second={prm}")
    with pytest.raises(SettingsError, match="no log-ratios"):
        load(f"qwen={qwen},reference={reference}")
    with pytest.raises(SettingsError, match="two PRMs are named 'qwen'"):
        load(f"qwen={qwen}", f"qwen={qwen}")
    with pytest.raises(SettingsError, match="two PRMs are named 'prm'"):
        load(f"prm={qwen}")
    with pytest.raises(CheckpointError):
        load(f"nothing={tmp_path}")
