"""Batches without their padding: the tokens of all sequences end to end, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backends.base import Array, Feeds


@dataclass(frozen=True)
class Packing:
    """One batch, packed.

    Attributes:
        ids, segments, positions: int32 [tokens]; positions count from 0 in each sequence. Zeros may follow, which are
            in no sequence.
        starts: int32 [batch + 1], where each sequence begins, and the end.
        kept: bool [batch, sequence], where there is a token.
    """

    ids: Array
    segments: Array
    positions: Array
    starts: Array
    kept: Array

    def restore(self, values: Array) -> Array:
        """[batch, sequence, hidden] from [tokens, hidden]; zeros where padding was."""
        rows = np.zeros((*self.kept.shape, values.shape[-1]), values.dtype)
        rows[self.kept] = values[: self.starts[-1]]
        return rows


def pack(feeds: Feeds, multiple: int = 1) -> Packing:
    """
    Args:
        multiple: of which there are tokens, with zeros at the end, but for never more than with all padding: whoever
            pays for another number of tokens meets fewer of them.

    Raises:
        ValueError: the batch is none (see `check_batch`), or a sequence has no token, or a token after padding; the
            message names it.
    """
    check_batch(feeds)
    mask = feeds["attention_mask"]
    lengths = token_lengths(mask)
    kept = mask.astype(bool)
    places = np.broadcast_to(np.arange(mask.shape[1], dtype=np.int32), mask.shape)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    zeros = min(-int(starts[-1]) % multiple, kept.size - int(starts[-1]))
    ids, kinds, positions = (np.pad(rows[kept], (0, zeros)) for rows in (feeds["input_ids"], segments(feeds), places))
    return Packing(ids, kinds, positions, starts, kept)


def check_batch(feeds: Feeds) -> None:
    """
    Raises:
        ValueError: the arrays are not integers of one shape [batch, sequence] with at least one row and one token, or
            there is no mask of 0 and 1.
    """
    if "attention_mask" not in feeds:
        raise ValueError("there is no attention_mask; give one, 1 for a token and 0 for padding")
    wanted = feeds["input_ids"].shape
    if len(wanted) != 2 or 0 in wanted:
        raise ValueError(f"input_ids of sizes {wanted} is no batch; give [batch, sequence], both at least 1")
    for name, array in feeds.items():
        if array.shape != wanted:
            raise ValueError(f"{name} of sizes {array.shape} does not fit input_ids of sizes {wanted}")
        if not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"{name} is of type {array.dtype}; give integers")
    if odd := np.setdiff1d(feeds["attention_mask"], (0, 1)).tolist():
        raise ValueError(f"attention_mask has {odd[0]}; give 1 for a token and 0 for padding")


def segments(feeds: Feeds) -> Array:
    """Token types, zero for the families that have none."""
    return feeds.get("token_type_ids", np.zeros_like(feeds["input_ids"]))


def token_lengths(mask: Array) -> Array:
    """Tokens in each row of a mask [batch, sequence] of ones followed by zeros.

    Raises:
        ValueError: a row has no token, or a token after padding.
    """
    lengths = mask.sum(1)
    if empty := np.flatnonzero(lengths == 0).tolist():
        raise ValueError(f"sequence {empty[0]} of the batch has no token; leave it out")
    prefix = np.arange(mask.shape[1]) < lengths[:, None]
    if broken := np.flatnonzero((mask.astype(bool) != prefix).any(1)).tolist():
        raise ValueError(f"sequence {broken[0]} of the batch has tokens after padding; move its tokens to the front")
    return np.asarray(lengths)
