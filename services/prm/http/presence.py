"""Runs a request for as long as somebody waits for it: until it is answered, its client has gone, or its time is over.
Plain ASGI.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from enum import Enum, auto
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Ending(Enum):
    """How a request ended."""

    ANSWERED = auto()
    LEFT = auto()
    """Its client has gone, and its work was cancelled."""
    LATE = auto()
    """Its time was over, its work was cancelled, and nothing was sent."""
    BROKEN_OFF = auto()
    """As late, and a part of the answer was sent."""


async def run_while_wanted(app: App, scope: Scope, receive: Receive, send: Send, *, seconds: float | None) -> Ending:
    """Run a request; `seconds` after it came nobody waits for it any more (None: for ever).

    Raises whatever the app raises.
    """
    body_read = asyncio.Event()
    begun = answered = False

    async def receive_and_see() -> Message:
        message = await receive()
        if not message.get("more_body", False):
            body_read.set()
        return message

    async def send_and_see(message: Message) -> None:
        nonlocal begun, answered
        begun = True
        answered = message["type"] == "http.response.body" and not message.get("more_body", False)
        await send(message)

    async def leave() -> None:
        # What comes after the body can only be that the client has left, or has its answer.
        await body_read.wait()
        while (await receive())["type"] != "http.disconnect":
            pass

    working = asyncio.ensure_future(app(scope, receive_and_see, send_and_see))
    leaving = asyncio.ensure_future(leave())
    try:
        await asyncio.wait((working, leaving), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if working.done() or answered:
            await working
            return Ending.ANSWERED
        if leaving.done():
            return Ending.LEFT
        return Ending.BROKEN_OFF if begun else Ending.LATE
    finally:
        leaving.cancel()
        working.cancel()
