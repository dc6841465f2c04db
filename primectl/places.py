"""Where the services of a run on this machine are: loopback ports, and peers that point at them."""

import itertools
import os
import socket
from contextlib import suppress
from itertools import islice

from prime.adapters.settings import ServiceSettings
from prime.errors import SettingsError
from primectl.config import RunConfig

# Below what Linux gives to outgoing connections (net.ipv4.ip_local_port_range).
_LOWEST_PORT, _NUM_PORTS = 20000, 12000
_ports_tried = itertools.count()


def resolve_locally(config: RunConfig, *, num_rollouts: int, redis_url: str) -> RunConfig:
    """Free loopback ports wherever the settings file names none, and peers that point at them."""
    tree = config.model_dump()
    tree["run"]["redis_url"] = redis_url
    # Taken together, so that no two are the same: four services of two ports each, and the other replicas.
    ports = iter(free_ports(8 + num_rollouts - 1))
    for section in ("trainer", "rollout", "prm", "verifier"):
        given: ServiceSettings = getattr(config, section)
        for key in ("listen", "ops_listen"):
            if key not in given.model_fields_set:
                tree[section][key] = f"127.0.0.1:{next(ports)}"
    more = [f"127.0.0.1:{next(ports)}" for _ in range(num_rollouts - 1)]
    tree["trainer"]["peers"] |= {
        "rollout": (tree["rollout"]["listen"], *more),
        "prm": tree["prm"]["listen"],
        "verifier": tree["verifier"]["listen"],
    }
    return RunConfig.model_validate(tree)


def free_port() -> int:
    """A loopback port that nobody listened on a moment ago."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Different loopback ports that nobody listened on a moment ago.

    Not those that the system would give: it gives them to outgoing connections as well, and one may come before the
    service that the port is for. Each process begins at another place, and none is given twice.
    """
    found: list[int] = []
    for number in islice(_ports_tried, _NUM_PORTS):
        port = _LOWEST_PORT + (64 * os.getpid() + number) % _NUM_PORTS
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise SettingsError(f"no {count} loopback ports are free from {_LOWEST_PORT} on; set `listen` and `ops_listen`")
