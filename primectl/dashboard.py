"""`primectl dashboard`: a page in the browser that shows how the runs in a folder go."""

import asyncio
import signal
from pathlib import Path

from prime.adapters.dashboard import dashboard_routes
from prime.adapters.ops_http import OpsServer, ops_app
from prime.adapters.telemetry import Meters
from prime.errors import SettingsError

_GRACE_S = 2.0


def run_dashboard(*, folder: Path, listen: str) -> int:
    """Serve until stopped by SIGTERM or SIGINT.

    Raises:
        SettingsError: the address cannot be bound.
    """
    app = ops_app("dashboard", lambda: True, Meters().registry, dashboard_routes(folder))
    print(f"runs in {folder} at http://{listen}", flush=True)
    asyncio.run(_serve(OpsServer(app, listen, grace_seconds=_GRACE_S), listen))
    return 0


async def _serve(server: OpsServer, listen: str) -> None:
    def stop() -> None:
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop)
    try:
        await server.serve()
    except SystemExit:  # uvicorn's way to say that it cannot bind
        raise SettingsError(f"cannot listen on {listen}: taken or not allowed") from None
