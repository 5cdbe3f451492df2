"""config.pbtxt of a model for Triton Inference Server.

The fields are those of ModelConfig in Triton's model_config.proto. Two kinds of models are written: a file that Triton
itself runs with TensorRT, ONNX Runtime or OpenVINO, and a model.py of the Python backend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from backends.base import Shape
from suites.deploying.config_text import Symbol, map_entries, text_of

TYPES = {"int32": "TYPE_INT32", "int64": "TYPE_INT64", "float": "TYPE_FP32", "float32": "TYPE_FP32",
         "float16": "TYPE_FP16", "bfloat16": "TYPE_BF16", "int8": "TYPE_INT8", "bool": "TYPE_BOOL"}  # fmt: skip
"""Triton's type by the name of a type."""


@dataclass(frozen=True)
class Batching:
    """Rules of Triton's dynamic batcher.

    Attributes:
        delay_us: time that a request waits for others.
        preferred: sizes at which a batch starts without a further wait.
        queue: most requests that wait; others are rejected.
    """

    delay_us: int
    preferred: tuple[int, ...] = ()
    queue: int = 1000


@dataclass(frozen=True)
class Tensor:
    """An input or output. `dims` is without the axis of the batch; -1 is any size."""

    name: str
    type: str
    dims: tuple[int, ...]
    optional: bool = False
    ragged: bool = False


@dataclass(frozen=True)
class WarmUp:
    """A request that Triton runs before it reports the model as ready.

    Attributes:
        shape: rows and tokens.
        values: for each input its type, and a file below the folder `warmup`.
    """

    shape: Shape
    values: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class ModelConfig:
    """Configuration of a model.

    Attributes:
        backend: Triton's backend, such as "tensorrt", or "python".
        platform: older name of the backend, such as "tensorrt_plan"; empty if it has none.
        file: name of the model's file; empty for the default of the backend.
        largest: most rows of a batch.
        batching: None without the dynamic batcher.
        instances: number of copies of the model on a device.
        gpu: whether it runs on a GPU.
        profiles: number of optimization profiles of a TensorRT plan; 0 for another model.
        graphs: shapes for which TensorRT captures CUDA graphs.
    """

    name: str
    backend: str
    platform: str
    file: str
    largest: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batching: Batching | None
    instances: int = 1
    gpu: bool = False
    profiles: int = 0
    graphs: tuple[Shape, ...] = ()
    warm_up: tuple[WarmUp, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """Return the content of config.pbtxt."""
        message: dict[str, object] = {"name": self.name}
        message |= {"platform": self.platform} if self.platform else {}
        message |= {"backend": self.backend}
        message |= {"default_model_filename": self.file} if self.file else {}
        message |= {"max_batch_size": self.largest}
        message |= {"input": [_tensor(tensor) for tensor in self.inputs]}
        message |= {"output": [_tensor(tensor) for tensor in self.outputs]}
        message |= {"dynamic_batching": _batching(self.batching)} if self.batching else {}
        message |= {"instance_group": [self._instances()]}
        message |= {"optimization": self._optimization()} if self.graphs else {}
        message |= {"model_warmup": [_warm_up(item) for item in self.warm_up]}
        message |= {"parameters": map_entries({name: {"string_value": self.parameters[name]}
                                               for name in self.parameters})}  # fmt: skip
        return text_of(message)

    def _instances(self) -> dict[str, object]:
        kind = Symbol("KIND_GPU" if self.gpu else "KIND_CPU")
        group: dict[str, object] = {"count": self.instances, "kind": kind}
        return group | ({"profile": [str(number) for number in range(self.profiles)]} if self.profiles else {})

    def _optimization(self) -> dict[str, object]:
        specs = [
            {"batch_size": shape.batch,
             "input": map_entries({tensor.name: {"dim": [shape.sequence]} for tensor in self.inputs})}
            for shape in self.graphs
        ]  # fmt: skip
        return {"cuda": {"graphs": True, "graph_spec": specs}}


def _tensor(tensor: Tensor) -> dict[str, object]:
    message: dict[str, object] = {"name": tensor.name, "data_type": Symbol(tensor.type), "dims": list(tensor.dims)}
    message |= {"optional": True} if tensor.optional else {}
    return message | ({"allow_ragged_batch": True} if tensor.ragged else {})


def _batching(batching: Batching) -> dict[str, object]:
    return {
        "preferred_batch_size": list(batching.preferred),
        "max_queue_delay_microseconds": batching.delay_us,
        "default_queue_policy": {"max_queue_size": batching.queue},
    }


def _warm_up(item: WarmUp) -> dict[str, object]:
    inputs = {
        name: {"data_type": Symbol(kind), "dims": [item.shape.sequence], "input_data_file": file}
        for name, (kind, file) in item.values.items()
    }
    return {"name": str(item.shape), "batch_size": item.shape.batch, "inputs": map_entries(inputs)}


def preferred_sizes(shapes: Sequence[Shape], built: bool) -> tuple[int, ...]:
    """Return the sizes at which a batch starts at once: the largest one, or, if batches run in built shapes, all."""
    sizes = sorted({shape.batch for shape in shapes if shape.batch > 1})
    return tuple(sizes if built else sizes[-1:])
