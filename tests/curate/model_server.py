"""A server of OpenAI's chat completions on a real socket, that misbehaves as servers do."""

import hashlib
import json
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NO = "\\text{no solution}"


class ModelServer:
    """OpenAI's chat completions on a real socket."""

    def __init__(self) -> None:
        self.answered: Counter[str] = Counter()
        self.tried: Counter[str] = Counter()
        self.hold_after = 10**9
        self.held = threading.Event()
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.handle(self, body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def handle(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        key = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        with self._lock:
            self.tried[key] += 1
            tries = self.tried[key]
            if sum(self.answered.values()) >= self.hold_after:
                self.held.set()
                handler.close_connection = True
                hold = True
            else:
                hold = False
                mood = int(key, 16) % 7 if tries == 1 else -1
                if mood not in (0, 1, 2):
                    self.answered[key] += 1
        if hold:
            time.sleep(3)  # never answered: whoever asked is killed by then
            return
        match mood:
            case 0:
                return self._send(handler, 429, {"error": "too many requests"})
            case 1:
                return self._send(handler, 503, {"error": "restarting"})
            case 2:
                handler.close_connection = True  # hangs up without a word
                return None
            case 3:
                time.sleep(0.2)
        return self._send(handler, 200, self._completion(body))

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, status: int, tree: Any) -> None:
        data = json.dumps(tree).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        question = body["messages"][-1]["content"]
        reply = rewrite(question) if body["model"] == "llama" else solve(body["model"], question, body["seed"])
        choice = {"index": 0, "message": {"role": "assistant", "content": reply}, "finish_reason": "stop"}
        usage = {"prompt_tokens": len(question), "completion_tokens": len(reply)}
        return {"id": "x", "object": "chat.completion", "model": body["model"], "choices": [choice], "usage": usage}


def solve(model: str, question: str, seed: int) -> str:
    """Adds what stands in the question; some questions lead to disagreement, garbage, or nowhere."""
    numbers = re.findall(r"\d+", question)
    total = sum(map(int, numbers))
    if "moon" in question:
        return "As a language model, I like the moon."
    if "cat" in question:
        return f"It cannot be said. $\\boxed{{{NO}}}$"
    if "dog" in question and model == "qwen":
        return f"So $\\boxed{{{total + 1}}}$."
    if "bird" in question:
        return f"So $\\boxed{{{total + seed}}}$."
    return f"Step by step. So $\\boxed{{{total}}}$."


def rewrite(question: str) -> str:
    asked = question.partition("The question:\n\n")[2].partition("\n\nIts solution")[0]
    if "fish" in asked:
        return "REMOVABLE: no"
    stem = asked.partition(" (A)")[0]
    numbers = re.findall(r"\d+", stem)
    return f"REMOVABLE: yes\nQUESTION: {stem}\nANSWER: \\boxed{{{sum(map(int, numbers))}}}"
