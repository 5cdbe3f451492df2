"""Packing: remove the padding of a batch, so that the tokens of all sequences are contiguous, and restore it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from backends.base import Array, Feeds


@dataclass(frozen=True)
class Packing:
    """Packed batch.

    Attributes:
        ids, segments, positions: int32 [tokens]; positions count from 0 in each sequence. Zeros that belong to no
            sequence may follow the tokens.
        starts: int32 [batch + 1], index of the first token of each sequence, and the number of tokens.
        shape: batch and sequence of the batch with its padding.
        padded: whether the batch has padding.
    """

    ids: Array
    segments: Array
    positions: Array
    starts: Array
    shape: tuple[int, int]
    padded: bool


def pack(feeds: Feeds, multiple: int = 1) -> Packing:
    """Pack a batch.

    Args:
        feeds: int32 arrays [batch, sequence] by input name.
        multiple: the number of tokens is rounded up to a multiple of this, with zeros at the end, but never above
            batch * sequence. This gives fewer distinct token counts, for paths where each new count has a cost.

    Raises:
        ValueError: the arrays are invalid (see `check_batch`), or a sequence has no token or a token after padding;
            the message gives the number of the sequence.
    """
    check_batch(feeds)
    ids, mask = feeds["input_ids"], feeds["attention_mask"]
    if mask.all():
        positions, starts = _without_padding(mask.shape)
        return Packing(ids.reshape(-1), segments(feeds).reshape(-1), positions, starts, mask.shape, False)
    lengths = token_lengths(mask)
    starts = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=starts[1:])
    tokens = int(starts[-1])
    size = min(-(-tokens // multiple) * multiple, mask.size)
    places = np.flatnonzero(mask)
    packed = np.zeros((3, size), np.int32)
    packed[0, :tokens] = ids.reshape(-1)[places]
    packed[1, :tokens] = segments(feeds).reshape(-1)[places]
    packed[2, :tokens] = np.arange(tokens, dtype=np.int32) - np.repeat(starts[:-1], lengths)
    return Packing(packed[0], packed[1], packed[2], starts, mask.shape, True)


@lru_cache(maxsize=64)
def _without_padding(shape: tuple[int, int]) -> tuple[Array, Array]:
    """Return positions and starts of a batch without padding; read-only, because batches share them."""
    batch, sequence = shape
    positions = np.tile(np.arange(sequence, dtype=np.int32), batch)
    starts = np.arange(0, batch * sequence + 1, sequence, dtype=np.int32)
    for array in (positions, starts):
        array.flags.writeable = False
    return positions, starts


def check_batch(feeds: Feeds) -> None:
    """Check the arrays of a batch.

    Raises:
        ValueError: the arrays are not integers of the same shape [batch, sequence] with both at least 1, or
            attention_mask is missing or has values other than 0 and 1.
    """
    if "attention_mask" not in feeds:
        raise ValueError("attention_mask is missing; give one, with 1 for a token and 0 for padding")
    shape = feeds["input_ids"].shape
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"input_ids has the shape {shape}; give [batch, sequence], both at least 1")
    for name, array in feeds.items():
        if array.shape != shape:
            raise ValueError(f"{name} has the shape {array.shape}; give the shape of input_ids, {shape}")
        if array.dtype.kind not in "iu":
            raise ValueError(f"{name} has the type {array.dtype}; give integers")
    mask = feeds["attention_mask"]
    if np.bitwise_or.reduce(mask, axis=None) not in (0, 1):
        invalid = mask[(mask < 0) | (mask > 1)].min()
        raise ValueError(f"attention_mask has the value {invalid}; give 1 for a token and 0 for padding")


def segments(feeds: Feeds) -> Array:
    """Return the token types; zeros for families without token types."""
    types = feeds.get("token_type_ids")
    return np.zeros_like(feeds["input_ids"]) if types is None else types


def token_lengths(mask: Array) -> Array:
    """Return the number of tokens in each row of a mask [batch, sequence] of ones followed by zeros.

    Raises:
        ValueError: a row has no token, or a token after padding.
    """
    lengths = mask.sum(1)
    if not lengths.all():
        raise ValueError(f"sequence {lengths.argmin()} of the batch has no token; remove it")
    broken = (mask[:, 1:] > mask[:, :-1]).any(1) | (mask[:, 0] == 0)
    if broken.any():
        raise ValueError(
            f"sequence {broken.argmax()} of the batch has tokens after padding; move its tokens to the front"
        )
    return np.asarray(lengths)
