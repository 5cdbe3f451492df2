"""FasterTransformer's BERT encoder, from a library that the user builds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from backends.config_key import key
from backends.description import BackendDescription, SourceKind
from backends.options import BackendOptions, Layout, SharedKeys
from backends.value_checks import Refused, between

Options = TypeVar("Options", bound="FasterTransformerOptions")


@dataclass
class FasterTransformerKeys:
    """The group `faster_transformer` of the command line."""

    library: str = key("", "Path of libth_transformer.so, FasterTransformer's operator for PyTorch.", paths=True)
    int8_mode: int = key(
        1,
        "precision=int8: 1 has one scale for each output channel of a weight, and residuals in FP16; 2 has one scale "
        "for each weight, and residuals and outputs of products in INT8.",
        added_later=True,
    )

    def __post_init__(self) -> None:
        between("faster_transformer.int8_mode", self.int8_mode, 1, 2)


@dataclass
class FasterTransformerOptions(FasterTransformerKeys, BackendOptions):
    """Options of backend faster_transformer. `library` is empty or the absolute path of a file."""

    layout: Layout = key(Layout.packed)

    @classmethod
    def resolved(cls: type[Options], shared: SharedKeys, groups: Mapping[str, object]) -> Options:
        options = super().resolved(shared, groups)
        if not options.library:
            return options
        if not Path(options.library).is_file():
            raise Refused(
                f"faster_transformer.library={options.library} is not a file; give the path of libth_transformer.so"
            )
        # Workers run in other folders.
        return replace(options, library=str(Path(options.library).resolve()))

    def for_cell(self) -> dict[str, object]:
        """Return the options for a cell. The library is given by its file name and a digest of its content."""
        from backends.cache import digest_of  # imports numpy, which the help of a command does not need

        library = Path(self.library)
        named = f"{library.name} {digest_of(library)[:16]}" if self.library else ""
        return {**super().for_cell(), "library": named}


OF_THE_MODE = "faster_transformer.int8_mode decides it"
OWN_SCALES = "FasterTransformer has its own places of INT8, with the largest value of each as its range"

BACKENDS = (
    BackendDescription(
        name="faster_transformer",
        factory="backends.faster_transformer_.faster_transformer:FasterTransformer",
        source=SourceKind.onnx,
        devices=("cuda",),
        time_limit_s=1200.0,
        cuda_graph=False,
        options=FasterTransformerOptions,
        groups={"faster_transformer": FasterTransformerKeys},
        packs_tokens=True,
        unused_quantization={
            "per_channel": OF_THE_MODE,
            "activation=uint8": "INT8 of FasterTransformer is signed; use auto",
            **dict.fromkeys(
                ("placement", "method", "percentile", "leave_out", "smooth", "shift", "exact_residual", "qat_steps",
                 "reduce_range"),
                OWN_SCALES,
            ),
        },
    ),
)  # fmt: skip
