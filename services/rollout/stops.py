"""Strings that end a response."""

from collections.abc import Sequence
from typing import Any

# A character may take several tokens, but no token of a text is empty for long.
_TOKENS_MORE = 8


class StopStrings:
    """Finds the token that completes a stop string. Example: after "56\\n" comes "\\nQ", and the stop is "\\n\\n"."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def is_complete(self, ids: Sequence[int], stops: Sequence[str]) -> bool:
        """Whether one of them is in the text, given that it was not without the last token."""
        tail = ids[-(max(map(len, stops)) + _TOKENS_MORE) :]
        text = self._tokenizer.decode(tail)
        return any(stop in text for stop in stops)

    def length(self, ids: Sequence[int], stops: Sequence[str]) -> int | None:
        """How many tokens there are up to the one that completes the first; None: none is complete."""
        lengths = range(1, len(ids) + 1) if stops else ()
        return next((length for length in lengths if self.is_complete(ids[:length], stops)), None)
