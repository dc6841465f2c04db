"""Variable-length sequences laid end to end, without padding, in micro-batches under a token budget.

Shapes: S sequences in a pack, N tokens in a pack, L the longest sequence, R response tokens in a pack.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """Sequences laid end to end.

    Example: prompt (7, 8) with response (9,) and prompt (5,) with response (6, 4) give ids (7, 8, 9, 5, 6, 4),
    positions (0, 1, 2, 0, 1, 2), `slots_SL` ((0, 1, 2), (3, 4, 5)), `predictors_R` (1, 3, 4), `chosen_R` (9, 6, 4).
    """

    ids_N: Tensor
    positions_N: Tensor
    slots_SL: Tensor
    """Where each sequence's tokens lie in the pack; short sequences repeat their last slot."""
    places_N: Tensor
    """Where each token lies in the flattened [S, L]: the way back."""
    predictors_R: Tensor
    """Positions whose hidden state predicts a response token."""
    chosen_R: Tensor
    """The response tokens."""
    rows: tuple[int, ...]
    """Which row of the batch each sequence is."""
    response_lengths: tuple[int, ...]

    def to(self, device: torch.device) -> "Pack":
        """The same pack on a device."""
        return Pack(
            ids_N=self.ids_N.to(device),
            positions_N=self.positions_N.to(device),
            slots_SL=self.slots_SL.to(device),
            places_N=self.places_N.to(device),
            predictors_R=self.predictors_R.to(device),
            chosen_R=self.chosen_R.to(device),
            rows=self.rows,
            response_lengths=self.response_lengths,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """One prompt with one response: `TokenRow(prompt_ids=(7, 8), response_ids=(9,))`."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


def plan_packs(rows: Sequence[TokenRow], *, token_budget: int) -> list[tuple[int, ...]]:
    """Row numbers per micro-batch, each at most `token_budget` tokens (a longer row gets one of its own).

    Rows of like length go together, because attention pads within a pack; the order depends on nothing else.
    """
    by_length = sorted(range(len(rows)), key=lambda row: (-len(rows[row]), row))
    plans: list[tuple[int, ...]] = []
    current: list[int] = []
    used = 0
    for row in by_length:
        if current and used + len(rows[row]) > token_budget:
            plans.append(tuple(current))
            current, used = [], 0
        current.append(row)
        used += len(rows[row])
    if current:
        plans.append(tuple(current))
    return plans


def build_pack(rows: Sequence[TokenRow], numbers: Sequence[int]) -> Pack:
    """Lay the rows with these numbers end to end.

    Raises:
        ValueError: a row has no prompt token (nothing would predict its first response token).
    """
    chosen_rows = [rows[number] for number in numbers]
    if any(not row.prompt_ids for row in chosen_rows):
        raise ValueError("every row needs at least one prompt token")
    lengths = [len(row) for row in chosen_rows]
    longest = max(lengths)
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    ids = [token for row in chosen_rows for token in (*row.prompt_ids, *row.response_ids)]
    predictors = [
        start + len(row.prompt_ids) - 1 + offset
        for start, row in zip(starts, chosen_rows, strict=True)
        for offset in range(len(row.response_ids))
    ]
    starts_S, lengths_S = torch.tensor(starts), torch.tensor(lengths)
    offsets_L = torch.arange(longest)
    slots_SL = starts_S[:, None] + torch.minimum(offsets_L[None, :], lengths_S[:, None] - 1)
    inside_SL = offsets_L[None, :] < lengths_S[:, None]
    return Pack(
        ids_N=torch.tensor(ids),
        positions_N=offsets_L.expand(len(lengths), longest)[inside_SL],
        slots_SL=slots_SL,
        places_N=inside_SL.flatten().nonzero().squeeze(1),
        predictors_R=torch.tensor(predictors, dtype=torch.long),
        chosen_R=torch.tensor([token for row in chosen_rows for token in row.response_ids], dtype=torch.long),
        rows=tuple(numbers),
        response_lengths=tuple(len(row.response_ids) for row in chosen_rows),
    )


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
