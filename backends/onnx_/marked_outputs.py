"""Outputs of layers, concatenated into the single output that every session can fetch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from backends.base import Array, Artifact, Shape, versions_of
from backends.cache import ArtifactCache
from backends.inputs.batches import InputSource, prepare_inputs
from backends.model.checkpoint_files import read_config
from backends.model.families import size_of
from backends.model.layer_names import POINTS
from backends.onnx_ import onnx_files
from backends.onnx_.ranges import points_of

MARKABLE_POINTS = tuple(point for point in POINTS if point not in ("query", "key", "value", "probs", "context", "up"))
"""Points that `suite=layers` can mark. Their tensors are [batch, sequence, features]."""


def marked_points(source: Artifact) -> list[str]:
    """Return the markable points of a graph, "embeddings" or "<layer>/<point>", in the order of computation."""
    nodes = onnx_files.graph_of(source.path).node
    points = points_of([(node.name, node.output[0]) for node in nodes])
    return [point for point in dict.fromkeys(points.values()) if point.rpartition("/")[2] in MARKABLE_POINTS]


def mark_onnx(source: Artifact, points: Sequence[str], cache: ArtifactCache) -> Artifact:
    """Replace the output of `source` by its tensors at `points`, concatenated: FP32 [batch, sequence, all features]."""
    key = {"source": source.sha256, "points": list(points), "form": 1}
    versions = versions_of(("onnx-graphsurgeon", "onnx"))
    artifact = cache.get("marked", key, "model.onnx", lambda path: _mark(source.path, path, points), versions)
    return replace(artifact, notes={**source.notes, **artifact.notes})


def _mark(source: Path, path: Path, points: Sequence[str]) -> None:
    import onnx
    import onnx_graphsurgeon as gs

    # Weights of a large model stay in their file, because marks do not change them.
    graph = gs.import_onnx(onnx.load(str(source), load_external_data=not onnx_files.is_large(source)))
    (output,) = graph.outputs
    name, output.name = output.name, f"{output.name}_alone"
    point_of = points_of([(node.name, node.outputs[0].name) for node in graph.nodes])
    tensors = {point_of[t.name]: t for node in graph.nodes for t in node.outputs if t.name in point_of}
    casts = []
    for point in points:
        cast = gs.Variable(f"marked/{point}", np.float32)
        to = {"to": onnx.TensorProto.FLOAT}
        graph.nodes.append(gs.Node("Cast", f"marked/{point}/Cast", to, [tensors[point]], [cast]))
        casts.append(cast)
    concatenated = gs.Variable(name, np.float32, ["batch", "sequence", "features"])
    graph.nodes.append(gs.Node("Concat", "marked/Concat", {"axis": -1}, casts, [concatenated]))
    graph.outputs = [concatenated]
    onnx_files.save_with_weights_of(gs.export_onnx(graph.cleanup().toposort()), path, source)


def prepare_marked(origin: InputSource, onnx: Artifact, points: Sequence[str], shape: Shape) -> Artifact:
    """Make an .npz file with one batch and its FP32 reference at `points`.

    Its arrays: "feeds/<input>" [batch, sequence] int32; "reference" [batch, sequence, all features], computed by the
    FP32 graph `onnx`; "points"; and "widths", the number of features of each point.
    """
    inputs = prepare_inputs(origin, (shape,))

    def build(path: Path) -> Mapping[str, object]:
        with np.load(inputs.path, allow_pickle=False) as arrays:
            names = [name.partition("/")[2] for name in arrays.files]
            feeds = {name: arrays[f"{shape}/{name}"] for name in names if name not in ("reference", "rows")}
        with TemporaryDirectory() as scratch:
            _mark(onnx.path, Path(scratch) / "model.onnx", points)
            reference = _run(Path(scratch) / "model.onnx", feeds)
        config = read_config(origin.folder)
        intermediate, hidden = (size_of(config, name) for name in ("intermediate_size", "hidden_size"))
        widths = np.asarray([intermediate if point.endswith("/gelu") else hidden for point in points])
        assert widths.sum() == reference.shape[-1]
        named = {f"feeds/{name}": array for name, array in feeds.items()}
        np.savez(path, reference=reference, points=np.asarray(points), widths=widths, **named)
        return dict(inputs.notes)

    key = {"onnx": onnx.sha256, "inputs": inputs.sha256, "points": list(points)}
    versions = versions_of(("onnxruntime-gpu", "onnxruntime", "onnx-graphsurgeon"))
    return origin.cache.get("marked-inputs", key, "inputs.npz", build, versions)


def _run(path: Path, feeds: Mapping[str, Array]) -> Array:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, dict(feeds))
    return np.asarray(output)
