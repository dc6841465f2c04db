"""`primectl new-key`: an API key for its holder, and the table of it for the file `prm.api.keys`."""

import json
import secrets
import sys

from services.prm.key_file import digest_of, keys_of


def run_new_key(name: str, *, scopes: str) -> int:
    """The table goes to stdout, to be appended to the file; the key goes to stderr, and is kept nowhere.

    Raises:
        SettingsError: the name or a scope is not one that the file may have.
    """
    key = secrets.token_urlsafe(32)
    table = {"sha256": digest_of(key), "scopes": [each.strip() for each in scopes.split(",")]}
    keys_of({name: table}, origin="primectl new-key")
    print(f"key of {name}, shown this once: {key}", file=sys.stderr, flush=True)
    print(f"[{name}]", *(f"{field} = {json.dumps(value)}" for field, value in table.items()), "", sep="\n")
    return 0
