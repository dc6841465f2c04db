"""Who may ask: the token that the services share, and the keys of a file. Asked by both edges, over HTTP and gRPC.

The file is looked at when a request comes, at most once a second, and read again when it has changed. One that cannot
be used leaves the keys that are in force. What a key has used is kept in memory, by its name.
"""

import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import structlog

from prime.adapters.telemetry import Meters
from prime.errors import Forbidden, LimitReached, PrimeError, SettingsError, Unauthenticated
from services.prm import metric_specs
from services.prm.allowance import DayCount, RequestBucket
from services.prm.callers import Caller, current_caller
from services.prm.key_file import SERVICES, Key, Scope, digest_of, read_keys

_LOOK_SECONDS = 1.0
_log = structlog.get_logger()

_Stamp = tuple[int, int, int]
"""Of a file: when it was changed, its inode and its size."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """`reason` is a label of the metrics."""

    reason: Literal["scope", "priority", "requests", "tokens"]
    error: PrimeError


@dataclass(slots=True)
class _Used:
    """What one key has used."""

    requests: RequestBucket = field(default_factory=RequestBucket)
    tokens: DayCount = field(default_factory=DayCount)


class Keys:
    """The keys in force, and what was asked for with each."""

    def __init__(
        self, token: str, *, meters: Meters, file: Path | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """`file`: None: the shared token alone. `clock`: seconds since the epoch.

        Raises:
            SettingsError: the file cannot be used.
        """
        shared = Key(sha256=digest_of(token), scopes=frozenset(Scope), priority=True)
        self._shared = {SERVICES: shared}
        self._file = file
        self._clock = clock
        self._looked_s = clock()
        self._stamp = _stamp_of(file)
        self._keys: Mapping[str, Key] = self._shared if file is None else self._read(file)
        self._used = {name: _Used() for name in self._keys}
        self._requests = meters.counter(metric_specs.KEY_REQUESTS)
        self._tokens = meters.counter(metric_specs.KEY_TOKENS)
        self._refused = meters.counter(metric_specs.KEY_REFUSED)
        self._stale = meters.gauge(metric_specs.KEY_FILE_STALE)

    def admit(self, presented: str, scope: Scope | None, *, urgent: bool = False) -> Caller:
        """Who asks with this key, for something that `scope` opens (None: any key); one request of theirs is counted.

        Raises:
            Unauthenticated: nobody's key.
            Forbidden: the key lacks the scope, or the priority that is asked for.
            LimitReached: its requests of this minute or its tokens of this day are used up.
        """
        self._look()
        name, key = self._holder_of(presented)
        refusal = _missing_right(name, key, scope, urgent=urgent) or self._reached_limit(name, key, scope)
        if refusal is not None:
            self._refused.labels(name, refusal.reason).inc()
            raise refusal.error
        self._requests.labels(name).inc()
        return Caller(name=name, share=key.share, is_urgent=urgent)

    def charge(self, tokens: int) -> None:
        """Count tokens that were scored for the caller of the running request."""
        name = current_caller().name
        self._tokens.labels(name).inc(tokens)
        if name in self._used:
            self._used[name].tokens.add(tokens, self._clock())

    def _holder_of(self, presented: str) -> tuple[str, Key]:
        digest = digest_of(presented)
        # All are compared, each in constant time.
        found = [item for item in self._keys.items() if hmac.compare_digest(item[1].sha256, digest)]
        if not found or not presented:
            others = "" if self._file is None else ", or with one of the file `prm.api.keys`"
            raise Unauthenticated(
                f"the API key is missing or wrong: send `Authorization: Bearer KEY`, with the key that the service "
                f"printed at its start or took from PRIME_TOKEN{others}"
            )
        return found[0]

    def _reached_limit(self, name: str, key: Key, scope: Scope | None) -> _Refusal | None:
        """None where there is room; one request is then taken out of the bucket."""
        now_s, used = self._clock(), self._used[name]
        scores = scope in (Scope.SCORE, Scope.CHAT)
        if key.tokens_per_day and scores and (wait_s := used.tokens.wait_s(key.tokens_per_day, now_s)):
            return _Refusal(
                "tokens",
                LimitReached(
                    f"the key {name!r} has used its {key.tokens_per_day} tokens of this day (tokens_per_day); they are "
                    f"renewed in {wait_s:.0f} s, at midnight UTC",
                    retry_after_s=wait_s,
                ),
            )
        if key.requests_per_minute and (wait_s := used.requests.wait_s(key.requests_per_minute, now_s)):
            return _Refusal(
                "requests",
                LimitReached(
                    f"the key {name!r} has used its {key.requests_per_minute} requests per minute "
                    f"(requests_per_minute); the next may come in {wait_s:.1f} s",
                    retry_after_s=wait_s,
                ),
            )
        return None

    def _look(self) -> None:
        """Read the file again if it has changed since it was read last."""
        if self._file is None or abs(self._clock() - self._looked_s) < _LOOK_SECONDS:
            return
        self._looked_s = self._clock()
        stamp = _stamp_of(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = self._read(self._file)
        except SettingsError as error:
            self._stale.set(1)
            _log.error("the key file cannot be used; the keys read before stay in force", detail=str(error))
            return
        self._stale.set(0)
        self._used = {name: self._used.get(name, _Used()) for name in self._keys}
        _log.info("keys were read", file=str(self._file), keys=sorted(self._keys))

    def _read(self, file: Path) -> Mapping[str, Key]:
        keys = read_keys(file)
        for name, key in keys.items():
            if key.sha256 == self._shared[SERVICES].sha256:
                raise SettingsError(
                    f"key file {file}, key {name!r}: this is the token that the services share, and it opens "
                    f"everything; make another key (`primectl new-key`)"
                )
        return {**self._shared, **keys}


def _missing_right(name: str, key: Key, scope: Scope | None, *, urgent: bool) -> _Refusal | None:
    if scope is not None and scope not in key.scopes:
        has = ", ".join(sorted(key.scopes))
        return _Refusal("scope", Forbidden(f"the key {name!r} lacks the scope {scope.value!r} (it has: {has})"))
    if urgent and not key.priority:
        return _Refusal(
            "priority",
            Forbidden(f"the key {name!r} may not send `X-Priority: high` (priority = true allows it); leave it out"),
        )
    return None


def _stamp_of(file: Path | None) -> _Stamp | None:
    """None where there is no such file."""
    try:
        found = file.stat() if file is not None else None
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ino, found.st_size) if found is not None else None
