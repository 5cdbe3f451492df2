"""Read and write ONNX files of any size.

A protobuf message holds at most 2 GB. A larger model keeps its weights in a second file, `<name>.data`, beside the
graph. The digest of an artifact is that of the graph, so that the graph holds the digest of its weights.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from backends.base import Unsupported
from backends.cache import digest_of

MOST_BYTES = 1_900_000_000
"""Weights that a file keeps within the graph; some room is left for what is added to it."""

LARGEST_TENSOR = 2**31 - 2**20
"""Bytes of a tensor that a message holds with its name and shape."""

DIGEST = "weights_sha256"
"""The property of a graph that holds the digest of the weights beside it."""

INLINE = 1024
"""Bytes up to which a tensor stays in the graph: shapes are inferred from small constants."""


def data_file(path: Path) -> Path:
    """Where the weights of a large model lie."""
    return path.with_name(f"{path.name}.data")


def is_large(path: Path) -> bool:
    """Whether the weights of the model at `path` lie beside it."""
    return data_file(path).exists()


def graph_of(path: Path) -> Any:
    """The graph of a model; the weights of a large one stay in their file."""
    import onnx

    return onnx.load(str(path), load_external_data=False).graph


def load(path: Path) -> Any:
    """A model with its weights, to be changed and written by `save`.

    Raises:
        Unsupported: one of its tensors alone is too large for a message.
    """
    import onnx

    if is_large(path):
        for tensor in graph_of(path).initializer:
            if _size(tensor) > LARGEST_TENSOR:
                raise Unsupported(
                    f"{tensor.name} alone is above 2 GB, and such a model is not rewritten here: leave out "
                    "quantization.smooth, quantization.shift and trt.rewrites"
                )
    return onnx.load(str(path))


def save_beside(model: Any, path: Path, source: Path) -> None:
    """Write a model whose graph was changed and whose weights are those of `source`, which were not loaded."""
    import onnx

    onnx.save(model, str(path))
    if is_large(source):
        shutil.copyfile(data_file(source), data_file(path))
        seal(path)


def save(model: Any, path: Path) -> None:
    """Write a model, with its weights in a second file if they are too large for one."""
    import onnx

    if _bytes(model) <= MOST_BYTES:
        onnx.save(model, str(path))
        return
    data_file(path).unlink(missing_ok=True)  # onnx would append to it
    onnx.save(
        model,
        str(path),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=data_file(path).name,
        size_threshold=INLINE,
    )
    seal(path)


def seal(path: Path) -> None:
    """Note the digest of the weights of a large model in its graph, so that two models never have one digest."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    kept = [entry for entry in model.metadata_props if entry.key != DIGEST]
    del model.metadata_props[:]
    model.metadata_props.extend([*kept, onnx.StringStringEntryProto(key=DIGEST, value=digest_of(data_file(path)))])
    onnx.save(model, str(path))


def gather(path: Path) -> None:
    """Bring a model that an exporter wrote into this form: exporters write a file for each large tensor."""
    import onnx
    from onnx.external_data_helper import uses_external_data

    names = set()
    for tensor in graph_of(path).initializer:
        if uses_external_data(tensor):
            names |= {entry.value for entry in tensor.external_data if entry.key == "location"}
    if not names and path.stat().st_size <= MOST_BYTES:
        return
    model = onnx.load(str(path))
    for name in names:
        (path.parent / name).unlink()
    save(model, path)


def link(source: Path, folder: Path) -> Path:
    """The model under the same name in another folder: a link to it, or copies of both files of a large one, whose
    weights onnx reads through no link of any kind."""
    linked = folder / source.name
    if is_large(source):
        copy(source, linked)
    else:
        linked.symlink_to(source.resolve())
    return linked


def copy(source: Path, path: Path) -> None:
    """Both files of a model, under its own name in another folder."""
    shutil.copyfile(source, path)
    if is_large(source):
        shutil.copyfile(data_file(source), data_file(path))


def _bytes(model: Any) -> int:
    """The size of a model's weights."""
    return sum(_size(tensor) for tensor in model.graph.initializer)


def _size(tensor: Any) -> int:
    """The bytes of a tensor by its shape and type, wherever its values lie."""
    import onnx

    return int(math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
