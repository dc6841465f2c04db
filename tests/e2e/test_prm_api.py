"""The commands of the scoring API, as processes: serve, score by it and without it, answer by best-of-N."""

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from prime.adapters.grpc_clients import GrpcRewardModel
from prime.chat import Selection
from prime.client import PrmClient
from prime.errors import Forbidden, InvalidInput
from prime.prm_api import PrimeOptions
from primectl.places import free_ports
from tests.builders import perturb, tiny_model

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

REPOSITORY = Path(__file__).parents[2]
KEY = "e2e-key"


def _primectl(*arguments: str | Path, key: str = KEY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "primectl", *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "PRIME_TOKEN": key},  # noqa: TID251
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    perturb(tiny_model(folder / "prm"), seed=1)
    perturb(tiny_model(folder / "reference"), seed=2)
    rows = [
        {"id": number, "prompt": f"What is {number} + 1?", "responses": [f"It is {number + 1}.", "It is 0.\n\nOr not."]}
        for number in range(5)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@contextlib.contextmanager
def _serving(folder: Path, *overrides: str) -> Iterator[str]:
    grpc, ops = free_ports(2)
    command = [sys.executable, "-m", "primectl", "serve-prm", str(folder / "prm")]
    command += ["--reference", str(folder / "reference"), f"listen=127.0.0.1:{grpc}", f"ops_listen=127.0.0.1:{ops}"]
    environment = {**os.environ, "PRIME_TOKEN": KEY}  # noqa: TID251
    with (folder / "log").open("w") as log:
        service = subprocess.Popen([*command, *overrides], env=environment, cwd=REPOSITORY, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 60
            while service.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(httpx.TransportError):
                    httpx.get(f"http://127.0.0.1:{ops}/health").raise_for_status()
                    break
                time.sleep(0.2)
            yield f"http://127.0.0.1:{ops}"
            service.terminate()
            assert service.wait(timeout=30) == 0, (folder / "log").read_text()
        finally:
            service.kill()
            service.wait()


def test_a_file_is_scored_alike_by_a_service_and_in_this_process(folder: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    local = _primectl(
        "score", folder / "rows.jsonl", "--model", folder / "prm", "--reference", folder / "reference", "--out", here
    )
    assert local.returncode == 0, local.stderr
    with _serving(folder) as url:
        remote = _primectl("score", folder / "rows.jsonl", "--address", url, "--out", there, "--json")
        assert remote.returncode == 0, remote.stderr
        assert json.loads(remote.stdout.splitlines()[-1])["candidates"] == 10
        shown = _primectl("score", folder / "rows.jsonl", "--address", url)
        assert "row 1: " in shown.stdout
        assert shown.stdout.count("*") == shown.stdout.count("row ") + 1
        stranger = _primectl("score", folder / "rows.jsonl", "--address", url, key="wrong")
        assert stranger.returncode == 1
        assert "the API key is missing or wrong" in stranger.stderr
        again = _primectl("score", folder / "rows.jsonl", "--address", url, "--out", there)
        assert (again.returncode, "exists already" in again.stderr) == (1, True)
        mistaken = _primectl("best-of-n", folder / "rows.jsonl", "--address", url)
        assert mistaken.returncode == 1
        assert "best_of_n.engine" in mistaken.stderr
    for mine, theirs in zip(here.read_text().splitlines(), there.read_text().splitlines(), strict=True):
        local_row, remote_row = json.loads(mine), json.loads(theirs)
        assert remote_row["scores"] == pytest.approx(local_row["scores"], abs=1e-4)
        assert [len(steps) for steps in remote_row["steps"]] == [1, 2]
        assert remote_row["reference_id"] == local_row["reference_id"]


def test_a_new_key_scores_a_file_is_counted_and_does_not_steer(folder: Path, tmp_path: Path) -> None:
    made = _primectl("new-key", "alice")
    assert made.returncode == 0, made.stderr
    key = made.stderr.strip().rpartition(" ")[2]
    file = tmp_path / "keys.toml"
    file.write_text(made.stdout)
    (listen,) = free_ports(1)
    with _serving(folder, f"api.keys={file}", f"listen=127.0.0.1:{listen}") as url:
        scored = _primectl("score", folder / "rows.jsonl", "--address", url, "--json", key=key)
        assert scored.returncode == 0, scored.stderr
        assert json.loads(scored.stdout.splitlines()[-1])["candidates"] == 10
        metrics = httpx.get(f"{url}/metrics").text
        assert re.search(r'prime_prm_key_tokens_total{key="alice"} [1-9]', metrics)
        for presented, kind, text in ((key, Forbidden, "lacks the scope 'learn'"), (KEY, InvalidInput, "frozen")):
            with pytest.raises(kind, match=text):
                asyncio.run(_restore(f"127.0.0.1:{listen}", presented))
        file.write_text("")
        time.sleep(1.1)
        refused = _primectl("score", folder / "rows.jsonl", "--address", url, key=key)
        assert (refused.returncode, "the API key is missing or wrong" in refused.stderr) == (1, True)
    file.write_text("[alice]\nlimit = 1\n")
    broken = _primectl("serve-prm", folder / "prm", "--reference", folder / "reference", f"api.keys={file}")
    assert broken.returncode == 1
    assert f"key file {file}, key 'alice': unknown field 'limit'" in broken.stderr


async def _restore(address: str, key: str) -> int:
    client = GrpcRewardModel(address, key, deadline_s=30)
    try:
        return await client.restore(7)
    finally:
        await client.close()


class HalvesEngine(BaseHTTPRequestHandler):
    """An OpenAI-compatible engine with three answers, two of which are equal, that keeps what it was asked."""

    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        self.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        choices = [
            {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            for index, text in enumerate(("\\boxed{1/2}", "It is \\boxed{0.5}", "\\boxed{2}"))
        ]
        body = json.dumps({"choices": choices, "model": "halves", "usage": {}}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


def test_votes_need_one_setting_and_no_verifier(folder: Path, tmp_path: Path) -> None:
    engine = ThreadingHTTPServer(("127.0.0.1", 0), HalvesEngine)
    threading.Thread(target=engine.serve_forever, daemon=True).start()
    address = f"best_of_n.engine=http://127.0.0.1:{engine.server_port}/v1"
    votes = PrimeOptions(selection=Selection.MAJORITY)
    try:
        with _serving(folder, address, "best_of_n.votes=true") as url:
            with PrmClient(url, KEY, timeout_s=60) as client:
                found = client.best_of_n(prompt="?", best_of=3, options=votes).prime
            assert found is not None
            assert (found.selection, found.classes) == (Selection.MAJORITY, [0, 0, 1])
            assert found.selected[0] in (0, 1)
            rows = tmp_path / "rows.jsonl"
            rows.write_text('{"id": "a", "prompt": "?"}\n{"id": "b", "prompt": ""}\n')
            command = ("best-of-n", rows, "--address", url, "--best-of", "3", "--selection", "majority")
            asked = _primectl(*command, "--out", tmp_path / "out.jsonl", "top_p=0.5", "prime.aggregation=min")
            first, second = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
            assert (asked.returncode, first["id"], first["prime"]["classes"]) == (1, "a", [0, 0, 1])
            assert (HalvesEngine.asked[-1]["top_p"], first["prime"]["aggregation"]) == (0.5, "min")
            assert first["responses"][0] in ("\\boxed{1/2}", "It is \\boxed{0.5}")
            assert "row 2: column 'prompt' must be text" in second["error"]
            stranger = _primectl(*command, key="wrong")
            assert (stranger.returncode, "the API key is missing or wrong" in stranger.stderr) == (1, True)
    finally:
        engine.shutdown()
        engine.server_close()


def test_a_newcomers_mistakes_are_one_message_each(folder: Path) -> None:
    for arguments, text in (
        (("serve-prm", folder / "prm"), "--reference is missing"),
        (("serve-prm", folder / "nowhere", "--reference", "none"), "nowhere does not exist"),
        (("serve-prm", folder / "prm", "--reference", "none", "prot=1"), "unknown setting 'prot'"),
        (("score", folder / "rows.jsonl"), "give either --model FOLDER"),
        (("score", folder / "rows.jsonl", "--address", "127.0.0.1:9152"), "begins with http:// or https://"),
        (("score", folder / "no.jsonl", "--model", folder / "prm", "--reference", "none"), "does not exist"),
        (("evaluate-prm", "--model", folder / "prm", "--reference", "none"), "nothing to evaluate on"),
        (("train-prm", f"model={folder / 'prm'}"), "setting 'data' is missing"),
    ):
        result = _primectl(*arguments)
        assert result.returncode == 1, result.stdout
        assert text in result.stderr
        assert "Traceback" not in result.stderr


def test_an_engine_that_is_no_address_ends_the_start(folder: Path) -> None:
    result = _primectl(
        "serve-prm", folder / "prm", "--reference", "none", "best_of_n.engine=localhost:8000",
        f"ops_listen=127.0.0.1:{free_ports(1)[0]}", f"listen=127.0.0.1:{free_ports(1)[0]}",
    )  # fmt: skip
    assert result.returncode == 1
    assert "neither http://HOST:PORT/v1 nor grpc://HOST:PORT" in result.stderr
