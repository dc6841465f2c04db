"""Ratios of any length, and times of the day, which look like them. Pure; used by `proportions.py`.

`1:2:3` is `2:4:6`, and `2:30` is a time: it is not `1:15`. Data sets reduce their ratios, so `6:12` is a time too.
`7:32` may be either; then both readings have to agree.
"""

import math
import re
from dataclasses import dataclass

from services.verifier.mathematics.brackets import closes_at_end, split_outside
from services.verifier.mathematics.text import without_separators

_MOST_PARTS = 12
_CLOCK = re.compile(
    r"(?P<hours>\d{1,2})(?::(?P<minutes>[0-5]\d))?(?::(?P<seconds>[0-5]\d))?(?:o'?clock)?"
    r"(?P<half>[ap]m|noon|midnight|inthe(?:morning|afternoon|evening))?",
    re.ASCII,
)
_HALVES = {"am": "am", "midnight": "am", "inthemorning": "am"}
_LAYOUT = re.compile(r"\\(?:text|mathrm)|[{}.\s~]")
_NAMED_HOURS = {"noon": (12, "pm"), "midnight": (12, "am")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """`1:\\sqrt{3}:2` is `Ratio(parts=("1", "\\sqrt{3}", "2"))`."""

    parts: tuple[str, ...]


def read_ratio(text: str) -> Ratio | None:
    """Parts between colons outside of brackets."""
    if ":" not in text:
        return None
    text = without_separators(text)
    if text.startswith("(") and closes_at_end(text):
        text = text[1:-1]
    parts = tuple(part.strip() for part in split_outside(text, ":"))
    if not 2 <= len(parts) <= _MOST_PARTS or not all(parts):
        return None
    return Ratio(parts=parts) if not any(re.search(r"[=<>,;]", part) for part in parts) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """`2:30 p.m.` is `Clock(hours=2, minutes=30, seconds=0, half="pm", may_be_ratio=False)`."""

    hours: int
    minutes: int
    seconds: int
    half: str
    """`am`, `pm`, or empty where it is not said."""
    may_be_ratio: bool

    def same_time(self, other: "Clock") -> bool:
        """Whether both may be the same time; half a day that only one of them names may be left out."""
        if (self.minutes, self.seconds) != (other.minutes, other.seconds):
            return False
        if self.half and other.half:
            return self._hour_of_day() == other._hour_of_day()
        if self.half or other.half:
            named, plain = (self, other) if self.half else (other, self)
            return plain.hours in (named.hours, named._hour_of_day())
        return self.hours == other.hours

    def _hour_of_day(self) -> int:
        if self.half == "pm" and self.hours < 12:
            return self.hours + 12
        return 0 if self.half == "am" and self.hours == 12 else self.hours


def read_clock(text: str) -> Clock | None:
    """A time of the day, or a duration in hours and minutes: minutes have two digits, or half a day is named."""
    if len(text) > 60:
        return None
    plain = _LAYOUT.sub("", text).lower()
    if plain in _NAMED_HOURS:
        hours, half = _NAMED_HOURS[plain]
        return Clock(hours=hours, minutes=0, seconds=0, half=half, may_be_ratio=False)
    match = _CLOCK.fullmatch(plain)
    if match is None or not (match.group("minutes") or match.group("half") or plain.endswith("clock")):
        return None
    hours, minutes, seconds = (int(match.group(name) or 0) for name in ("hours", "minutes", "seconds"))
    is_bare = match.group("half") is None and plain.replace(":", "").isdigit()
    if hours > 24 or (is_bare and match.group("seconds") and not re.search(r"\b0", plain)):
        return None  # three numbers are a ratio, unless one of them is filled up with a zero
    return Clock(
        hours=hours,
        minutes=minutes,
        seconds=seconds,
        half=_HALVES.get(match.group("half"), "pm") if match.group("half") else "",
        may_be_ratio=is_bare and minutes >= 10 and math.gcd(hours, minutes) == 1 and not match.group("seconds"),
    )
