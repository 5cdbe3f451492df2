"""Parts of the export of an ONNX graph: INT8 weights, and the description of inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import Array
from backends.deployment import Deployment, TensorInfo
from backends.inputs.samples import mean_cosine, padded_rows, sample_runs
from backends.onnx_ import onnx_files
from backends.onnx_.compact_weights import compact_weights

if TYPE_CHECKING:
    import onnx

AXES = ("batch", "sequence")

LARGEST_LOSS = 0.005
"""Largest loss of the mean cosine to FP32 for which weights or embeddings are stored as INT8. Otherwise they stay in
FP32."""

Run = Callable[[Mapping[str, Array]], Array]


def write_int8(deployment: Deployment, target: Path, open_file: Callable[[Path], Run]) -> dict[str, object]:
    """Write the measured graph to `target` with INT8 weights and embeddings; return notes for the manifest.

    They stay in FP32 if the outputs of the samples become less similar to FP32. A dynamic graph has INT8 weights
    already. The notes have the mean cosine of the samples to FP32, for the measured and for the exported file.

    Args:
        open_file: opens an ONNX file with the runtime of the export.
    """
    source = deployment.artifact.path
    measured = _cosine(deployment, open_file(source))
    for embeddings in (True, False):
        counts = compact_weights(source, target, embeddings)
        exported = _cosine(deployment, open_file(target))
        if exported >= measured - LARGEST_LOSS:
            break
    else:
        onnx_files.copy(source, target)
        counts, exported = {"weights": 0, "embeddings": 0}, measured
    dynamic = deployment.spec.quantization.dynamic
    return {
        "int8_weights": deployment.artifact.notes["quantized"] if dynamic else counts["weights"],
        "int8_embeddings": counts["embeddings"],
        "mean_cosine_to_fp32": {"measured_file": measured, "exported_file": exported},
    }


def _cosine(deployment: Deployment, run: Run) -> float:
    """Return the mean cosine of the samples' vectors to those of the FP32 reference."""
    outputs: list[Array] = []
    spec, per_token = deployment.spec, deployment.spec.output.per_token
    for arranged, parts in sample_runs(deployment.samples, spec.shapes, deployment.names, padded_rows, per_token):
        output = run(arranged.arrays)
        outputs += [output.reshape(-1, output.shape[-1])[places] for _, places in parts]
    return mean_cosine(outputs, [sample.reference for sample in deployment.samples])


def tensors_of(path: Path) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
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
