"""A server of OpenAI's chat completions whose every answer is planned: the problem names its number."""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Choice = tuple[str, str]
"""Text and finish reason."""


class AnswerServer:
    """`plan` gives the k answers of a problem; they are handed out in order, as often as they are asked for."""

    def __init__(self, plan: Callable[[int], Sequence[Choice]], *, seconds: float = 0.0) -> None:
        self.given: Counter[int] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self._plan = plan
        self._seconds = seconds
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.send(self, {"data": [{"id": "planned"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.send(self, outer.complete(body))

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128

            def handle_error(self, *_: Any) -> None:  # whoever asked was killed
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        found = re.search(r"Problem (\d+)", body["messages"][-1]["content"])
        assert found
        problem, count = int(found.group(1)), body.get("n", 1)
        time.sleep(self._seconds)
        with self._lock:
            self.bodies.append(body)
            start = self.given[problem]
            self.given[problem] += count
        plan = self._plan(problem)
        chosen = [plan[(start + place) % len(plan)] for place in range(count)]
        return {
            "model": "planned",
            "choices": [
                {"index": place, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
                for place, (text, reason) in enumerate(chosen)
            ],
            "usage": {"prompt_tokens": 5, "completion_tokens": 7 * count},
        }

    @staticmethod
    def send(handler: BaseHTTPRequestHandler, tree: Any) -> None:
        data = json.dumps(tree).encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)


def problem_row(number: int, *, source: str = "planned") -> dict[str, Any]:
    """Problem `number`, whose answer is its number."""
    return {
        "data_source": source,
        "ability": "math",
        "prompt": [{"role": "user", "content": f"Problem {number}: which number is this?"}],
        "reward_model": {"ground_truth": str(number)},
    }


def boxed(value: object) -> Choice:
    return (f"So it is \\boxed{{{value}}}.", "stop")
