"""Packing: remove the padding of a batch, so that the tokens of all sequences are contiguous, and restore it."""

from __future__ import annotations

from dataclasses import dataclass

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
    lengths = token_lengths(mask)
    is_token = mask.astype(bool)
    columns = np.broadcast_to(np.arange(mask.shape[1], dtype=np.int32), mask.shape)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    rows = feeds["input_ids"], segments(feeds), columns
    if starts[-1] == is_token.size:
        ids, types, positions = (array.reshape(-1) for array in rows)
    else:
        zeros = min(-int(starts[-1]) % multiple, is_token.size - int(starts[-1]))
        ids, types, positions = (np.pad(array[is_token], (0, zeros)) for array in rows)
    return Packing(ids, types, positions, starts, is_token)


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
        if not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"{name} has the type {array.dtype}; give integers")
    mask = feeds["attention_mask"]
    if (mask >> 1).any():
        invalid = mask[mask >> 1 != 0].min()
        raise ValueError(f"attention_mask has the value {invalid}; give 1 for a token and 0 for padding")


def segments(feeds: Feeds) -> Array:
    """Return the token types; zeros for families without token types."""
    return feeds.get("token_type_ids", np.zeros_like(feeds["input_ids"]))


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
