"""Token rewards asked for as soon as a group is kept, so that scoring hides behind generation."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from prime.errors import PrimeError, VersionConflict
from prime.ports import RewardModel
from prime.types import GradedGroup, PrmGroup, TokenRewards, prm_view
from services.trainer.timeline import Timeline


@dataclass(frozen=True, slots=True)
class _Scored:
    view: PrmGroup
    """What was scored: a prompt that is asked again after its group grew stale has the same id and other responses."""
    rows: tuple[tuple[float, ...], ...]
    prm_version: int


class RewardsAhead:
    """Holds the rewards of groups that are not used yet; a batch's rewards all come from one PRM version.

    What an older version scored is scored again, unless it lags by no more than allowed and the whole batch agrees.
    """

    def __init__(self, reward_model: RewardModel, *, max_lag: int, batch_size: int, timeline: Timeline) -> None:
        """`max_lag`: by how many updates the PRM that scored a batch may be behind; 0: it is always the newest.

        `batch_size` groups are scored early: with a batch together, the PRM learns before the next ones are due.
        """
        self._batch_size = batch_size
        self._reward_model = reward_model
        self._max_lag = max_lag
        self._timeline = timeline
        self._waiting: list[GradedGroup] = []
        self._scored: dict[str, _Scored] = {}
        self._worker: asyncio.Task[None] | None = None
        self._beta, self._reference_id = 0.0, ""
        self.is_open = False
        """Whether groups are scored when they are offered, or only when the batch is asked for."""

    def offer(self, graded: GradedGroup) -> None:
        """This group may be part of a batch soon."""
        if self.is_open:
            self._waiting.append(graded)
            self.go_on()

    def go_on(self) -> None:
        """Score what waits, up to a batch. To be called when a batch was taken and the PRM was asked to learn it."""
        if self._waiting and (self._worker is None or self._worker.done()):
            self._worker = asyncio.create_task(self._score_what_waits())

    async def of(self, views: Sequence[PrmGroup], *, prm_version: int) -> TokenRewards:
        """Rewards of the whole batch, from the PRM at `prm_version` or, where that is allowed, one a little older.

        Raises:
            VersionConflict: the PRM that answers is at another version.
        """
        if self._worker is not None:
            await self._worker
        ids = [view.group_id for view in views]
        self._waiting = [graded for graded in self._waiting if graded.group.group_id not in set(ids)]
        found = {view.group_id: scored for view in views if (scored := self._take(view)) is not None}
        # What has become too old since is of no use to any batch, and would take the place of others.
        oldest = prm_version - self._max_lag
        self._scored = {each: scored for each, scored in self._scored.items() if scored.prm_version >= oldest}
        versions = {scored.prm_version for scored in found.values()}
        is_usable = len(versions) == 1 and oldest <= min(versions) <= prm_version
        usable = found if is_usable and (len(found) == len(ids) or versions == {prm_version}) else {}
        missing = [view for view in views if view.group_id not in usable]
        if missing:
            usable |= await self._score(missing)
            for scored in usable.values():
                check_prm_version(scored.prm_version, expected=prm_version)
        return TokenRewards(
            rows=tuple(row for each in ids for row in usable[each].rows),
            prm_version=usable[ids[0]].prm_version,
            beta=self._beta,
            reference_id=self._reference_id,
        )

    def _take(self, view: PrmGroup) -> _Scored | None:
        """What was scored early of this very group."""
        scored = self._scored.pop(view.group_id, None)
        return scored if scored is not None and scored.view == view else None

    def forget(self, group_ids: Sequence[str]) -> None:
        """Groups that will not be used after all."""
        for each in group_ids:
            self._scored.pop(each, None)

    async def _score_what_waits(self) -> None:
        while self._waiting and (room := self._batch_size - len(self._scored)) > 0:
            batch, self._waiting = self._waiting[:room], self._waiting[room:]
            try:
                self._scored |= await self._score(prm_view(batch))
            except PrimeError:
                return  # asked again when the batch is due, where an error ends the run

    async def _score(self, views: Sequence[PrmGroup]) -> dict[str, _Scored]:
        with self._timeline.working("prm"):
            rewards = await self._reward_model.score(views)
        self._beta, self._reference_id = rewards.beta, rewards.reference_id
        rows = iter(rewards.rows)
        return {
            view.group_id: _Scored(view, tuple(next(rows) for _ in view.responses), rewards.prm_version)
            for view in views
        }


def check_prm_version(answered: int, *, expected: int) -> None:
    """The PRM counts its updates; so does the run.

    Raises:
        VersionConflict: the two counts differ.
    """
    if answered != expected:
        raise VersionConflict(
            f"the PRM answered with version {answered}, this run expects {expected}: the service was restarted, or "
            f"another trainer uses it; start again with --resume"
        )
