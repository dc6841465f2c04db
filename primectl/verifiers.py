"""The verifier that a command asks: a running one, or one of its own."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prime.adapters.settings import read_token
from prime.ports import GroupingVerifier
from prime.types import GradeItem, Verdict, VerifierInfo
from services.verifier.answers import AnswerGroups
from services.verifier.settings import VerifierSettings

if TYPE_CHECKING:
    from services.verifier.grade import Grader

_CALL_SECONDS, _PATIENCE_S = 3600.0, 30.0


class _LocalVerifier(AnswerGroups):
    """A grader of this process."""

    def __init__(self, grader: "Grader") -> None:
        super().__init__(grader)
        self._local = grader

    async def grade(self, items: Sequence[GradeItem]) -> list[Verdict]:
        return await self._local.grade(items)

    async def info(self) -> VerifierInfo:
        return await self._local.info()


@contextlib.asynccontextmanager
async def open_verifier_of(
    address: str, token_file: Path | None, settings: VerifierSettings, command: str
) -> AsyncIterator[GroupingVerifier]:
    """The one at `address`; without one, a verifier in this process, with `settings`. `command` names it in logs.

    Raises:
        SettingsError: an address is given and no token.
        SandboxError: the sandbox cannot be had here as `settings.min_tier` wants it.
    """
    if address:
        from prime.adapters.grpc_clients import GrpcVerifier

        client = GrpcVerifier(address, read_token(token_file), deadline_s=_CALL_SECONDS, patience_s=_PATIENCE_S)
        try:
            yield client
        finally:
            await client.close()
        return
    from prime.adapters.telemetry import Meters, configure_logging
    from services.verifier.main import open_verifier

    configure_logging(command)
    async with open_verifier(settings, Meters()) as parts:
        yield _LocalVerifier(parts.grader)
