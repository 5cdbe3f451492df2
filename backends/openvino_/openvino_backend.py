"""OpenVINO's CPU plugin: the exported ONNX file, with dynamic shapes and one inference request."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.base import (
    Array,
    Artifact,
    Backend,
    BuildSpec,
    Device,
    Feeds,
    Opening,
    Session,
    Source,
    SourceForm,
    Unavailable,
    Unsupported,
    versions_of,
)
from backends.finding import MISSING, OK, Finding
from backends.openvino_.description import FloatType, OpenVinoOptions

if TYPE_CHECKING:
    import openvino

INSTALLED = ("openvino",)

PRECISIONS = ("fp32", "bf16", "int8")

BF16_FEATURES = {"avx512_bf16", "amx_bf16", "bf16"}
"""CPU features with which OpenVINO computes in BF16."""


class OpenVino(Backend):
    distributions = INSTALLED

    def check(self, spec: BuildSpec) -> None:
        if not versions_of(INSTALLED):
            raise Unavailable("openvino is not installed in this interpreter: pip install openvino")
        if spec.precision not in PRECISIONS:
            raise Unsupported("backend=openvino has the precisions fp32, bf16 and int8; choose one of them")
        if spec.precision == "int8" and not spec.quantization.explicit:
            raise Unsupported(
                "OpenVINO reads INT8 from Q/DQ in the graph; use quantization.scheme=explicit, or backend=ort"
            )
        chosen = spec.options_as(OpenVinoOptions).float_type
        if chosen is not FloatType.auto and spec.precision != "int8":
            raise Unsupported(f"openvino.float_type={chosen.name} is for precision=int8; leave it out")
        if "bf16" in (spec.precision, chosen.name) and not _has_bf16(spec):
            raise Unsupported(f"{spec.device.name} has no BF16 instructions; use FP32 instead")

    def findings(self, device: Device) -> tuple[Finding, ...]:
        """Return the version of OpenVINO and the types that it computes on this CPU."""
        versions = versions_of(INSTALLED)
        if not versions:
            return (Finding("OpenVINO", MISSING, "not installed", f"{sys.executable} -m pip install openvino"),)
        import openvino

        types = sorted(set(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")) & {"FP32", "BF16", "INT8"})
        return (Finding("OpenVINO", OK, f"{versions['openvino']}, types on this CPU: {', '.join(types)}"),)

    def source_form(self, spec: BuildSpec) -> SourceForm:
        return SourceForm(quantized="int8" if spec.precision == "int8" else "")

    def build(self, spec: BuildSpec, source: Source) -> Artifact:
        """Return the ONNX file unchanged. OpenVINO compiles it in the process that runs the model.

        The notes of INT8 have the number of weight products by type in the compiled model.
        """
        assert source.onnx is not None
        if spec.precision != "int8":
            return source.onnx
        notes = {"float_type": _float_type(spec), "product_types": product_types(spec, source.onnx)}
        return replace(source.onnx, notes={**source.onnx.notes, **notes})

    def opening(self, spec: BuildSpec, artifact: Artifact) -> Opening:
        import openvino  # noqa: F401  timed separately

        yield "import", None
        model = _compiled(spec, artifact.path)
        yield "compile", None
        yield "load", OpenVinoSession(model)


def product_types(spec: BuildSpec, onnx: Artifact) -> Mapping[str, int]:
    """Return the number of products with weights by the type in which OpenVINO computes them, such as "i8"."""
    types: Counter[str] = Counter()
    for node in _compiled(spec, onnx.path).get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        if info["layerType"].astype(str) == "FullyConnected":
            # Inputs of INT8 kernels are signed or unsigned.
            types[info["runtimePrecision"].astype(str).replace("u8", "i8")] += 1
    return dict(types)


def properties(spec: BuildSpec) -> dict[str, str]:
    """Return the properties of OpenVINO for one request at a time, without a number of threads."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[_float_type(spec)],
    }


def _compiled(spec: BuildSpec, path: Path) -> openvino.CompiledModel:
    """Compile the file at `path` with dynamic shapes and without a cache."""
    import openvino

    threads = {"INFERENCE_NUM_THREADS": spec.threads} if spec.threads else {}
    return openvino.Core().compile_model(str(path), "CPU", {**properties(spec), **threads})


def _float_type(spec: BuildSpec) -> str:
    """Return the type of operations in floating point: fp32 or bf16."""
    if spec.precision != "int8":
        return spec.precision
    chosen = spec.options_as(OpenVinoOptions).float_type
    return chosen.name if chosen is not FloatType.auto else "bf16" if _has_bf16(spec) else "fp32"


def _has_bf16(spec: BuildSpec) -> bool:
    return bool(BF16_FEATURES & set(spec.device.features))


Key = tuple[tuple[str, tuple[int, ...]], ...]


class OpenVinoSession(Session):
    """Session with one inference request, which reads the input buffers of the current shape and owns its output."""

    def __init__(self, model: openvino.CompiledModel) -> None:
        self._model = model
        self._request = model.create_infer_request()
        self._key: Key = ()
        self._inputs_by_key: dict[Key, dict[str, Array]] = {}

    def changing(self, feeds: Feeds) -> Iterator[str]:
        import openvino

        key = tuple((name, array.shape) for name, array in feeds.items())
        if key != self._key:
            self._key = key
            if key not in self._inputs_by_key:
                self._inputs_by_key[key] = {name: np.zeros(array.shape, np.int32) for name, array in feeds.items()}
            for name, array in self._inputs_by_key[key].items():
                self._request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
        yield "set shape"

    def copy_in(self, feeds: Feeds) -> None:
        for name, array in self._inputs_by_key[self._key].items():
            array[...] = feeds[name]

    def step(self) -> None:
        self._request.infer(share_outputs=True)

    def wait(self) -> None:
        """`step` returns when the work is done."""

    def fetch(self) -> Array:
        """Return the output of the request without a copy. The next step replaces its values."""
        output: Array = self._request.get_output_tensor(0).data
        return output

    def close(self) -> None:
        del self._request, self._model
        self._inputs_by_key, self._key = {}, ()
