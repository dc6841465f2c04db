"""Seeds that follow from names, so that what is drawn does not depend on what was drawn before."""

import hashlib


def stable_hash(*parts: object) -> int:
    """A 63-bit number that is the same in every process: `hash()` of text is not."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
