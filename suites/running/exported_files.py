"""Facts about the files of the export stage, for the record and for the build."""

from __future__ import annotations

from collections.abc import Mapping

from backends.base import Artifact, Shape
from backends.json_codec import from_json, to_object
from suites.records.artifacts import Artifacts
from suites.running.job import Exported


def artifacts_of(exported: Exported, built: Artifact) -> Artifacts:
    """Return the artifacts of a record: everything but their paths."""
    source = exported.source
    files = {"onnx": source.onnx, "arrays": source.arrays, "ranges": source.ranges, **exported.learned,
             "inputs": exported.inputs, "tokenization": exported.tokenization, "built": built}  # fmt: skip
    weights: dict[str, object] = {"sha256": source.sha256}
    if exported.identity:
        weights |= {"parts": list(exported.parts), "checked": dict(exported.checked)}
        weights |= {"points": exported.points} if exported.points else {}
        weights |= {"identity": exported.identity, "origin": exported.origin}
        weights |= {"sizes": to_object(exported.sizes)} if exported.sizes else {}
    stored = {
        name: {key: value for key, value in to_object(file).items() if key != "path"}
        for name, file in files.items()
        if file is not None
    }
    return from_json(Artifacts, {"weights": weights, **stored}, "artifacts")


def padded_tokens(inputs: Artifact) -> dict[Shape, int]:
    """Return the number of tokens of the shapes whose inputs have padding.

    An engine is tuned for the number of tokens that it will run.
    """
    notes = from_json(Mapping[str, Mapping[str, object]], inputs.notes.get("shapes", {}), "shapes")
    tokens = {Shape.parse(name): from_json(int, of_shape["tokens"], name) for name, of_shape in notes.items()}
    return {shape: count for shape, count in tokens.items() if count < shape.batch * shape.sequence}
