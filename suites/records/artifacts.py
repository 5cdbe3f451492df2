"""Artifacts of a cell in its record: digests, versions, seconds and notes of each file, without paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from backends.json_part import Part, optional, optional_mapping
from backends.model.encoder_sizes import EncoderSizes


@dataclass(frozen=True)
class CheckpointCheck(Part):
    """Comparison of outputs with transformers.

    Attributes:
        difference: largest difference, relative to the largest value.
        lengths: number of compared sequence lengths.
        longest: the longest of them.
        limit: why it is shorter than the longest sequence of the cell: "memory", "time", or empty.
    """

    difference: float
    lengths: int
    longest: int
    limit: str = optional("")


@dataclass(frozen=True)
class Weights(Part):
    """Weights that an artifact is built from.

    Attributes:
        sha256: digest of the source.
        parts: name patterns of the parts of the encoder.
        checked: comparisons with transformers, by name.
        points: number of points of the model that can be marked; None if the suite marks none.
        identity, origin: of the checkpoint; empty without a model.
        sizes: of the encoder; None in older records, without a model, or if its operations are not counted.
    """

    sha256: str = optional("")
    parts: tuple[str, ...] | None = optional(None)
    checked: Mapping[str, CheckpointCheck] | None = optional(None)
    points: int | None = optional(None)
    identity: str = optional("")
    origin: str = optional("")
    sizes: EncoderSizes | None = optional(None)


@dataclass(frozen=True)
class OpenNotes(Part):
    """Notes that the project only stores.

    Attributes:
        more: values by name.
    """

    json_items: ClassVar[Mapping[str, str]] = {"more": ".*"}

    more: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class GraphNotes(OpenNotes):
    """Notes about an ONNX file.

    Attributes:
        weight_products: number of weight products of the encoder; None if nothing was quantized.
        weight_products_quantized: those of them that have Q/DQ.
        more: other notes, by name.
    """

    weight_products: int | None = optional(None)
    weight_products_quantized: int | None = optional(None)


@dataclass(frozen=True)
class BuiltNotes(OpenNotes):
    """Notes of a backend about its artifact.

    Attributes:
        engine_bytes: size of an engine; None for other artifacts.
        product_types: number of matrix products by type, such as "i8".
        profiles: the optimization profiles as text.
        gelu: kind of GELU.
        provider: execution provider that the cell names; empty without one.
        nodes_by_provider: number of nodes by execution provider, or by library, that runs them; None if not counted.
        started_early_s: seconds of the start of the builder, if it ran during the export; None otherwise.
        more: other notes of the backend, by name.
    """

    engine_bytes: float | None = optional(None)
    product_types: Mapping[str, int] | None = optional(None)
    profiles: tuple[str, ...] = optional(())
    gelu: str = optional("")
    provider: str = optional("")
    nodes_by_provider: Mapping[str, int] | None = optional(None)
    started_early_s: float | None = optional(None)


@dataclass(frozen=True)
class ShapeTokens(Part):
    """Tokens of the inputs of one shape.

    Attributes:
        tokens: number without padding.
        cut: number of texts that were cut.
        sets: number of tokens of each set of inputs of suite=switching.
    """

    tokens: int
    cut: int | None = optional(None)
    sets: tuple[int, ...] | None = optional(None)


@dataclass(frozen=True)
class InputNotes(Part):
    """Notes about the inputs.

    Attributes:
        tokens: kind of token ids that was selected.
        shapes: tokens by name of a shape.
        passes: for each batch that runs in several passes, the rows, the length and the tokens of each pass.
        cut, texts: number of texts of a task that were cut, and of all texts.
        made_up: shapes with artificial lengths, because the distribution gives none.
        pooling: pooling of a sentence encoder; empty without one.
    """

    tokens: str = optional("")
    shapes: Mapping[str, ShapeTokens] = optional_mapping()
    passes: Mapping[str, tuple[tuple[int, int, int], ...]] = optional_mapping()
    cut: int | None = optional(None)
    texts: int | None = optional(None)
    made_up: tuple[str, ...] | None = optional(None)
    pooling: str = optional("")


@dataclass(frozen=True)
class ProducedFile(Part):
    """A file without its path.

    Attributes:
        versions: versions of the packages that produced it, by name.
        seconds: wall time of its production, with that of a part which ran before its stage.
    """

    sha256: str = optional("")
    versions: Mapping[str, str] | None = optional(None)
    seconds: float | None = optional(None)


@dataclass(frozen=True)
class StoredFile(ProducedFile):
    """A file whose notes the project only stores."""

    notes: OpenNotes = field(default_factory=OpenNotes)


@dataclass(frozen=True)
class GraphFile(ProducedFile):
    """An ONNX file."""

    notes: GraphNotes = field(default_factory=GraphNotes)


@dataclass(frozen=True)
class InputFile(ProducedFile):
    """Inputs of the measurement."""

    notes: InputNotes = field(default_factory=InputNotes)


@dataclass(frozen=True)
class TokenizationNotes(Part):
    """Times of the tokenizer on texts of each shape.

    Attributes:
        threads: number of threads of the tokenizer.
        threads_from: source of this number: "RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM", or "CPUs" for the default.
        samples_ns: host time of each batch, from texts to arrays of token ids, by name of a shape.
    """

    threads: int | None = optional(None)
    threads_from: str = optional("")
    samples_ns: Mapping[str, tuple[int, ...]] = optional_mapping()


@dataclass(frozen=True)
class TokenizationFile(ProducedFile):
    """Times of the tokenizer."""

    notes: TokenizationNotes = field(default_factory=TokenizationNotes)


@dataclass(frozen=True)
class BuiltFile(ProducedFile):
    """Artifact of the backend."""

    notes: BuiltNotes = field(default_factory=BuiltNotes)


@dataclass(frozen=True)
class Artifacts(Part):
    """Files that a cell made, in the order of the stages. A file that it did not make is None.

    Attributes:
        onnx: the ONNX file that the backend builds from.
        arrays: plain weights, for a backend that builds its own network.
        ranges: activation ranges of calibration.
        trained, searched: files of training and of a range search.
        tokenization: times of the tokenizer. Cells with the same texts and shapes share them.
    """

    weights: Weights | None = optional(None)
    onnx: GraphFile | None = optional(None)
    arrays: StoredFile | None = optional(None)
    ranges: StoredFile | None = optional(None)
    trained: StoredFile | None = optional(None)
    searched: StoredFile | None = optional(None)
    inputs: InputFile | None = optional(None)
    tokenization: TokenizationFile | None = optional(None)
    built: BuiltFile | None = optional(None)

    @property
    def input_notes(self) -> InputNotes:
        """Notes about the inputs; without values if there are none."""
        return self.inputs.notes if self.inputs else InputNotes()

    @property
    def graph_notes(self) -> GraphNotes:
        """Notes about the ONNX file; without values if there is none."""
        return self.onnx.notes if self.onnx else GraphNotes()

    @property
    def tokenization_notes(self) -> TokenizationNotes:
        """Times of the tokenizer; without values if it was not measured."""
        return self.tokenization.notes if self.tokenization else TokenizationNotes()

    @property
    def built_notes(self) -> BuiltNotes:
        """Notes of the backend; without values if nothing was built."""
        return self.built.notes if self.built else BuiltNotes()

    @property
    def origin(self) -> str:
        """Where the weights came from, e.g. "hub OWNER/NAME@REVISION"; empty without a model."""
        return self.weights.origin if self.weights else ""

    @property
    def built_sha256(self) -> str:
        """SHA-256 of the artifact of the backend; empty if nothing was built."""
        return self.built.sha256 if self.built else ""

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each file by name."""
        files = {name: getattr(self, name) for name in ("weights", "onnx", "arrays", "ranges", "trained", "searched",
                                                        "inputs", "built")}  # fmt: skip
        return {name: file.sha256 for name, file in files.items() if file is not None}
