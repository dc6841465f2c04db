"""Variable-length sequences laid end to end, without padding, in micro-batches under a token budget.

A prompt with several responses is computed once: the responses branch off it (compare PrefixGrouper, arXiv 2506.05433).
Shapes: S sequences in a pack, N tokens in a pack, L the longest sequence, R response tokens in a pack.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prime.types import TokenSpan, written_places


@dataclass(frozen=True, slots=True, kw_only=True)
class Branches:
    """Responses that share a prompt which lies elsewhere in the pack. B branches, Q the longest, K keys.

    Each branch attends to all of its prompt and causally to itself.
    """

    queries_BQ: Tensor
    """Where each branch's tokens lie in the pack; short branches repeat their last slot."""
    keys_BK: Tensor
    """The prompt's slots, padded, then the branch's own."""
    mask_B1QK: Tensor
    """Which keys a query sees. [1, 1, Q, K] when all prompts are equally long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """The pack as a variable-length kernel reads it: runs of queries, end to end, each with its run of keys. S runs.

    A run is a whole sequence, a prompt that responses share, or one of those responses, whose keys are the prompt's
    and then its own. Its last query sees all of its keys, the one before all but the last, and so on.

    Example: prompt (7, 8) with responses (9,) and (6, 4) lies at 0 to 4 and has three runs: `query_starts_S` (0, 2, 3,
    5), `key_starts_S` (0, 2, 5, 9), `keys_X` (0, 1, 0, 1, 2, 0, 1, 3, 4).
    """

    query_starts_S: Tensor
    """Where each run begins, and the end. int32, [S + 1]."""
    key_starts_S: Tensor
    """The same within `keys_X`. int32, [S + 1]."""
    keys_X: Tensor | None
    """The pack's slots in which the keys lie. None: they are the queries' own."""
    most_queries: int
    most_keys: int

    def to(self, device: torch.device) -> "Segments":
        """The same on a device."""
        return replace(
            self,
            query_starts_S=self.query_starts_S.to(device),
            key_starts_S=self.key_starts_S.to(device),
            keys_X=None if self.keys_X is None else self.keys_X.to(device),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """Sequences laid end to end; a prompt that several responses share lies there once.

    Example: prompt (7, 8) with response (9,) and prompt (5,) with response (6, 4) give ids (7, 8, 9, 5, 6, 4),
    positions (0, 1, 2, 0, 1, 2), `slots_SL` ((0, 1, 2), (3, 4, 5)), `predictors_R` (1, 3, 4), `chosen_R` (9, 6, 4).

    Example with a shared prompt: (7, 8) with responses (9,) and (6, 4) gives ids (7, 8, 9, 6, 4), positions
    (0, 1, 2, 2, 3), `slots_SL` ((0, 1)), branches over slots (2) and (3, 4), `predictors_R` (1, 1, 3).
    """

    ids_N: Tensor
    positions_N: Tensor
    slots_SL: Tensor
    """Where each sequence's tokens lie in the pack; short sequences repeat their last slot."""
    branches: Branches | None
    places_N: Tensor
    """Where each token lies in the flattened [S, L], followed by the flattened [B, Q]: the way back."""
    segments: Segments
    longest: int
    """Positions of the longest prompt with one response."""
    predictors_R: Tensor
    """Positions whose hidden state predicts a response token that the model wrote."""
    chosen_R: Tensor
    """These tokens."""
    written_R: Tensor
    """Where they lie: a head over tokens reads them, and not what predicts them."""
    rows: tuple[int, ...]
    """Which row of the batch each response is."""
    response_lengths: tuple[int, ...]
    """Tokens that the model wrote, per response."""

    def to(self, device: torch.device) -> "Pack":
        """The same pack on a device."""
        branches = self.branches
        if branches is not None:
            branches = Branches(
                queries_BQ=branches.queries_BQ.to(device),
                keys_BK=branches.keys_BK.to(device),
                mask_B1QK=branches.mask_B1QK.to(device),
            )
        return replace(
            self,
            ids_N=self.ids_N.to(device),
            positions_N=self.positions_N.to(device),
            slots_SL=self.slots_SL.to(device),
            branches=branches,
            places_N=self.places_N.to(device),
            segments=self.segments.to(device),
            predictors_R=self.predictors_R.to(device),
            chosen_R=self.chosen_R.to(device),
            written_R=self.written_R.to(device),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """One prompt with one response: `TokenRow(prompt_ids=(7, 8), response_ids=(9,))`."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    observed: tuple[TokenSpan, ...] = ()
    """Response tokens that the model read and did not write: they have no log-prob here, and nothing is learnt of them.
    """

    @property
    def written(self) -> Sequence[int]:
        """Places of the response tokens that the model wrote."""
        return written_places(len(self.response_ids), self.observed)

    @property
    def written_ids(self) -> tuple[int, ...]:
        """The tokens there; what "response tokens" means wherever values are per token."""
        return tuple(self.response_ids[place] for place in self.written) if self.observed else self.response_ids

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


def plan_packs(rows: Sequence[TokenRow], *, token_budget: int) -> list[tuple[int, ...]]:
    """Row numbers per micro-batch, each at most `token_budget` tokens (a longer row gets one of its own).

    Rows of like length go together, because attention pads within a pack; the order depends on nothing else.
    Rows of one prompt stay together as far as the budget allows, and the prompt is counted once.
    """
    units = _prompt_units(rows, token_budget)
    units.sort(key=lambda unit: (-max(len(rows[row]) for row in unit[0]), unit[0]))
    plans: list[tuple[int, ...]] = []
    current: list[int] = []
    used = 0
    for numbers, cost in units:
        if current and used + cost > token_budget:
            plans.append(tuple(current))
            current, used = [], 0
        current.extend(numbers)
        used += cost
    if current:
        plans.append(tuple(current))
    return plans


def _prompt_units(rows: Sequence[TokenRow], token_budget: int) -> list[tuple[tuple[int, ...], int]]:
    """Rows that share a prompt, and what they cost together; more than the budget holds are several units."""
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for number, row in enumerate(rows):
        by_prompt.setdefault(row.prompt_ids, []).append(number)
    units: list[tuple[tuple[int, ...], int]] = []
    for prompt, numbers in by_prompt.items():
        unit: list[int] = []
        cost = len(prompt)
        for number in numbers:
            more = len(rows[number].response_ids)
            if unit and cost + more > token_budget:
                units.append((tuple(unit), cost))
                unit, cost = [], len(prompt)
            unit.append(number)
            cost += more
        units.append((tuple(unit), cost))
    return units


def deal_packs(
    rows: Sequence[TokenRow], plans: Sequence[tuple[int, ...]], *, ranks: int
) -> list[list[tuple[int, ...]]]:
    """Micro-batches for every rank: equally many, some without rows, the work spread evenly.

    Example: four plans of 9, 8, 3 and 2 tokens for two ranks: 9 and 2, 8 and 3. The n-th of each rank run at the same
    time, so like goes beside like.
    """
    cost = {plan: sum(len(rows[number]) for number in plan) for plan in plans}
    ordered = sorted(plans, key=lambda plan: -cost[plan])
    dealt: list[list[tuple[int, ...]]] = [[] for _ in range(ranks)]
    for start in range(0, len(ordered), ranks):
        together = [*ordered[start : start + ranks], *([()] * ranks)][:ranks]
        lightest_first = sorted(dealt, key=lambda mine: sum(cost.get(plan, 0) for plan in mine))
        for mine, plan in zip(lightest_first, together, strict=True):
            mine.append(plan)
    return dealt


def idle_pack() -> Pack:
    """One token and no response: a pass over it computes next to nothing, and adds a gradient of 0."""
    layout = _Layout()
    layout.add([TokenRow(prompt_ids=(0,), response_ids=())])
    return layout.pack([], [])


def build_pack(rows: Sequence[TokenRow], numbers: Sequence[int]) -> Pack:
    """Lay the rows with these numbers end to end; neighbours with one prompt share it.

    Raises:
        ValueError: a row has no prompt token (nothing would predict its first response token).
    """
    if any(not rows[number].prompt_ids for number in numbers):
        raise ValueError("every row needs at least one prompt token")
    layout = _Layout()
    for _, same in itertools.groupby(numbers, key=lambda number: rows[number].prompt_ids):
        layout.add([rows[number] for number in same])
    return layout.pack(rows, numbers)


class _Layout:
    """A pack under construction: where sequences, and responses that branch off them, lie."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._positions: list[int] = []
        self._predictors: list[int] = []
        self._written: list[int] = []
        self._stems: list[range] = []
        self._branches: list[tuple[range, range]] = []
        """(slots of the prompt, slots of the response)."""

    def add(self, rows: Sequence[TokenRow]) -> None:
        """Rows of one prompt. One row alone is a plain sequence."""
        prompt = self._lay(rows[0].prompt_ids, position=0)
        for row in rows:
            response = self._lay(row.response_ids, position=len(prompt))
            before = (prompt[-1], *response[:-1])
            self._predictors.extend(before[place] for place in row.written)
            self._written.extend(response[place] for place in row.written)
            if len(rows) > 1:
                self._branches.append((prompt, response))
        self._stems.append(prompt if len(rows) > 1 else range(prompt.start, len(self._ids)))

    def pack(self, rows: Sequence[TokenRow], numbers: Sequence[int]) -> Pack:
        """The tensors."""
        slots_SL, inside_SL = _padded(self._stems)
        branches, inside_BQ = self._branch_tensors()
        # Slots in the order in which attention gives its outputs: sorting them is the way back.
        outputs = torch.cat(
            [slots_SL[inside_SL], branches.queries_BQ[inside_BQ]] if branches else [slots_SL[inside_SL]]
        )
        inside = torch.cat([inside_SL.flatten(), inside_BQ.flatten()]).nonzero().squeeze(1)
        return Pack(
            ids_N=torch.tensor(self._ids),
            positions_N=torch.tensor(self._positions),
            slots_SL=slots_SL,
            branches=branches,
            places_N=inside[outputs.argsort()],
            segments=self._segments(),
            longest=max((len(rows[number]) for number in numbers), default=1),
            predictors_R=torch.tensor(self._predictors, dtype=torch.long),
            chosen_R=torch.tensor([token for each in numbers for token in rows[each].written_ids], dtype=torch.long),
            written_R=torch.tensor(self._written, dtype=torch.long),
            rows=tuple(numbers),
            response_lengths=tuple(len(rows[number].written) for number in numbers),
        )

    def _lay(self, ids: Sequence[int], *, position: int) -> range:
        start = len(self._ids)
        self._ids.extend(ids)
        self._positions.extend(range(position, position + len(ids)))
        return range(start, len(self._ids))

    def _segments(self) -> Segments:
        alone = [(stem, [stem]) for stem in self._stems]
        branching = [(response, [prompt, response]) for prompt, response in self._branches if response]
        runs = sorted([*alone, *branching], key=lambda run: run[0].start)
        queries = [len(query) for query, _ in runs]
        keys = [sum(map(len, parts)) for _, parts in runs]
        slots = [slot for _, parts in runs for part in parts for slot in part]
        return Segments(
            query_starts_S=torch.tensor([0, *itertools.accumulate(queries)], dtype=torch.int32),
            key_starts_S=torch.tensor([0, *itertools.accumulate(keys)], dtype=torch.int32),
            keys_X=torch.tensor(slots) if branching else None,
            most_queries=max(queries),
            most_keys=max(keys),
        )

    def _branch_tensors(self) -> tuple[Branches | None, Tensor]:
        branches = [(prompt, response) for prompt, response in self._branches if response]
        if not branches:
            return None, torch.zeros(0, dtype=torch.bool)
        prompt_BP, in_prompt_BP = _padded([prompt for prompt, _ in branches])
        queries_BQ, inside_BQ = _padded([response for _, response in branches])
        longest = queries_BQ.shape[1]
        if bool(in_prompt_BP.all()):
            in_prompt_BP = in_prompt_BP[:1]
        causal_QQ = torch.ones(longest, longest, dtype=torch.bool).tril()
        sees_prompt_BQP = in_prompt_BP[:, None, :].expand(-1, longest, -1)
        mask_BQK = torch.cat([sees_prompt_BQP, causal_QQ.expand(len(in_prompt_BP), -1, -1)], dim=2)
        keys_BK = torch.cat([prompt_BP, queries_BQ], dim=1)
        return Branches(queries_BQ=queries_BQ, keys_BK=keys_BK, mask_B1QK=mask_BQK[:, None]), inside_BQ


def _padded(spans: Sequence[range]) -> tuple[Tensor, Tensor]:
    """Slots of every span side by side, short ones repeating their last slot; and which of them are no padding."""
    starts_S, lengths_S = torch.tensor([span.start for span in spans]), torch.tensor([len(span) for span in spans])
    offsets_L = torch.arange(int(lengths_S.max()))
    slots_SL = starts_S[:, None] + torch.minimum(offsets_L[None, :], lengths_S[:, None] - 1)
    return slots_SL, offsets_L[None, :] < lengths_S[:, None]


def split_rows(values_R: Tensor, pack: Pack) -> dict[int, Tensor]:
    """Values per response token of a pack, by row number."""
    return dict(zip(pack.rows, torch.split(values_R, list(pack.response_lengths)), strict=True))


def pad_rows(rows: Sequence[Sequence[float]]) -> tuple[Tensor, Tensor]:
    """Ragged floats as `values_BT` padded with 0, and `mask_BT`."""
    longest = max((len(row) for row in rows), default=0)
    values_BT = torch.zeros(len(rows), longest)
    mask_BT = torch.zeros(len(rows), longest, dtype=torch.bool)
    for number, row in enumerate(rows):
        values_BT[number, : len(row)] = torch.tensor(row, dtype=torch.float32)
        mask_BT[number, : len(row)] = True
    return values_BT, mask_BT
