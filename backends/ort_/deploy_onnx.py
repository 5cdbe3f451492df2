"""Export of an ONNX file. The file is the measured one, except that an INT8 file stores its weights as INT8."""

from __future__ import annotations

from backends.base import BuildSpec, Unsupported, versions_of
from backends.deployment import Deployed, Deployment
from backends.inputs.samples import Arrange, padded_rows
from backends.onnx_ import onnx_files
from backends.onnx_.exported_graph import tensors_of, write_int8
from backends.ort_.description import OrtOptions, Provider
from backends.ort_.providers import CPU, CUDA, INSTALLED
from backends.ort_.run_onnx import Settings, open_model

FILE = "model.onnx"


def deploy_onnx(deployment: Deployment) -> tuple[Deployed, Arrange]:
    """Write the ONNX file.

    Raises:
        Unsupported: the cell has a provider that is not part of onnxruntime, or that compiles engines.
    """
    provider = deployment.spec.options_as(OrtOptions).provider
    if provider not in (Provider.auto, Provider.cpu, Provider.cuda):
        raise Unsupported(
            f"models of ort.provider={provider.name} are not exported; export the cell with ort.provider=auto, and "
            "name the provider where you open its file"
        )
    spec, target = deployment.spec, deployment.folder / FILE
    settings = _settings(spec)
    notes: dict[str, object] = {}
    if spec.precision == "int8":
        notes = write_int8(deployment, target, lambda path: open_model(path.parent, {**settings, "file": path.name}))
    else:
        onnx_files.copy(deployment.artifact.path, target)
    files = [FILE, *([onnx_files.data_file(target).name] if onnx_files.is_large(target) else [])]
    name, version = next(iter(versions_of(INSTALLED).items()))
    inputs, outputs = tensors_of(target)
    gpu = "-gpu" if spec.device.kind == "cuda" else ""
    packages = (f"onnxruntime{gpu}", "numpy")
    return Deployed((name, version), packages, tuple(files), settings, inputs, outputs, (), notes), padded_rows


def _settings(spec: BuildSpec) -> Settings:
    """Return the file, the execution provider of a cell and its options.

    The CUDA provider uses TF32 unless it is turned off.
    """
    if spec.device.kind != "cuda":
        return {"file": FILE, "provider": CPU, "provider_options": {}}
    return {
        "file": FILE,
        "provider": CUDA,
        "provider_options": {"use_tf32": "1" if spec.precision == "tf32" else "0"},
    }
