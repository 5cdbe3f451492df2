"""A model that the server of NVIDIA's container runs itself: its file, config.pbtxt and requests for the warm-up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backends.base import Shape
from backends.deployment import Deployed, TensorInfo
from backends.registry import describe
from suites.deploying.model_config import TYPES, Batching, ModelConfig, Tensor, WarmUp
from suites.exporting.manifest import ExportedModel
from suites.schema.refusals import Refused

WARM_UP = "warmup"
"""Folder of the requests for the warm-up; Triton looks for them there."""

ID_TYPES = {"TYPE_INT32": np.int32, "TYPE_INT64": np.int64}

FIRST_OUTPUT = "sample0/expected"
"""Output of the first sample in expected.npz, [rows, features]."""


def container_config(name: str, model: ExportedModel, version: Path, batching: Batching | None) -> ModelConfig:
    """Return the configuration of an exported model, for one instance and without a warm-up.

    Args:
        version: the exported folder.
        batching: None for one request at a time.

    Raises:
        Refused: Triton has no backend for the file, or no type for a tensor.
    """
    cell, deployed = model.record.cell, model.deployed
    export = describe(cell.backend).export
    assert export is not None
    assert export.triton is not None
    backend, platform = export.triton
    with np.load(version / "expected.npz", allow_pickle=False) as arrays:
        features = int(arrays[FIRST_OUTPUT].shape[-1])
    gpu = cell.device == "cuda"
    return ModelConfig(
        name=name,
        backend=backend,
        platform=platform,
        file=deployed.files[0],
        largest=max(batch for batch, _ in cell.shapes),
        inputs=tuple(_tensor(tensor, (-1,)) for tensor in deployed.inputs),
        outputs=tuple(_tensor(tensor, _output_dims(tensor, features)) for tensor in deployed.outputs),
        batching=batching,
        gpu=gpu,
        profiles=len(deployed.profiles),
        graphs=_graph_shapes(deployed, [Shape(*shape) for shape in cell.shapes], bool(cell.options.get("cuda_graph"))),
    )


def write_warm_up(folder: Path, inputs: Sequence[Tensor], shapes: Sequence[Shape]) -> tuple[WarmUp, ...]:
    """Write the arrays of one request for each shape, all ones: a token id that every model has, without padding."""
    target = folder / WARM_UP
    target.mkdir()
    requests = []
    for shape in shapes:
        values = {}
        for tensor in inputs:
            file = f"{tensor.name}-{shape}"
            fill = 0 if tensor.name == "token_type_ids" else 1
            (target / file).write_bytes(np.full((shape.batch, shape.sequence), fill, ID_TYPES[tensor.type]).tobytes())
            values[tensor.name] = tensor.type, file
        requests.append(WarmUp(shape, values))
    return tuple(requests)


def _tensor(tensor: TensorInfo, dims: tuple[int, ...]) -> Tensor:
    if tensor.dtype not in TYPES:
        raise Refused(f"Triton has no type {tensor.dtype}, which {tensor.name} has; use --server python")
    return Tensor(tensor.name, TYPES[tensor.dtype], dims)


def _output_dims(tensor: TensorInfo, features: int) -> tuple[int, ...]:
    """Return the axes of an output without the batch. The last one has the number of features."""
    return (*[-1] * (len(tensor.shape) - 2), features)


def _graph_shapes(deployed: Deployed, shapes: Sequence[Shape], measured: bool) -> tuple[Shape, ...]:
    """Return the shapes for CUDA graphs: all of a TensorRT plan, if the cell was measured with graphs too."""
    return tuple(shapes) if deployed.profiles and measured else ()
