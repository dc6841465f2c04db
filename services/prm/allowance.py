"""What a key may still ask for: requests by a token bucket, scored tokens by the day. Kept in memory."""

from dataclasses import dataclass

_DAY_S = 86_400.0


@dataclass(slots=True)
class RequestBucket:
    """Holds as many requests as a key has per minute, and fills evenly.

    Example: of 60 per minute, 60 may come at once, and then one every second.
    """

    used: float = 0.0
    """Requests that are missing from a full bucket."""
    at_s: float = 0.0
    """When `used` was right."""

    def wait_s(self, per_minute: int, now_s: float) -> float:
        """Take one request out, and give 0; or seconds until there is one, and take none."""
        # A clock that was set back fills nothing and takes nothing.
        filled = max(now_s - self.at_s, 0.0) * per_minute / 60
        self.used, self.at_s = max(self.used - filled, 0.0), now_s
        over = self.used + 1 - per_minute
        if over > 1e-9:  # rounding
            return over * 60 / per_minute
        self.used += 1
        return 0.0


@dataclass(slots=True)
class DayCount:
    """Tokens that were scored for a key on the present day of UTC."""

    day: int = 0
    """Days since the epoch."""
    tokens: int = 0

    def add(self, tokens: int, now_s: float) -> None:
        """Count what was scored; `now_s` in seconds since the epoch."""
        self._turn_page(now_s)
        self.tokens += tokens

    def wait_s(self, per_day: int, now_s: float) -> float:
        """0 while fewer than `per_day` tokens were scored; else seconds until the day ends."""
        self._turn_page(now_s)
        return 0.0 if self.tokens < per_day else (self.day + 1) * _DAY_S - now_s

    def _turn_page(self, now_s: float) -> None:
        day = int(now_s // _DAY_S)
        if day != self.day:
            self.day, self.tokens = day, 0
