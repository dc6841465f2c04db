"""What a body may hold, found before it is read as JSON.

Reading JSON and validating it hold up everybody else: both run in the event loop's thread or keep its lock. A megabyte
of one-character values costs seconds there, and a megabyte of text a millisecond. So it is values that are bounded.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

from fastapi import Request

from prime.errors import BatchTooLarge, InvalidInput
from prime.prm_api import MOST_VALUES

_STRUCTURE = (b",", b"[", b"{")
_TEXT_OR_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*+"|[,\[{]', re.DOTALL)
_HALF_A_CHARACTER = re.compile(rb"\\u[dD][89abAB]")


class BoundedRequest(Request):
    """A request whose body is looked through before it is read as JSON."""

    async def json(self) -> Any:
        """The body's value.

        Raises:
            BatchTooLarge: it has more than `MOST_VALUES` values.
            InvalidInput: a text in it holds half a character, which nobody can encode.
            json.JSONDecodeError: it is no JSON.
        """
        if not hasattr(self, "_json"):
            body = await self.body()
            if await _has_too_many(body):
                raise BatchTooLarge(f"the body has more than {MOST_VALUES} values; split the request")
            value = json.loads(body)
            if _HALF_A_CHARACTER.search(body) and not _can_be_encoded(value):
                raise InvalidInput("a text in the body holds half of a character, a lone surrogate")
            self._json = value
        return self._json


async def _has_too_many(body: bytes) -> bool:
    if sum(map(body.count, _STRUCTURE)) < MOST_VALUES:
        return False
    # Perhaps most of them are inside of texts.
    return await asyncio.to_thread(_exceeds, _structure(body), MOST_VALUES)


def _structure(body: bytes) -> Iterator[None]:
    """One for every comma, list and object outside of texts; a value follows each of them."""
    for match in _TEXT_OR_STRUCTURE.finditer(body):
        if not match[0].startswith(b'"'):
            yield None


def _exceeds(items: Iterator[None], most: int) -> bool:
    return any(number >= most for number, _ in enumerate(items, start=1))


def _can_be_encoded(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
