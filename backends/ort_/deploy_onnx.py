"""Export of an ONNX file. The file is the measured one, except that an INT8 file stores its weights as INT8."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import Array, BuildSpec, versions_of
from backends.deployment import Deployed, Deployment, TensorInfo
from backends.inputs.samples import Arrange, mean_cosine, padded_rows, sample_runs
from backends.onnx_ import onnx_files
from backends.onnx_.compact_weights import compact_weights
from backends.ort_.ort import INSTALLED
from backends.ort_.run_onnx import Settings, open_model

if TYPE_CHECKING:
    import onnx

FILE = "model.onnx"

AXES = ("batch", "sequence")

LARGEST_LOSS = 0.005
"""Largest loss of the mean cosine to FP32 for which embeddings are stored as INT8. Otherwise they stay in FP32."""


def deploy_onnx(deployment: Deployment) -> tuple[Deployed, Arrange]:
    """Write the ONNX file.

    The notes of an INT8 file have the mean cosine of the samples to FP32, for the measured and for the exported file.
    """
    spec, target = deployment.spec, deployment.folder / FILE
    settings = _settings(spec)
    source = deployment.artifact.path
    notes: dict[str, object] = {}
    if spec.precision == "int8":
        notes = _write_compact(deployment, source, target, settings)
    else:
        onnx_files.copy(source, target)
    files = [FILE, *([onnx_files.data_file(target).name] if onnx_files.is_large(target) else [])]
    name, version = next(iter(versions_of(INSTALLED).items()))
    inputs, outputs = _tensors(target)
    return Deployed((name, version), tuple(files), settings, inputs, outputs, (), notes), padded_rows


def _settings(spec: BuildSpec) -> Settings:
    """Return the file, the execution provider of a cell and its options.

    The CUDA provider uses TF32 unless it is turned off.
    """
    if spec.device.kind != "cuda":
        return {"file": FILE, "provider": "CPUExecutionProvider", "provider_options": {}}
    return {
        "file": FILE,
        "provider": "CUDAExecutionProvider",
        "provider_options": {"use_tf32": "1" if spec.precision == "tf32" else "0"},
    }


def _write_compact(deployment: Deployment, source: Path, target: Path, settings: Settings) -> dict[str, object]:
    """Write a graph with INT8 weights, and with INT8 embeddings if the samples stay as similar to FP32.

    A dynamic graph has INT8 weights already.
    """
    measured = _cosine(deployment, source.parent, {**settings, "file": source.name})
    counts = compact_weights(source, target)
    exported = _cosine(deployment, target.parent, settings)
    if exported < measured - LARGEST_LOSS:
        counts = compact_weights(source, target, embeddings=False)
        exported = _cosine(deployment, target.parent, settings)
    return {
        "int8_weights": deployment.artifact.notes["quantized"]
        if deployment.spec.quantization.dynamic
        else counts["weights"],
        "int8_embeddings": counts["embeddings"],
        "mean_cosine_to_fp32": {"measured_file": measured, "exported_file": exported},
    }


def _cosine(deployment: Deployment, folder: Path, settings: Settings) -> float:
    """Return the mean cosine of the samples' vectors to those of the FP32 reference."""
    run = open_model(folder, settings)
    outputs: list[Array] = []
    spec, per_token = deployment.spec, deployment.spec.output.per_token
    for arranged, parts in sample_runs(deployment.samples, spec.shapes, deployment.names, padded_rows, per_token):
        output = run(arranged.arrays)
        outputs += [output.reshape(-1, output.shape[-1])[places] for _, places in parts]
    return mean_cosine(outputs, [sample.reference for sample in deployment.samples])


def _tensors(path: Path) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Return the inputs and the outputs of an ONNX file."""
    graph = onnx_files.graph_of(path)
    return tuple(_tensor(value) for value in graph.input), tuple(_tensor(value) for value in graph.output)


def _tensor(value: onnx.ValueInfoProto) -> TensorInfo:
    import onnx

    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    axes = [axis.dim_param or str(axis.dim_value) for axis in tensor.shape.dim]
    # The exporter names the hidden axis after a node.
    return TensorInfo(
        value.name, dtype, tuple(axis if axis in AXES or axis.isdecimal() else "features" for axis in axes)
    )
