"""Read and write ONNX files of any size.

A protobuf message has at most 2 GB. A larger model has its weights in a second file, `<name>.data`, in the same folder
as the graph. The digest of an artifact covers only the file of the graph, so the graph contains the digest of the
weights.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import Unsupported
from backends.cache import digest_of

if TYPE_CHECKING:
    import onnx

MOST_BYTES = 1_900_000_000
"""Largest size in bytes of the weights inside the file of the graph. The rest of 2 GB is for later additions."""

LARGEST_TENSOR = 2**31 - 2**20
"""Largest size in bytes of a tensor that fits into a message together with its name and shape."""

DIGEST = "weights_sha256"
"""Metadata property of a model with the digest of its second file."""

INLINE = 1024
"""Smallest size in bytes of a tensor in the second file. Shape inference needs the small constants in the graph."""


def data_file(path: Path) -> Path:
    """Return the path of the second file of a large model."""
    return path.with_name(f"{path.name}.data")


def is_large(path: Path) -> bool:
    """Return whether the model at `path` has a second file with its weights."""
    return data_file(path).exists()


def graph_of(path: Path) -> onnx.GraphProto:
    """Read the graph of a model, without the weights in a second file."""
    import onnx

    return onnx.load(str(path), load_external_data=False).graph


def load(path: Path) -> onnx.ModelProto:
    """Read a model with all weights. Write it with `save` after changes.

    Raises:
        Unsupported: a single tensor is too large for a message.
    """
    import onnx

    if is_large(path):
        for tensor in graph_of(path).initializer:
            if _size(tensor) > LARGEST_TENSOR:
                raise Unsupported(
                    f"the tensor {tensor.name} alone is above 2 GB; such a model cannot be rewritten: do not use "
                    "quantization.smooth, quantization.shift or trt.rewrites"
                )
    return onnx.load(str(path))


def save_with_weights_of(model: onnx.ModelProto, path: Path, source: Path) -> None:
    """Write a model with a changed graph and the weights of `source`, which were not loaded."""
    import onnx

    onnx.save(model, str(path))
    if is_large(source):
        shutil.copyfile(data_file(source), data_file(path))
        store_weights_digest(path)


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model. Its weights go to a second file if they exceed MOST_BYTES."""
    import onnx

    if _weight_bytes(model) <= MOST_BYTES:
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
    store_weights_digest(path)


def store_weights_digest(path: Path) -> None:
    """Store the digest of a model's second file in its graph, so that different models have different digests."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    other = [entry for entry in model.metadata_props if entry.key != DIGEST]
    del model.metadata_props[:]
    model.metadata_props.extend([*other, onnx.StringStringEntryProto(key=DIGEST, value=digest_of(data_file(path)))])
    onnx.save(model, str(path))


def merge_external_data(path: Path) -> None:
    """Convert a model of an exporter to at most two files. Exporters write one file per large tensor."""
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
    """Link a model into another folder under the same name; return the new path.

    Both files of a large model are copied instead, because onnx does not read weights through links.
    """
    linked = folder / source.name
    if is_large(source):
        copy(source, linked)
    else:
        linked.symlink_to(source.resolve())
    return linked


def copy(source: Path, path: Path) -> None:
    """Copy the files of a model to `path`, which must have the same name in another folder."""
    shutil.copyfile(source, path)
    if is_large(source):
        shutil.copyfile(data_file(source), data_file(path))


def _weight_bytes(model: onnx.ModelProto) -> int:
    """Return the size of a model's weights in bytes."""
    return sum(_size(tensor) for tensor in model.graph.initializer)


def _size(tensor: onnx.TensorProto) -> int:
    """Return the size of a tensor in bytes from its shape and type. Its values may be in another file."""
    import onnx

    return int(math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
