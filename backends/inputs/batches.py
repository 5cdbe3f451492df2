"""Model inputs for every shape of a cell, and their FP32 reference outputs.

All inputs are int32 [batch, sequence], padded on the right. Tokens come from continuous text if the checkpoint has a
tokenizer; otherwise they are random ids. The length distribution of the cell gives the sequence lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from backends.base import Array, Artifact, Feeds, Shape, Unavailable, versions_of
from backends.cache import ArtifactCache
from backends.inputs.lengths import Lengths
from backends.inputs.reference_outputs import PACKAGES, ReferenceOutputs
from backends.model.checkpoint import input_names, load_encoder, run_encoder
from backends.model.checkpoint_files import read_config
from backends.model.families import padding_id, uncounted_id, vocabulary_of
from backends.model.heads import head_of
from backends.model.tokenizer import (
    check_counted,
    check_ids,
    counted,
    has_tokenizer,
    ids_out_of_range,
    load_tokenizer,
    no_tokens_error,
    special_tokens_of,
)
from backends.model_output import LAST_HIDDEN, Output

REFERENCE_ROWS = 8
"""Number of sequences of each batch with a reference output. They are evenly spread and include the first and last."""


@dataclass(frozen=True)
class Tokens:
    """Token ids from which sequences are built.

    Attributes:
        kind: "text" or "random".
        sentences: ids without special tokens.
        prefix, suffix: special tokens that the tokenizer adds around a text.
        pad: id of padding.
        vocabulary: number of rows of the model's embedding; 0 if ids need no check.
        beyond: texts of the tokens without a row in the embedding, by id.
        uncounted: id of tokens without a position of their own, see `uncounted_id`; None if ids need no check.
    """

    kind: str
    sentences: tuple[tuple[int, ...], ...]
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    pad: int
    vocabulary: int = 0
    beyond: Mapping[int, str] = field(default_factory=dict)
    uncounted: int | None = None

    @classmethod
    def of(cls, folder: Path, kind: str, texts: Sequence[str], seed: int) -> Tokens:
        """Tokenize `texts` if `kind` is "text", or "auto" and the checkpoint has a tokenizer; else draw random ids.

        Raises:
            Unavailable: `kind` is "text" and the checkpoint has no tokenizer, or the tokenizer makes no tokens.
        """
        config = read_config(folder)
        pad, vocabulary, uncounted = padding_id(config), vocabulary_of(config), uncounted_id(config)
        if kind == "text" and not has_tokenizer(folder):
            raise Unavailable("lengths.tokens=text needs a tokenizer.json, which this checkpoint lacks; use random")
        if kind == "text" or (kind == "auto" and has_tokenizer(folder)):
            tokenizer = load_tokenizer(folder)
            ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
            if not any(ids):
                raise no_tokens_error(" (INT8: task.calibration=FILE), or, for latency, use lengths.tokens=random")
            prefix, suffix = special_tokens_of(tokenizer, texts)
            beyond = ids_out_of_range(tokenizer, [*ids, prefix, suffix], vocabulary)
            return cls("text", tuple(tuple(row) for row in ids), prefix, suffix, pad, vocabulary, beyond, uncounted)
        first, last = counted(np.minimum((2, 3), vocabulary - 1), uncounted, vocabulary).tolist()
        drawn = np.random.default_rng(seed).integers(10 if vocabulary > 10 else 0, vocabulary, (64, 24))
        rows = counted(drawn, uncounted, vocabulary).tolist()
        return cls("random", tuple(tuple(row) for row in rows), (first,), (last,), pad)

    @property
    def around(self) -> int:
        """Number of special tokens in a sequence."""
        return len(self.prefix) + len(self.suffix)

    def running(self, start: int) -> Iterator[int]:
        """Yield ids without end, from sentence `start` on."""
        for index in cycle(range(len(self.sentences))):
            yield from self.sentences[(start + index) % len(self.sentences)]

    def natural_length(self, row: int) -> int:
        return max(1, len(self.sentences[row % len(self.sentences)]) + self.around)

    def feeds(
        self, lengths: Sequence[int], sequence: int, names: Sequence[str], rows: Sequence[int] = ()
    ) -> dict[str, Array]:
        """Return one batch, int32 [batch, sequence] by input name.

        Args:
            lengths: number of tokens of each row, special tokens included.
            sequence: number of tokens to which all rows are padded.
            names: the inputs to return.
            rows: index of the first sentence of each row; 0, 1, 2, ... if empty.

        Raises:
            Unavailable: a token has no row in the model's embedding, or no position of its own.
        """
        ids = np.full((len(lengths), sequence), self.pad, np.int32)
        mask = np.zeros((len(lengths), sequence), np.int32)
        for row, (length, start) in enumerate(zip(lengths, rows or range(len(lengths)), strict=True)):
            body = islice(self.running(start), max(0, length - self.around))
            ids[row, :length] = [*self.prefix, *body, *self.suffix][:length]
            mask[row, :length] = 1
        if self.vocabulary:
            check_ids(np.unique(ids).tolist(), self.beyond, self.vocabulary)
        check_counted([ids[mask > 0]], self.uncounted)
        arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return {name: arrays[name] for name in names}


def draw_lengths(lengths: Lengths, shape: Shape, tokens: Tokens, seed: int) -> tuple[list[int], int]:
    """Return the number of tokens of each sequence in a batch, and the number of sequences that were truncated.

    Args:
        shape: number of sequences, and their largest length.
        tokens: for "texts", the sentences whose lengths are used.
    """
    generator = np.random.default_rng([seed, shape.batch, shape.sequence])
    if lengths.distribution == "full":
        return [shape.sequence] * shape.batch, 0
    if lengths.distribution == "uniform":
        low = min(lengths.low, shape.sequence)
        return generator.integers(low, shape.sequence + 1, shape.batch).tolist(), 0
    if lengths.distribution == "texts":
        drawn = [tokens.natural_length(row) for row in range(shape.batch)]
    elif lengths.distribution == "lognormal":
        assert lengths.mean is not None
        assert lengths.sigma is not None
        location = np.log(lengths.mean) - lengths.sigma**2 / 2
        samples = generator.lognormal(location, lengths.sigma, shape.batch)
        drawn = np.maximum(samples, lengths.low).round().astype(int).tolist()
    else:
        counts = lengths.counts
        shares = np.asarray(counts) / sum(counts) if counts else None
        drawn = generator.choice(np.asarray(lengths.values), shape.batch, p=shares).tolist()
    return [min(n, shape.sequence) for n in drawn], sum(n > shape.sequence for n in drawn)


def split(drawn: Sequence[int], longest: int, passes: int, multiple: int) -> list[tuple[Shape, list[int]]]:
    """Return the shape and the rows of each pass over a batch.

    Args:
        drawn: number of tokens of each sequence.
        longest: number of tokens to which a single pass is padded.
        passes: number of passes.
        multiple: with several passes, each is padded to a multiple of this number of tokens.

    Raises:
        ValueError: the batch cannot be split into this number of equal passes.
    """
    if passes == 1:
        return [(Shape(len(drawn), longest), list(range(len(drawn))))]
    size, rest = divmod(len(drawn), passes)
    if rest or not size:
        raise ValueError(
            f"a batch of {len(drawn)} cannot be split into {passes} equal passes; give passes that divide it"
        )
    order = sorted(range(len(drawn)), key=lambda row: drawn[row])
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    ends = [min(longest, -(-drawn[part[-1]] // multiple) * multiple) for part in parts]
    return [(Shape(size, end), part) for end, part in zip(ends, parts, strict=True)]


@dataclass(frozen=True)
class InputSource:
    """Settings from which the inputs of all shapes are made.

    Attributes:
        folder: folder of the checkpoint. Its tokenizer, if it has one, tokenizes `texts`.
        identity: identity of the checkpoint, see backends/model/identity.py.
        device: "cuda" or "cpu"; the reference is computed on it.
        output: output of the model.
    """

    folder: Path
    identity: str
    lengths: Lengths
    texts: Sequence[str]
    seed: int
    device: str
    cache: ArtifactCache
    output: Output = LAST_HIDDEN

    def tokens(self) -> Tokens:
        return Tokens.of(self.folder, self.lengths.tokens, self.texts, self.seed)

    def reference(self) -> Callable[[Feeds], Array]:
        """Load the model; return a function from int32 feeds [batch, sequence] to its output in FP32."""
        import torch

        encoder = load_encoder(self.folder).to(self.device)
        head = head_of(self.folder, self.output)
        layers: torch.nn.Module | None = None
        if head is not None:
            from backends.model.output_head import OutputHead

            layers = OutputHead(head).to(self.device)
        torch.set_float32_matmul_precision("highest")

        def run(feeds: Feeds) -> Array:
            with torch.inference_mode():
                output = run_encoder(encoder, feeds)
                if layers is not None:
                    output = layers(output, torch.from_numpy(feeds["attention_mask"]).to(output.device))
                return np.asarray(output.cpu().numpy())

        return run

    @property
    def key(self) -> Mapping[str, object]:
        """Checkpoint, output and seed, for cache keys."""
        return {"checkpoint": self.identity, "seed": self.seed, **self.output.for_cell()}

    def cached(self, file: str, more: Mapping[str, object], build: Callable[[Path], Mapping[str, object]]) -> Artifact:
        """Return the .npz that `build` writes, from the cache if possible. Its key is all fields and `more`."""
        key = {**self.key, "lengths": self.lengths.settings(), "texts": list(self.texts), **more}
        return self.cache.get("inputs", key, file, build, versions_of(PACKAGES))


def reference_rows(batch: int) -> Array:
    """Return the rows of a batch with a reference output, at most REFERENCE_ROWS."""
    return np.unique(np.linspace(0, batch - 1, min(batch, REFERENCE_ROWS)).round().astype(int))


def prepare_inputs(origin: InputSource, shapes: Sequence[Shape]) -> Artifact:
    """Write an .npz with the feeds of each shape, `reference` [rows, ...] FP32 and the `rows` of it.

    Names are "<batch>x<sequence>/<array>". The notes of the artifact give, by shape, the number of tokens without
    padding and the number of truncated sequences.

    With `lengths.passes`, each batch is sorted by length and split into this number of passes. Each pass is padded
    to its longest sequence, rounded up to a multiple of `lengths.multiple`. The arrays then have the shapes of the
    passes, and the notes list batch, sequence and tokens of the passes of each batch. Passes of the same shape share
    the arrays of the pass with the most tokens, so that packed attention is never measured on fewer tokens.
    """
    lengths = origin.lengths

    def build(path: Path) -> Mapping[str, object]:
        tokens, names, reference = origin.tokens(), input_names(origin.folder), ReferenceOutputs(origin)
        arrays: dict[str, Array] = {}
        by_shape: dict[str, dict[str, int]] = {}
        by_batch: dict[str, list[list[int]]] = {}
        fullest: dict[Shape, tuple[int, list[int], list[int], int]] = {}
        for batch_shape in shapes:
            drawn, cut = draw_lengths(lengths, batch_shape, tokens, origin.seed)
            passes = split(drawn, batch_shape.sequence, lengths.passes, lengths.multiple)
            for shape, pass_rows in passes:
                row_lengths = [drawn[row] for row in pass_rows]
                if shape not in fullest or sum(row_lengths) > fullest[shape][0]:
                    fullest[shape] = sum(row_lengths), row_lengths, pass_rows, cut
            if len(passes) > 1:
                counted = [[s.batch, s.sequence, sum(drawn[row] for row in pass_rows)] for s, pass_rows in passes]
                by_batch[str(batch_shape)] = counted
        for shape, (count, row_lengths, pass_rows, cut) in fullest.items():
            feeds, rows = tokens.feeds(row_lengths, shape.sequence, names, pass_rows), reference_rows(shape.batch)
            arrays |= {f"{shape}/{name}": feeds[name] for name in names}
            arrays |= {f"{shape}/reference": reference.of({name: feeds[name][rows] for name in names})}
            arrays |= {f"{shape}/rows": rows}
            by_shape[str(shape)] = {"tokens": count, "cut": cut}
        np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy types keywords as allow_pickle
        return {"tokens": tokens.kind, "shapes": by_shape, **({"passes": by_batch} if by_batch else {})}

    return origin.cached("inputs.npz", {"shapes": [str(shape) for shape in shapes]}, build)
