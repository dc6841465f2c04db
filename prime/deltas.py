"""What changed between two versions of a weight, bit by bit: positions as gaps, and the new values.

Values are flat arrays of integers of their size (`as_integers`), so floats that are not numbers compare equal to
themselves. Positions stand as gaps of one byte, the first from -1; where a gap is longer, values that stay what they
are bridge it. After a PRIME step 1 to 3 % of bf16 weights differ: about 3 bytes for each.

A frame is the delta of one tensor, or of a part of it, on its way: which tensor, how many gaps, where the part begins,
then gaps and values.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

_LONGEST_GAP = 255
# Compared piece by piece while they are in the cache.
_PIECE = 1 << 17
_INTEGERS = {2: np.int16, 4: np.int32}
_FRAME_HEAD = struct.Struct("<IIQ")

Integers = NDArray[np.signedinteger[Any]]


class Delta(NamedTuple):
    """As many gaps (uint8) as values."""

    gaps: NDArray[np.uint8]
    values: Integers


def as_integers(content: memoryview, *, item_bytes: int) -> Integers:
    """Memory read as integers, without a copy."""
    return np.frombuffer(content, dtype=_INTEGERS[item_bytes])


def encode_delta(new: Integers, old: Integers) -> Delta:
    """What turns `old` into `new`.

    Example: old (5, 6, 7, 8), new (5, 9, 7, 1): gaps (2, 2), values (9, 1).
    """
    positions, values = [], []
    for start in range(0, len(new), _PIECE):
        piece = new[start : start + _PIECE]
        inside = np.flatnonzero(piece != old[start : start + _PIECE])
        positions.append(inside + start)
        values.append(piece[inside])
    if not positions:
        return Delta(np.zeros(0, dtype=np.uint8), new)
    found = np.concatenate(values)
    gaps = np.diff(np.concatenate(positions), prepend=np.int64(-1)).astype(np.int64, copy=False)
    long = np.flatnonzero(gaps > _LONGEST_GAP)
    if len(long):
        bridges: NDArray[np.int64] = (gaps[long] - 1) // _LONGEST_GAP
        gaps[long] -= bridges * _LONGEST_GAP
        place = np.repeat(long, bridges)
        gaps = np.insert(gaps, place, _LONGEST_GAP)
        # Where the bridges stand, the values stay what they are.
        stays = np.insert(np.zeros(len(found), dtype=bool), place, True)
        found = np.insert(found, place, 0)
        found[stays] = new[(np.cumsum(gaps) - 1)[stays]]
    return Delta(gaps.astype(np.uint8), found)


def apply_delta(values: Integers, delta: Delta) -> None:
    """Turn the old values into the new ones, in place.

    Raises:
        ValueError: a position lies outside: the delta is of another tensor.
    """
    if not len(delta.gaps):
        return
    positions = np.cumsum(delta.gaps, dtype=np.int64)
    positions -= 1
    if positions[-1] >= len(values) or positions[0] < 0:
        raise ValueError(f"a delta reaches to position {positions[-1]} of {len(values)}")
    values[positions] = delta.values


class Frame(NamedTuple):
    """The delta of a tensor's values from `start` on."""

    tensor: int
    start: int
    delta: Delta


def pack_frame(frame: Frame) -> bytes:
    """To be sent."""
    gaps, values = frame.delta
    head = _FRAME_HEAD.pack(frame.tensor, len(gaps), frame.start)
    return b"".join((head, gaps.tobytes(), values.tobytes()))


def take_frames(received: bytearray, item_bytes: Sequence[int]) -> Iterator[Frame]:
    """The frames that are whole, which are removed from what was received; `item_bytes` per tensor.

    Raises:
        ValueError: a frame is of a tensor that is not there.
    """
    while len(received) >= _FRAME_HEAD.size:
        tensor, count, start = _FRAME_HEAD.unpack_from(received)
        if tensor >= len(item_bytes):
            raise ValueError(f"there is no tensor {tensor}")
        end = _FRAME_HEAD.size + count * (1 + item_bytes[tensor])
        if len(received) < end:
            return
        content = memoryview(bytes(received[_FRAME_HEAD.size : end]))
        del received[:end]
        gaps = np.frombuffer(content[:count], dtype=np.uint8)
        yield Frame(tensor, start, Delta(gaps, as_integers(content[count:], item_bytes=item_bytes[tensor])))


def digest_of(tensors: Sequence[memoryview]) -> bytes:
    """Of a version's weights, see `join_digests`."""
    return join_digests([tensor_digest(tensor) for tensor in tensors])


def tensor_digest(content: memoryview) -> bytes:
    """xxh3-128: against mishaps, not against malice, which the token keeps out."""
    return xxhash.xxh3_128_digest(content)


def join_digests(tensor_digests: Sequence[bytes]) -> bytes:
    """xxh3-128 over those of all tensors in order."""
    return xxhash.xxh3_128_digest(b"".join(tensor_digests))
