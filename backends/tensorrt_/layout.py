"""How a batch lies in an engine's inputs and output: padded rows as they come, or tokens packed end to end."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends.base import Array, Feeds, Shape
from backends.packing import check_batch, pack, segments, token_lengths
from backends.tensorrt_.profiles import Profile

Sizes = tuple[int, ...]

PLUGIN_POSITIONS = 384
"""Positions that the packed embedding plugin fills (NVIDIA/TensorRT 2948); beyond them plain layers do it."""


@dataclass(frozen=True)
class Arranged:
    """One batch ready for an engine.

    Attributes:
        arrays: contiguous int32 arrays by input name.
        restore: from the engine's output to [batch, sequence, hidden].
    """

    arrays: Mapping[str, Array]
    restore: Callable[[Array], Array]


class Layout(abc.ABC):
    """The inputs of an engine: what sizes they have over a profile, and how a batch is put into them.

    `hidden_axis` is where the output has its hidden size.
    """

    hidden_axis = -3

    @abc.abstractmethod
    def sizes(self, profile: Profile) -> dict[str, tuple[Sizes, Sizes, Sizes]]:
        """Smallest, best and largest sizes of each input over `profile`."""

    @abc.abstractmethod
    def profile(self, sizes: Mapping[str, tuple[Sizes, Sizes, Sizes]]) -> Profile:
        """The profile that `sizes` came from."""

    @abc.abstractmethod
    def arrange(self, feeds: Feeds) -> Arranged:
        """
        Raises:
            ValueError: the batch cannot lie so; the message names the sequence.
        """


class Rows(Layout):
    """Every input [batch, sequence], the output [batch, sequence, hidden]: an exported graph."""

    hidden_axis = -1

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def sizes(self, profile: Profile) -> dict[str, tuple[Sizes, Sizes, Sizes]]:
        ends = tuple((shape.batch, shape.sequence) for shape in (profile.low, profile.best, profile.high))
        return dict.fromkeys(self.names, (ends[0], ends[1], ends[2]))

    def profile(self, sizes: Mapping[str, tuple[Sizes, Sizes, Sizes]]) -> Profile:
        return Profile(*(Shape(*size) for size in sizes[self.names[0]]))

    def arrange(self, feeds: Feeds) -> Arranged:
        return Arranged({name: np.ascontiguousarray(feeds[name]) for name in self.names}, lambda output: output)


class Columns(Layout):
    """The plugins' fixed layout: ids, segments, mask [sequence, batch]; the output [sequence, batch, hidden, 1, 1]."""

    def sizes(self, profile: Profile) -> dict[str, tuple[Sizes, Sizes, Sizes]]:
        ends = tuple((shape.sequence, shape.batch) for shape in (profile.low, profile.best, profile.high))
        return dict.fromkeys(("input_ids", "segment_ids", "input_mask"), (ends[0], ends[1], ends[2]))

    def profile(self, sizes: Mapping[str, tuple[Sizes, Sizes, Sizes]]) -> Profile:
        return Profile(*(Shape(batch, sequence) for sequence, batch in sizes["input_ids"]))

    def arrange(self, feeds: Feeds) -> Arranged:
        check_batch(feeds)
        token_lengths(feeds["attention_mask"])
        named = {"input_ids": feeds["input_ids"], "segment_ids": segments(feeds), "input_mask": feeds["attention_mask"]}
        arrays = {name: np.ascontiguousarray(array.T) for name, array in named.items()}
        return Arranged(arrays, lambda output: np.ascontiguousarray(output[..., 0, 0].swapaxes(0, 1)))


class Packed(Layout):
    """No padding: ids and segments [tokens], where each sequence begins [batch + 1], and a tensor whose length is the
    longest sequence allowed; the output [tokens, hidden, 1, 1]. With `positions` also the place of each token in its
    sequence [tokens].

    `tokens` are those of a batch of a shape, for which a profile is tuned; all that fit where a shape is not in it.
    `multiple` as in `pack`.
    """

    def __init__(self, positions: bool = False, tokens: Mapping[Shape, int] | None = None, multiple: int = 1) -> None:
        self.positions, self.tokens, self.multiple = positions, tokens or {}, multiple

    def sizes(self, profile: Profile) -> dict[str, tuple[Sizes, Sizes, Sizes]]:
        low, best, high = profile.low, profile.best, profile.high
        tuned = self.tokens.get(best, best.batch * best.sequence)
        tokens = ((low.batch,), (tuned,), (high.batch * high.sequence,))
        starts = tuple((shape.batch + 1,) for shape in (low, best, high))
        longest = tuple((shape.sequence,) for shape in (low, best, high))
        return {
            "input_ids": tokens,
            "segment_ids": tokens,
            **({"positions": tokens} if self.positions else {}),
            "cu_seqlens": (starts[0], starts[1], starts[2]),
            "max_seqlen": (longest[0], longest[1], longest[2]),
        }

    def profile(self, sizes: Mapping[str, tuple[Sizes, Sizes, Sizes]]) -> Profile:
        pairs = zip(sizes["cu_seqlens"], sizes["max_seqlen"], strict=True)
        return Profile(*(Shape(starts - 1, longest) for (starts,), (longest,) in pairs))

    def arrange(self, feeds: Feeds) -> Arranged:
        packed = pack(feeds, self.multiple)
        arrays = {
            "input_ids": packed.ids,
            "segment_ids": packed.segments,
            **({"positions": packed.positions} if self.positions else {}),
            "cu_seqlens": packed.starts,
            "max_seqlen": np.zeros(packed.kept.shape[1], np.int32),
        }

        def restore(output: Array) -> Array:
            return packed.restore(output.reshape(len(packed.ids), -1))

        return Arranged({name: np.ascontiguousarray(array) for name, array in arrays.items()}, restore)


def plugin_layout(
    options: Mapping[str, Any], longest: int, tokens: Mapping[Shape, int] | None = None, native: bool = False
) -> Layout:
    """The layout that plugins have by `options`, for sequences up to `longest`; `tokens` as in Packed.
    `native`: without plugins, whose embeddings alone know where in its sequence a token is."""
    if options["layout"] == "fixed":
        return Columns()
    return Packed(native or longest > PLUGIN_POSITIONS, tokens, options.get("pad_to_multiple_of", 1))
