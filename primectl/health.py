"""`primectl health`: is a service alive, or ready? For a container's health check, which has no shell and no curl."""

import http.client
import urllib.error
import urllib.request

from prime.errors import PeerUnavailable

_SECONDS = 3.0


def check_health(url: str) -> int:
    """0 when the page answers 200.

    Raises:
        PeerUnavailable: it does not, or answers something else.
    """
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
            print(answer.read().decode())
            return 0
    except urllib.error.HTTPError as error:
        raise PeerUnavailable(f"{url} answered {error.code}: {error.read(200).decode(errors='replace')}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise PeerUnavailable(f"{url} does not answer: {error}") from None
