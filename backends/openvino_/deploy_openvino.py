"""Export of an OpenVINO model: its intermediate representation, in INT8 with INT8 weights."""

from __future__ import annotations

from backends.base import versions_of
from backends.deployment import Deployed, Deployment
from backends.inputs.samples import Arrange, padded_rows
from backends.onnx_ import onnx_files
from backends.onnx_.exported_graph import tensors_of, write_int8
from backends.openvino_.openvino_backend import INSTALLED, properties
from backends.openvino_.run_openvino import Settings, open_model

FILE, GRAPH = "model.xml", "model.onnx"


def deploy_openvino(deployment: Deployment) -> tuple[Deployed, Arrange]:
    """Write the model as model.xml and model.bin. Weights keep their types: FP32, or INT8."""
    import openvino

    settings: Settings = {"file": FILE, "properties": properties(deployment.spec)}
    graph, notes = deployment.artifact.path, {}
    if deployment.spec.precision == "int8":
        graph = deployment.folder / GRAPH
        notes = write_int8(deployment, graph, lambda path: open_model(path.parent, {**settings, "file": path.name}))
    inputs, outputs = tensors_of(graph)
    target = deployment.folder / FILE
    openvino.save_model(openvino.Core().read_model(str(graph)), str(target), compress_to_fp16=False)
    if graph.parent == deployment.folder:
        onnx_files.data_file(graph).unlink(missing_ok=True)
        graph.unlink()
    name, version = next(iter(versions_of(INSTALLED).items()))
    files = (FILE, target.with_suffix(".bin").name)
    return Deployed((name, version), ("openvino", "numpy"), files, settings, inputs, outputs, (), notes), padded_rows
