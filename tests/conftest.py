"""A Redis of the tests' own, from the same binary that `primectl up` starts."""

import subprocess
import time
from collections.abc import Iterator

import pytest
import redis

from primectl.places import free_port
from primectl.redis_server import find_redis_server, write_config


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    config = write_config(tmp_path_factory.mktemp("redis"), port=port, password="secret")
    server = subprocess.Popen([str(find_redis_server()), str(config)], stdout=subprocess.DEVNULL)
    url = f"redis://:secret@127.0.0.1:{port}/0"
    try:
        _wait_until_up(url)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=10)


def _wait_until_up(url: str) -> None:
    deadline = time.monotonic() + 20
    with redis.Redis.from_url(url) as client:
        while True:
            try:
                client.ping()
                return
            except redis.exceptions.RedisError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
