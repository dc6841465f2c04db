"""`python -m benchmarks.prm_load_hostile URL COUNT` sends hostile bodies one by one, and prints the statuses."""

import sys

import httpx

from benchmarks.prm_load import hostile_bodies
from benchmarks.prm_server import KEY


def main() -> None:
    """Send them."""
    url, count = sys.argv[1], int(sys.argv[2])
    bodies = hostile_bodies()
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    with httpx.Client(base_url=url, headers=headers, timeout=300) as client:
        for number in range(count):
            route, body = bodies[number % len(bodies)]
            print(client.post(route, content=body).status_code)


if __name__ == "__main__":
    main()
