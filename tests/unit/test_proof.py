"""What the proof of a packed layout says of the figures that it is given."""

import torch
from torch import Tensor

from prime.lm.packing import TokenRow
from prime.lm.proof import LEAST_GAP, Found, disturbed, fault_of, proof_rows

EXPECTED = [torch.linspace(-8, -1, length) for length in (7, 5, 3, 6)]


def _off(rows: list[Tensor], by: float) -> list[Tensor]:
    return [row_T + by for row_T in rows]


def _fault(*, alone: float = 0.0, packed: float = 0.0, beside: float = 0.0, most_noise: float = 0.25) -> str:
    of_pack = _off(EXPECTED, packed)
    found = Found(
        expected=EXPECTED,
        alone=_off(EXPECTED, alone),
        packed=of_pack,
        beside_others=[(of_pack[0], of_pack[0]), (of_pack[1], of_pack[1] + beside)],
    )
    return fault_of(found, most_noise=most_noise, least_gap=LEAST_GAP, parts="2 attention")


def test_the_rounding_of_a_pack_is_no_leak() -> None:
    """As measured on an H200 with a real model in bfloat16: a pack has other kernels than a row of ten tokens."""
    assert _fault(alone=0.02, packed=0.082) == ""


def test_a_leak_below_the_rounding_is_found() -> None:
    assert "beside rows with other tokens" in _fault(alone=0.06, packed=0.06, beside=0.001)
    assert "2 attention" in _fault(beside=0.001)


def test_a_pack_that_is_wrong_whatever_others_hold_is_found() -> None:
    assert "packed with others" in _fault(packed=0.3)
    assert "packed with others" in _fault(packed=0.01, most_noise=1e-3)


def test_a_row_that_is_not_computed_so_by_itself_is_found() -> None:
    assert "by itself" in _fault(alone=0.3, packed=0.3)


def test_half_of_the_rows_get_other_tokens_and_keep_their_shape() -> None:
    rows = proof_rows(512)
    kept_in_all: list[int] = []
    for others, kept in disturbed(rows, 512):
        assert [_shape(row) for row in others] == [_shape(row) for row in rows]
        for number, (row, other) in enumerate(zip(rows, others, strict=True)):
            assert row.prompt_ids == other.prompt_ids
            if number in kept:
                assert row == other
            else:
                assert all(one != two for one, two in zip(row.response_ids, other.response_ids, strict=True))
        kept_in_all += kept
    assert sorted(kept_in_all) == list(range(len(rows)))


def _shape(row: TokenRow) -> tuple[int, int]:
    return len(row.prompt_ids), len(row.response_ids)
