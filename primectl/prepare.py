"""`primectl prepare`: what has to be there before the containers of a run start: secrets, and the demo's material."""

import os
import secrets
import shutil
from pathlib import Path

from prime.adapters.settings import given_token, redis_password
from prime.errors import SettingsError

_READABLE = 0o640  # by the group: Redis runs as a user of its own


def run_prepare(*, token: Path | None, redis: Path | None, demo: Path | None) -> int:
    """Write what is asked for and not there yet; a second call changes nothing, unless another secret is given.

    `token`: the bearer token, as given in the environment, else a new one. `redis`: a folder for Redis' password and
    access list. `demo`: the demo's problems and SFT checkpoint.

    Raises:
        SettingsError: nothing was asked for, or a folder cannot be written to.
    """
    if token is None and redis is None and demo is None:
        raise SettingsError("nothing to prepare: give --token-file, --redis or --demo")
    try:
        if token is not None:
            _settle(token, given=given_token())
        if redis is not None:
            _settle(redis / "password", given=redis_password())
            _write(redis / "users.acl", _access_list((redis / "password").read_text().strip()))
    except OSError as error:
        raise SettingsError(f"cannot prepare: {error}") from None
    if demo is not None and not demo.exists():
        from primectl.demo import make_material
        from primectl.display import Display

        # Moved into place when it is whole: what was interrupted is made anew.
        partial = demo.with_name(f"{demo.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        make_material(Display(), partial)
        partial.rename(demo)
    return 0


def _access_list(password: str) -> str:
    """One user for the services, for their keys and without administration; another who may ask whether it lives."""
    return (
        "user default off resetpass\n"
        "user health on nopass resetkeys resetchannels -@all +ping\n"
        f"user prime on >{password} ~prime:* resetchannels +@all -@admin -@dangerous\n"
    )


def _settle(path: Path, *, given: str) -> None:
    """The secret that is given, else the one that is there, else a new one."""
    there = path.read_text().strip() if path.is_file() else ""
    if there and given in ("", there):
        print(f"{path}: kept")
        return
    _write(path, given or secrets.token_hex(16))
    print(f"{path}: written")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _READABLE), "w") as file:
        file.write(text + "\n" if not text.endswith("\n") else text)
