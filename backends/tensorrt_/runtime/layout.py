"""Layouts of a batch in an engine's inputs and output: padded rows, or tokens packed end to end."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from backends.base import Array, Feeds, Shape
from backends.inputs.packing import check_batch, pack, segments, token_lengths
from backends.profiles import Profile
from backends.tensorrt_.runtime.tensorrt_options import PluginOptions

Sizes = tuple[int, ...]

PLUGIN_POSITIONS = 384
"""Number of positions that the packed embedding plugin fills (issue 2948 of NVIDIA/TensorRT). Plain layers replace it
for longer sequences."""


ALIGNMENT = 64
"""Inputs begin at multiples of this number of int32 values: TensorRT needs multiples of 256 bytes."""


@dataclass(frozen=True)
class InputPlaces:
    """Places of the inputs of one batch in the common buffer.

    Attributes:
        starts: index of the first value, by input name.
        size: number of values up to the end of the last input.
    """

    starts: Mapping[str, int]
    size: int


def places_of(sizes: Mapping[str, Sizes]) -> InputPlaces:
    """Return the places of inputs of these sizes, one after the other, so that a batch needs a single copy."""
    starts, end = {}, 0
    for name, input_sizes in sizes.items():
        starts[name] = end
        end += -(-math.prod(input_sizes) // ALIGNMENT) * ALIGNMENT
    return InputPlaces(starts, end)


@dataclass(frozen=True)
class ArrangedBatch:
    """Batch in the layout of an engine's inputs.

    Attributes:
        arrays: contiguous int32 arrays by input name.
        shape: batch and sequence.
        by_position: whether the engine's output has the axes [sequence, batch].
        starts: start of each sequence [batch + 1] in an output of packed tokens with padding; None for other outputs.
    """

    arrays: Mapping[str, Array]
    shape: tuple[int, int]
    by_position: bool = False
    starts: Array | None = None

    def restore(self, output: Array) -> Array:
        """Return an output with a value for each token as [batch, sequence, features], without a copy.

        Args:
            output: the output of a batch that is not packed, or that has no padding.
        """
        batch, sequence = self.shape
        if self.by_position:
            return output.reshape(sequence, batch, -1).swapaxes(0, 1)
        return output.reshape(batch, sequence, -1)

    def places(self) -> Array:
        """Return the row of each token in the output as [tokens, features]: int64 [batch, sequence].

        The rows of padding tokens have no meaning.
        """
        if self.starts is not None:
            return self.starts[:-1, None].astype(np.int64) + np.arange(self.shape[1])
        return self.restore(np.arange(math.prod(self.shape)))[..., 0]


class Layout(abc.ABC):
    """Layout of an engine's inputs: their sizes over a profile, and the conversion of a batch.

    `token_axes` is the number of axes before the features in an output with values for each token.
    """

    token_axes = 2

    @abc.abstractmethod
    def sizes(self, profile: Profile) -> dict[str, tuple[Sizes, Sizes, Sizes]]:
        """Return the min, opt and max sizes of each input over `profile`."""

    @abc.abstractmethod
    def profile(self, sizes: Mapping[str, tuple[Sizes, Sizes, Sizes]]) -> Profile:
        """Return the profile whose inputs have these `sizes`."""

    @abc.abstractmethod
    def arrange(self, feeds: Feeds) -> ArrangedBatch:
        """Convert a batch to this layout.

        Raises:
            ValueError: the batch does not fit this layout; the message names the sequence.
        """


class Rows(Layout):
    """Layout of an exported graph: every input [batch, sequence], the output [batch, sequence, hidden]."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def sizes(self, profile: Profile) -> dict[str, tuple[Sizes, Sizes, Sizes]]:
        min_sizes, opt_sizes, max_sizes = (
            (shape.batch, shape.sequence) for shape in (profile.min, profile.opt, profile.max)
        )
        return dict.fromkeys(self.names, (min_sizes, opt_sizes, max_sizes))

    def profile(self, sizes: Mapping[str, tuple[Sizes, Sizes, Sizes]]) -> Profile:
        return Profile(*(Shape(*size) for size in sizes[self.names[0]]))

    def arrange(self, feeds: Feeds) -> ArrangedBatch:
        arrays = {name: np.ascontiguousarray(feeds[name]) for name in self.names}
        return ArrangedBatch(arrays, feeds["input_ids"].shape)


class Columns(Layout):
    """Fixed layout of the plugins: ids, segments, mask [sequence, batch]; output [sequence, batch, hidden, 1, 1]."""

    def sizes(self, profile: Profile) -> dict[str, tuple[Sizes, Sizes, Sizes]]:
        min_sizes, opt_sizes, max_sizes = (
            (shape.sequence, shape.batch) for shape in (profile.min, profile.opt, profile.max)
        )
        return dict.fromkeys(("input_ids", "segment_ids", "input_mask"), (min_sizes, opt_sizes, max_sizes))

    def profile(self, sizes: Mapping[str, tuple[Sizes, Sizes, Sizes]]) -> Profile:
        return Profile(*(Shape(batch, sequence) for sequence, batch in sizes["input_ids"]))

    def arrange(self, feeds: Feeds) -> ArrangedBatch:
        check_batch(feeds)
        token_lengths(feeds["attention_mask"])
        named = {"input_ids": feeds["input_ids"], "segment_ids": segments(feeds), "input_mask": feeds["attention_mask"]}
        arrays = {name: np.ascontiguousarray(array.T) for name, array in named.items()}
        return ArrangedBatch(arrays, feeds["input_ids"].shape, by_position=True)


class Packed(Layout):
    """Packed layout, without padding.

    The inputs are ids and segments [tokens], the start of each sequence [batch + 1], and a tensor whose length is the
    longest allowed sequence. The output is [tokens, hidden, 1, 1].

    Args:
        positions: whether the position of each token in its sequence [tokens] is an input too.
        tokens: number of tokens in a batch, by shape. A profile is tuned for the number of its shape. The default for
            a shape is batch x sequence.
        multiple: as in `pack`.
    """

    token_axes = 1

    def __init__(self, positions: bool = False, tokens: Mapping[Shape, int] | None = None, multiple: int = 1) -> None:
        self.positions, self.tokens, self.multiple = positions, tokens or {}, multiple

    def sizes(self, profile: Profile) -> dict[str, tuple[Sizes, Sizes, Sizes]]:
        shapes = (profile.min, profile.opt, profile.max)
        opt_tokens = self.tokens.get(profile.opt, profile.opt.batch * profile.opt.sequence)
        tokens = ((profile.min.batch,), (opt_tokens,), (profile.max.batch * profile.max.sequence,))
        starts = tuple((shape.batch + 1,) for shape in shapes)
        longest = tuple((shape.sequence,) for shape in shapes)
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

    def arrange(self, feeds: Feeds) -> ArrangedBatch:
        packed = pack(feeds, self.multiple)
        arrays = {
            "input_ids": packed.ids,
            "segment_ids": packed.segments,
            **({"positions": packed.positions} if self.positions else {}),
            "cu_seqlens": packed.starts,
            "max_seqlen": np.zeros(packed.shape[1], np.int32),
        }
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        return ArrangedBatch(contiguous, packed.shape, starts=packed.starts if packed.padded else None)


def plugin_layout(
    options: PluginOptions, longest: int, tokens: Mapping[Shape, int] | None = None, native: bool = False
) -> Layout:
    """Return the layout of an engine of plugins.

    Args:
        longest: longest sequence, in tokens.
        tokens: as in Packed.
        native: TensorRT's own layers replace the plugins. Unlike the embedding plugin, they need positions as an input.
    """
    if not options.packed:
        return Columns()
    return Packed(native or longest > PLUGIN_POSITIONS, tokens, options.pad_to_multiple_of)
