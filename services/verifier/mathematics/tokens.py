"""A cursor over tokens, for the readers that go through a text by recursive descent. Pure."""

from collections.abc import Sequence


class Tokens:
    """Tokens and how far they are read: `Tokens(["1", "+", "2"])`."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tokens
        self._next = 0

    def peek(self) -> str:
        """The next token; empty at the end."""
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def take(self) -> str:
        """The next token, and go past it."""
        token = self.peek()
        self._next += 1
        return token

    def put_back(self) -> None:
        """Go back by one."""
        self._next -= 1

    @property
    def are_read(self) -> bool:
        """Whether none is left."""
        return self._next >= len(self._tokens)
