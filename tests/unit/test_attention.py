"""The two ways to compute attention over a pack are one function of the weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prime.lm.attention import attend_segments, packed_attention
from prime.lm.packing import TokenRow, build_pack, idle_pack

SHARED, LONGER = (7, 8, 9), (1, 2, 3, 4, 5)
PACKS = {
    "sequences of their own": [
        TokenRow(prompt_ids=(7, 8), response_ids=(9,)),
        TokenRow(prompt_ids=(5,), response_ids=(6, 4)),
    ],
    "responses that share a prompt": [TokenRow(prompt_ids=SHARED, response_ids=(9,) * length) for length in (1, 4, 2)],
    "both, and prompts of two lengths": [
        *(TokenRow(prompt_ids=SHARED, response_ids=(9,) * length) for length in (3, 1)),
        TokenRow(prompt_ids=(6,), response_ids=(4, 4, 4, 4, 4)),
        *(TokenRow(prompt_ids=LONGER, response_ids=(9,) * length) for length in (2, 0, 6)),
    ],
}


def _plain(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_starts: Tensor,
    key_starts: Tensor,
    *_: int,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool = False,
) -> Tensor:
    """What the flash kernel is documented to do, run by run: causal, aligned at the ends."""
    assert window_size == (-1, 0)
    found = []
    for run in range(len(query_starts) - 1):
        queries = query[query_starts[run] : query_starts[run + 1]].transpose(0, 1)
        keys, values = (each[key_starts[run] : key_starts[run + 1]].transpose(0, 1) for each in (key, value))
        width = keys.shape[1]
        mask = torch.ones(queries.shape[1], width, dtype=torch.bool).tril(width - queries.shape[1])
        attended = nn.functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, scale=scale, enable_gqa=enable_gqa
        )
        found.append(attended.transpose(0, 1))
    return torch.cat(found)


def _without_groups(*args: Any, scale: float, window_size: tuple[int, int]) -> Tensor:
    """The kernel's form in PyTorch 2.11."""
    return _plain(*args, scale=scale, window_size=window_size)


@pytest.mark.parametrize("kernel", [_plain, _without_groups])
@pytest.mark.parametrize("name", PACKS)
def test_runs_of_queries_and_keys_give_what_padded_sequences_give(name: str, kernel: Callable[..., Tensor]) -> None:
    rows = PACKS[name]
    pack = build_pack(rows, range(len(rows)))
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, len(pack.ids_N), 8, generator=generator) for heads in (4, 2, 2))
    padded, _ = packed_attention(nn.Module(), query, key, value, None, pack=pack, scaling=0.3)
    query, key, value = (each[0].transpose(0, 1) for each in (query, key, value))
    in_runs = attend_segments(query, key, value, pack.segments, scale=0.3, kernel=kernel)
    torch.testing.assert_close(in_runs, padded[0])


def test_the_worked_example_of_segments_holds() -> None:
    rows = [TokenRow(prompt_ids=(7, 8), response_ids=(9,)), TokenRow(prompt_ids=(7, 8), response_ids=(6, 4))]
    segments = build_pack(rows, [0, 1]).segments
    assert segments.query_starts_S.tolist() == [0, 2, 3, 5]
    assert segments.key_starts_S.tolist() == [0, 2, 5, 9]
    assert segments.keys_X is not None
    assert segments.keys_X.tolist() == [0, 1, 0, 1, 2, 0, 1, 3, 4]
    assert (segments.most_queries, segments.most_keys) == (2, 4)


def test_a_pack_without_rows_is_one_run_of_one() -> None:
    assert idle_pack().segments.query_starts_S.tolist() == [0, 1]
