"""TensorRT through its ONNX parser: releases 8.6, 10 and 11, whichever the interpreter has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.base import (
    Artifact,
    Backend,
    BuildSpec,
    Session,
    Source,
    SourceForm,
    Unavailable,
    Unsupported,
    versions_of,
)
from backends.cache import ArtifactCache
from backends.tensorrt_.capabilities import Capabilities, installed
from backends.tensorrt_.profiles import plan_profiles

if TYPE_CHECKING:
    pass

RELEASES = ("8.6", "10", "11")
ELSEWHERE = ("threads", "rewrites", "profiles", "min", "opt", "max")
"""Options that change no plan by themselves, or that the ONNX file and the profiles of its key stand for."""

SET_UP = "run `make trt86`, or pip install tensorrt for release 10 or 11, and point interpreter.trt at that Python"


class TensorRT(Backend):
    packages = ("tensorrt", "cuda-python", "nvidia-cublas-cu12", "nvidia-cudnn-cu12")

    def check(self, spec: BuildSpec) -> None:
        can = available()
        release = versions_of(("tensorrt",))["tensorrt"]
        capability = spec.device.compute_capability
        if spec.precision in ("tf32", "bf16") and capability < (8, 0):
            raise Unsupported(f"{spec.precision} needs compute capability 8.0; {spec.device.name} is older")
        if spec.precision == "bf16" and not can.bfloat16:
            raise Unsupported(f"TensorRT {release} has no BF16; use precision=fp16, or TensorRT 10 or newer")
        if spec.precision == "fp8" and not can.opset_19:
            raise Unsupported(
                f"TensorRT {release} reads ONNX up to opset 17 and FP8 Q/DQ came with 19; use 10 or newer"
            )
        if spec.precision == "fp8" and capability < (8, 9):
            raise Unsupported(f"fp8 needs compute capability 8.9; {spec.device.name} is older")
        if spec.quantization.get("scheme") == "implicit":
            if spec.precision != "int8":
                raise Unsupported("implicit calibration is for INT8; use quantization.scheme=explicit")
            if not can.calibration or types_from_graph(spec, can):
                raise Unsupported(f"TensorRT {release} has no calibrator here; use quantization.scheme=explicit")
        if spec.options["types"] == "flags" and not can.weak_typing:
            raise Unsupported(f"TensorRT {release} takes types from the graph only; leave trt.types at auto")
        if spec.options["half_rest"] and types_from_graph(spec, can):
            raise Unsupported("trt.half_rest is for types by builder flags; leave trt.types at auto")
        plan_profiles(spec.shapes, spec.options)

    def form(self, spec: BuildSpec) -> SourceForm:
        """Q/DQ for explicit quantization; casts where types come from the graph."""
        explicit = spec.precision in ("int8", "fp8") and spec.quantization["scheme"] == "explicit"
        typed = types_from_graph(spec, installed()) and spec.precision not in ("fp32", "tf32")
        return SourceForm(
            rewrites=tuple(spec.options["rewrites"]),
            types=("bf16" if spec.precision == "bf16" else "fp16") if typed else "fp32",
            keep_fp32=tuple(spec.options["keep_fp32"]) if typed else (),
            quantized=spec.precision if explicit else "",
            calibration=spec.precision == "int8" and not explicit,
        )

    def build(self, spec: BuildSpec, source: Source) -> Artifact:
        """A plan, keyed by all that changes it: a plan of another release, GPU or driver is never looked at."""
        assert source.onnx is not None
        key = {
            "onnx": source.onnx.sha256,
            "calibration": source.calibration.sha256 if source.calibration else "",
            "precision": spec.precision,
            "method": spec.quantization.get("method") if source.calibration else "",
            "profiles": [asdict(profile) for profile in plan_profiles(spec.shapes, spec.options)],
            "options": {name: value for name, value in spec.options.items() if name not in ELSEWHERE},
            "gpu": [spec.device.name, list(spec.device.compute_capability)],
            "driver": spec.device.driver,
        }

        def build(path: Path) -> Mapping[str, Any]:
            # Not before it is needed: a cell whose plan is there skips the import.
            from backends.tensorrt_.build import build_plan
            from backends.tensorrt_.onnx_network import define_from_onnx

            return build_plan(spec, path, partial(define_from_onnx, spec, source))

        return ArtifactCache(spec.cache).get("engine", key, "model.plan", build, versions_of(self.packages))

    def open(self, spec: BuildSpec, artifact: Artifact) -> Session:
        from backends.tensorrt_.session import TensorRTSession

        return TensorRTSession(spec, artifact)


def available() -> Capabilities:
    """What the installed TensorRT can do.

    Raises:
        Unavailable: there is none, it is of a release this backend does not know, or a library it needs is missing.
    """
    release = versions_of(("tensorrt",)).get("tensorrt")
    if release is None:
        raise Unavailable(f"TensorRT is not installed in this interpreter: {SET_UP}")
    if not any(release == known or release.startswith(f"{known}.") for known in RELEASES):
        raise Unavailable(f"TensorRT {release} is not one this backend knows ({', '.join(RELEASES)}): {SET_UP}")
    try:
        import cuda.bindings.runtime  # noqa: F401

        return installed()
    except ImportError as error:
        raise Unavailable(missing(str(error))) from error


def missing(error: str) -> str:
    """What to install when importing TensorRT or cuda-python said `error`."""
    if "cuda" in error and "No module" in error:
        return "cuda-python is not installed beside TensorRT: pip install 'cuda-python>=13,<14'"
    library = re.search(r"lib\w+\.so[.\d]*", error)
    packages = {"libcudnn.so.8": "'nvidia-cudnn-cu12<9'", "libcublas.so.12": "nvidia-cublas-cu12",
                "libcublasLt.so.12": "nvidia-cublas-cu12"}  # fmt: skip
    if library and library.group() in packages:
        name = library.group()
        return (
            f"TensorRT needs {name}, which was not found: pip install {packages[name]} beside it, or run `make trt86`"
        )
    return f"TensorRT cannot be imported ({error}): {SET_UP}"


def types_from_graph(spec: BuildSpec, can: Capabilities) -> bool:
    """Whether casts in the ONNX file, rather than builder flags, say what is computed in which type."""
    return spec.options["types"] == "graph" or not can.weak_typing
