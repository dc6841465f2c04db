"""A PRM with a reward head, which is served and never trained: `prime/lm/heads.py` reads it.

A step head gives a reward at every mark, a sequence head at the last token; every other token has 0.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import structlog

from prime.data.rendering import places_of
from prime.errors import CheckpointError, InvalidInput, SettingsError
from prime.lm.heads import HeadLM, kind_of, read_head_config
from prime.lm.model import load_tokenizer, pick_device, tokenizer_fingerprint
from prime.lm.packing import TokenRow
from prime.lm.world import World
from prime.scoring import PrmKind
from prime.types import PrmGroup, PrmMetrics, ReferenceSource
from services.prm.reward import IsWanted, ScoredRows
from services.prm.reward_model import DTYPES
from services.prm.settings import PrmSettings

_log = structlog.get_logger()


class HeadPrm:
    """Implements `reward.Prm`; `learn`, `begin_save` and `restore` are refused."""

    reference_id = "none"
    beta = 1.0
    """Rewards are log-odds, and nothing scales them."""

    def __init__(self, settings: PrmSettings, *, start: Path, world: World | None = None) -> None:
        """Load the PRM from `settings.model` or `start`.

        Raises:
            CheckpointError: the folder holds no decoder with a head that is known.
            SettingsError: it is to be trained, to have a reference or a beta, or to be held by several processes.
        """
        folder = settings.model or start
        self.kind = kind_of(folder)
        _refuse_settings(settings, self.kind, world or World())
        self.tokenizer = load_tokenizer(folder)
        self.fingerprint = tokenizer_fingerprint(self.tokenizer)
        self.config = read_head_config(folder, self.kind, self.tokenizer)
        self._mark_ids = tuple(self.tokenizer(self.config.step_mark, add_special_tokens=False)["input_ids"])
        if self.kind is PrmKind.STEP_HEAD and not self._mark_ids:
            raise CheckpointError(f"{folder}: the step mark {self.config.step_mark!r} encodes to no token")
        self._lm = HeadLM(folder, device=pick_device(settings.device), dtype=DTYPES[settings.dtype])
        if self._lm.slow_because:
            _log.warning("rows are computed one by one", because=self._lm.slow_because)
        self._token_budget = settings.token_budget
        self.version = int(self.config.trained_with.get("updates", 0))

    @property
    def max_positions(self) -> int:
        """Tokens of the longest sequence that the PRM reads."""
        return self._lm.max_positions

    @property
    def scores_side_by_side(self) -> bool:
        """Whether two passes may be under way."""
        return not self._lm.changes_as_it_reads

    def score(
        self, groups: Sequence[PrmGroup], *, reuse: bool = False, is_wanted: IsWanted | None = None
    ) -> ScoredRows:
        """Token rewards of every sample; `reuse` changes nothing, as there is no reference to ask.

        Raises:
            InvalidInput: a group names a reference.
            TookTooLong: `is_wanted` said between two passes that nobody waits any more.
        """
        if any(group.reference not in (None, ReferenceSource.NONE) for group in groups):
            raise InvalidInput(f"this PRM is a {self.kind.value}: its rewards are no log-ratios to a reference")
        rows = [
            TokenRow(prompt_ids=group.prompt_ids, response_ids=response)
            for group in groups
            for response in group.responses
        ]
        found = self._lm.score_rows(rows, token_budget=self._token_budget, is_wanted=is_wanted or (lambda: True))
        rewards = [self._rewards(row, log_odds_T.tolist()) for row, log_odds_T in zip(rows, found, strict=True)]
        return ScoredRows(rewards=rewards, reference_cached=[False] * len(rows))

    def learn(self, groups: Sequence[PrmGroup], outcomes: Sequence[float]) -> PrmMetrics:
        """Refused."""
        self._refuse()

    def begin_save(self, folder: Path) -> NoReturn:
        """Refused."""
        self._refuse()

    def restore(self, folder: Path | None) -> None:
        """Refused."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InvalidInput(f"this PRM is a {self.kind.value}: it scores, and learns nothing here")

    def _rewards(self, row: TokenRow, log_odds: Sequence[float]) -> list[float]:
        ids = row.response_ids
        rewards = [0.0] * len(ids)
        if self.kind is PrmKind.STEP_HEAD:
            for place in places_of(ids, self._mark_ids):
                rewards[place] = log_odds[place]
        else:
            # As transformers does: the last token that is no padding is read.
            last = max((place for place, token in enumerate(ids) if token != self._lm.pad_token_id), default=-1)
            rewards[-1] = log_odds[last]
        return rewards


def _refuse_settings(settings: PrmSettings, kind: PrmKind, world: World) -> None:
    what = f"the PRM's folder holds a {kind.value}"
    if not settings.frozen:
        raise SettingsError(f"{what}, which is served and not trained: set prm.frozen")
    if settings.reference_mode != "none" or settings.reference is not None:
        raise SettingsError(f"{what}, whose rewards are no log-ratios: set prm.reference_mode to 'none'")
    if settings.beta is not None:
        raise SettingsError(f"{what}, whose rewards are log-odds: leave prm.beta empty")
    if world.size > 1:
        raise SettingsError(f"{what}, which one process holds: set prm.processes to 1")
