"""Opens the scorer that a command asks: a folder in this process, or a service by its URL."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prime.adapters.settings import read_token
from prime.errors import SettingsError
from prime.ports import Scorer

_CALL_SECONDS, _PATIENCE_S = 600.0, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerOptions:
    """Which scorer a command was told to ask: `ScorerOptions(model=Path("prm"), reference="sft")`."""

    model: Path | None = None
    reference: str | None = None
    address: str = ""
    token_file: Path | None = None
    overrides: Sequence[str] = ()


@contextlib.asynccontextmanager
async def open_scorer(options: ScorerOptions) -> AsyncIterator[Scorer]:
    """A scorer for the time of the block.

    Raises:
        SettingsError: neither or both of a folder and an address are given.
    """
    if bool(options.address) == (options.model is not None):
        raise SettingsError("give either --model FOLDER (with --reference) or --address URL of a scoring service")
    if options.address:
        from prime.adapters.http_scorer import HttpScorer
        from prime.client import AsyncPrmClient

        key = read_token(options.token_file)
        async with AsyncPrmClient(options.address, key, timeout_s=_CALL_SECONDS, patience_s=_PATIENCE_S) as client:
            yield HttpScorer(client)
        return
    from primectl.serve_prm import prm_settings
    from services.prm.main import open_scorer as open_local

    model = options.model or Path()
    yield open_local(prm_settings(model, options.reference, options.overrides), model=model)
