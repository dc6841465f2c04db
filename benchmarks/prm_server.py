"""The scoring service as a process of its own, over a pair of tiny models, for the time of a block."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from prime.data.tiny import write_tiny_model
from primectl.places import free_ports

KEY = "bench"
_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where it listens, and its process."""

    url: str
    pid: int

    @property
    def headers(self) -> dict[str, str]:
        """What a request carries."""
        return {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}


@contextlib.contextmanager
def scoring_service(folder: Path, *settings: str) -> Iterator[Server]:
    """`settings`: of `primectl serve-prm`, as `key=value`. The models are written into `folder`."""
    for name, seed in (("prm", 1), ("reference", 2)):
        write_tiny_model(folder / name, seed=seed, context=4096)
    grpc, ops = free_ports(2)
    command = [sys.executable, "-m", "primectl", "serve-prm", str(folder / "prm")]
    command += ["--reference", str(folder / "reference"), f"listen=127.0.0.1:{grpc}", f"ops_listen=127.0.0.1:{ops}"]
    command += settings
    environment = {**os.environ, "PRIME_TOKEN": KEY}  # noqa: TID251  handed on to the service
    log = (folder / "log").open("w")
    with log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
        try:
            url = f"http://127.0.0.1:{ops}"
            _wait_until_up(url, process)
            yield Server(url=url, pid=process.pid)
        finally:
            process.terminate()


def _wait_until_up(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health").status_code == 200:
                return
        time.sleep(0.2)
    raise SystemExit("the scoring service did not start")
