"""Backend `faster_transformer`: NVIDIA FasterTransformer's BERT encoder through its operator for PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from backends.base import (
    Array,
    Artifact,
    Backend,
    BuildSpec,
    Device,
    Feeds,
    Opening,
    Session,
    Source,
    SourceForm,
    Unavailable,
    Unsupported,
    versions_of,
)
from backends.cache import digest_of
from backends.faster_transformer_.description import FasterTransformerOptions
from backends.faster_transformer_.int8_scales import Ranges, calibrate, scale_list
from backends.faster_transformer_.operator_weights import operator_weights
from backends.json_codec import from_json
from backends.model.heads import Head
from backends.options import Layout

PRECISIONS = ("fp32", "fp16", "bf16", "int8")

HOW_TO_BUILD = (
    "faster_transformer.library is empty: build libth_transformer.so from https://github.com/NVIDIA/FasterTransformer "
    "with cmake -DCMAKE_BUILD_TYPE=Release -DBUILD_PYT=ON -DBUILD_MULTI_GPU=OFF -DSM=80 (the compute capability of "
    "your GPU without its point), and give its path"
)

RANGES = "int8_ranges"
"""Note of an artifact: the ranges of INT8, see `calibrate`."""

HEAD_MULTIPLE = 32
"""INT8 kernels need heads whose size is a multiple of this."""


class FasterTransformer(Backend):
    distributions = ("torch",)

    def check(self, spec: BuildSpec) -> None:
        options = spec.options_as(FasterTransformerOptions)
        if spec.precision not in PRECISIONS:
            raise Unsupported(
                f"FasterTransformer's BERT operators compute in fp32, fp16, bf16 and int8, not in {spec.precision}"
            )
        if spec.precision == "int8" and not spec.quantization.explicit:
            raise Unsupported("the suite calibrates INT8 of FasterTransformer; use quantization.scheme=explicit")
        if spec.precision == "int8" and spec.device.kind == "cuda":
            _check_int8_capability(spec.device)
        if spec.precision != "int8" and options.int8_mode != 1:
            raise Unsupported("faster_transformer.int8_mode is for precision=int8; leave it out")
        if not versions_of(self.distributions):
            raise Unavailable("torch is not installed in this interpreter: pip install torch==2.13.0")
        if not options.library:
            raise Unavailable(HOW_TO_BUILD)
        if not Path(options.library).is_file():
            raise Unavailable(f"{options.library} is not a file; give the path of libth_transformer.so")

    def source_form(self, spec: BuildSpec) -> SourceForm:
        return SourceForm(arrays=True, calibration=spec.precision == "int8")

    def build(self, spec: BuildSpec, source: Source) -> Artifact:
        """Return the plain weights unchanged, with a digest of the library and, for INT8, ranges as notes."""
        assert source.arrays is not None
        library = digest_of(Path(spec.options_as(FasterTransformerOptions).library))
        notes: dict[str, object] = {**source.arrays.notes, "library": library}
        if spec.precision == "int8":
            assert source.calibration is not None
            arrays = _loaded(source.arrays)
            check_int8_sizes(arrays)
            sizes = {name: from_json(float, notes[name], name) for name in ("heads", "epsilon")}
            notes[RANGES] = calibrate(arrays, operator_weights(arrays), sizes, batches_of(source.calibration))
        return replace(source.arrays, notes=notes)

    def opening(self, spec: BuildSpec, artifact: Artifact) -> Opening:
        import torch  # noqa: F401  timed separately

        yield "import", None
        from backends.faster_transformer_.operators import load_operators

        load_operators(Path(spec.options_as(FasterTransformerOptions).library))
        yield "library", None
        yield "load", self._load(spec, artifact)

    def _load(self, spec: BuildSpec, artifact: Artifact) -> Session:
        import torch

        from backends.faster_transformer_.encoder_session import EncoderModel, EncoderSession
        from backends.faster_transformer_.operators import EncoderChoices, open_encoder, open_int8_encoder
        from backends.model.output_head import OutputHead

        options, device = spec.options_as(FasterTransformerOptions), spec.device.kind
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}.get(spec.precision, torch.float16)
        arrays = _loaded(artifact)
        heads, head_size = (from_json(int, artifact.notes[name], name) for name in ("heads", "head_size"))
        choices = EncoderChoices(heads, head_size, options.layout is Layout.packed, dtype, device)
        weights = operator_weights(arrays)
        if spec.precision == "int8":
            scales = scale_list(from_json(Ranges, artifact.notes[RANGES], RANGES), weights, options.int8_mode)
            encoder = open_int8_encoder(weights, scales, options.int8_mode, choices)
        else:
            encoder = open_encoder(weights, choices)
        head: OutputHead | None = None
        if notes := from_json(Mapping[str, object], artifact.notes.get("head", {}), "head"):
            head = OutputHead(Head.of_arrays(arrays, notes)).to(device, dtype)
        embeddings = {
            name: torch.from_numpy(array).to(device, dtype) for name, array in arrays.items() if "/" not in name
        }
        epsilon = from_json(float, artifact.notes["epsilon"], "epsilon")
        return EncoderSession(EncoderModel(embeddings, epsilon, encoder, head), spec)


def _check_int8_capability(device: Device) -> None:
    """Raise Unsupported if the operators compute no INT8 on a GPU.

    On an H100 they run, but their outputs have a cosine of -0.12 to -0.09 to those of the reference. The probable
    cause: cuBLASLt does not have the layout COL32 on Hopper, and the library does not read its status.
    """
    if device.compute_capability < (7, 5):
        fault = f"needs compute capability 7.5; {device.name} is older"
    elif device.compute_capability >= (9, 0):
        fault = f"gives wrong outputs on Hopper and later GPUs, such as {device.name}"
    else:
        return
    raise Unsupported(f"INT8 of FasterTransformer {fault}; use precision=fp16")


def check_int8_sizes(arrays: Mapping[str, Array]) -> None:
    """Raise Unsupported if the operator `INT8Bert` cannot have the sizes of an encoder."""
    inner, hidden = arrays["0/up_weight"].shape
    head_size = arrays["0/qkv_weight"].shape[2]
    if inner != 4 * hidden:
        raise Unsupported(
            f"INT8 of FasterTransformer needs an intermediate size of 4 times the hidden size {hidden}, and this "
            f"model has {inner}; use precision=fp16"
        )
    if head_size % HEAD_MULTIPLE:
        raise Unsupported(
            f"INT8 of FasterTransformer needs a head size that is a multiple of {HEAD_MULTIPLE}, and this model has "
            f"{head_size}; use precision=fp16"
        )


def batches_of(calibration: Artifact) -> Iterator[Feeds]:
    """Yield the calibration inputs, see Source.calibration."""
    with np.load(calibration.path, allow_pickle=False) as stacked:
        arrays = {name: stacked[name] for name in stacked.files}
    for number in range(len(arrays["input_ids"])):
        yield {name: array[number] for name, array in arrays.items()}


def _loaded(artifact: Artifact) -> dict[str, Array]:
    with np.load(artifact.path, allow_pickle=False) as loaded:
        return {name: loaded[name] for name in loaded.files}
