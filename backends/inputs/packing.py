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
        is_token: bool [batch, sequence], true at tokens.
    """

    ids: Array
    segments: Array
    positions: Array
    starts: Array
    is_token: Array

    @property
    def padded(self) -> bool:
        """Whether the batch has padding."""
        return int(self.starts[-1]) < self.is_token.size


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
    mask = feeds["attention_mask"]
    if mask.all():
        positions, starts, is_token = _without_padding(mask.shape)
        return Packing(feeds["input_ids"].reshape(-1), segments(feeds).reshape(-1), positions, starts, is_token)
    lengths, is_token = token_lengths(mask), mask.astype(bool)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    zeros = min(-int(starts[-1]) % multiple, mask.size - int(starts[-1]))
    rows = feeds["input_ids"], segments(feeds), np.broadcast_to(np.arange(mask.shape[1], dtype=np.int32), mask.shape)
    ids, types, positions = (np.pad(array[is_token], (0, zeros)) for array in rows)
    return Packing(ids, types, positions, starts, is_token)


@lru_cache(maxsize=64)
def _without_padding(shape: tuple[int, int]) -> tuple[Array, Array, Array]:
    """Return positions, starts and `is_token` of a batch without padding; read-only, because batches share them."""
    batch, sequence = shape
    positions = np.tile(np.arange(sequence, dtype=np.int32), batch)
    starts = np.arange(0, batch * sequence + 1, sequence, dtype=np.int32)
    arrays = positions, starts, np.ones(shape, bool)
    for array in arrays:
        array.flags.writeable = False
    return arrays


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
    if mask.max() > 1 or mask.min() < 0:
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
    if empty := np.flatnonzero(lengths == 0).tolist():
        raise ValueError(f"sequence {empty[0]} of the batch has no token; remove it")
    prefix = np.arange(mask.shape[1]) < lengths[:, None]
    if broken := np.flatnonzero((mask.astype(bool) != prefix).any(1)).tolist():
        raise ValueError(f"sequence {broken[0]} of the batch has tokens after padding; move its tokens to the front")
    return np.asarray(lengths)
