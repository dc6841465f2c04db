"""A scoring service in front of a scripted engine, and an environment that holds other projects' clients."""

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from benchmarks.prm_server import Server, scoring_service

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-clients" / "bin" / "python"
SCRIPTS = Path(__file__).parent / "scripts"
SAMPLES = ["It is 56.", "It is 54.", "7 * 8 = 56.", "I do not know.", "\\boxed{56}", "56, I think."]

Ask = Callable[..., Any]


class Engine(ThreadingHTTPServer):
    """An OpenAI-compatible engine that goes through SAMPLES again and again, and knows what it gave to each call."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Completions)
        self.given: list[list[str]] = []
        self._lock = threading.Lock()

    def sample(self, n: int) -> list[str]:
        with self._lock:
            start = sum(map(len, self.given))
            self.given.append([SAMPLES[(start + index) % len(SAMPLES)] for index in range(n)])
            return self.given[-1]


class _Completions(BaseHTTPRequestHandler):
    server: Engine

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        choices = [
            {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            for index, text in enumerate(self.server.sample(asked.get("n", 1)))
        ]
        usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
        head = {"id": "1", "object": "chat.completion", "created": 1, "model": "scripted"}
        body = json.dumps({**head, "choices": choices, "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        threading.Thread(target=engine.serve_forever, daemon=True).start()
        yield engine
        engine.shutdown()


@pytest.fixture(scope="session")
def service(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with scoring_service(
        tmp_path_factory.mktemp("service"),
        f"best_of_n.engine=http://127.0.0.1:{engine.server_port}/v1",
        "best_of_n.best_of=2",
    ) as server:
        yield server


@pytest.fixture(scope="session")
def open_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """For clients that send no key."""
    with scoring_service(tmp_path_factory.mktemp("open"), "api.require_key=false") as server:
        yield server


@pytest.fixture(scope="session")
def ask() -> Ask:
    """Run a script with the clients' Python; what the last line of its output says."""
    if not PYTHON.exists():
        pytest.fail(f"{PYTHON} is missing; run the tests with `make test-clients`, which makes it")
    environment = {
        **os.environ,  # noqa: TID251
        # Both fetch from or send to the internet otherwise.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HAYSTACK_TELEMETRY_ENABLED": "False",
    }

    def ask(script: str, **question: Any) -> Any:
        # Isolated, so that nothing of this project can be imported.
        command = [str(PYTHON), "-I", str(SCRIPTS / f"{script}.py"), json.dumps(question)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return ask
