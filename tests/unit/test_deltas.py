"""Deltas of weights: the new bits come out, whatever changed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prime.deltas import apply_delta, encode_delta


def test_the_worked_example_holds() -> None:
    delta = encode_delta(np.array([5, 9, 7, 1], dtype=np.int16), np.array([5, 6, 7, 8], dtype=np.int16))
    assert (delta.gaps.tolist(), delta.values.tolist()) == ([2, 2], [9, 1])


@given(
    dtype=st.sampled_from([np.int16, np.int32]),
    length=st.integers(0, 3000) | st.just(300_000),
    share=st.sampled_from([0.0, 0.001, 0.02, 0.5, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_a_delta_gives_the_new_bits_whatever_changed(dtype: type, length: int, share: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    limits = np.iinfo(dtype)
    old, other = (draw.integers(limits.min, limits.max, length, dtype=dtype) for _ in range(2))
    new = np.where(draw.random(length) < share, other, old)
    delta = encode_delta(new, old)
    assert delta.gaps.dtype == np.uint8
    assert len(delta.gaps) == len(delta.values)
    apply_delta(old, delta)
    assert np.array_equal(old, new)


def test_positions_far_apart_are_bridged() -> None:
    old, new = np.zeros(2000, dtype=np.int16), np.zeros(2000, dtype=np.int16)
    new[[0, 1999]] = 7
    delta = encode_delta(new, old)
    assert delta.gaps.tolist() == [1, *[255] * 7, 1999 - 7 * 255]
    apply_delta(old, delta)
    assert np.array_equal(old, new)


def test_a_delta_of_another_tensor_is_refused_before_anything_changes() -> None:
    delta = encode_delta(np.array([0, 0, 3], dtype=np.int16), np.zeros(3, dtype=np.int16))
    values = np.zeros(2, dtype=np.int16)
    with pytest.raises(ValueError, match="reaches to position 2 of 2"):
        apply_delta(values, delta)
    assert values.tolist() == [0, 0]
