"""Backend `trt`: TensorRT through its ONNX parser, with release 8.6, 10 or 11 of the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from backends.base import (
    Artifact,
    Backend,
    BuildSpec,
    Session,
    Source,
    SourceForm,
    Unsupported,
)
from backends.tensorrt_.build.engine import cached_engine, session_of
from backends.tensorrt_.runtime.capabilities import Capabilities, installed
from backends.tensorrt_.runtime.installation import COMPANION_PACKAGES, DISTRIBUTIONS, available, installed_release
from backends.tensorrt_.runtime.profiles import plan_profiles

if TYPE_CHECKING:
    from backends.tensorrt_.build.build import DefineNetwork


class TensorRT(Backend):
    distributions = DISTRIBUTIONS
    beside = COMPANION_PACKAGES
    marks = True

    def check(self, spec: BuildSpec) -> None:
        can = available()
        release = installed_release()
        capability = spec.device.compute_capability
        if spec.precision in ("tf32", "bf16") and capability < (8, 0):
            raise Unsupported(f"{spec.precision} needs compute capability 8.0; {spec.device.name} is older")
        if spec.precision == "bf16" and not can.bfloat16:
            raise Unsupported(f"TensorRT {release} has no BF16; use precision=fp16, or TensorRT 10 or newer")
        if spec.precision == "fp8" and not can.opset_19:
            raise Unsupported(
                f"TensorRT {release} reads ONNX up to opset 17, but FP8 Q/DQ needs opset 19; use TensorRT 10 or newer"
            )
        if spec.precision == "fp8" and capability < (8, 9):
            raise Unsupported(f"fp8 needs compute capability 8.9; {spec.device.name} is older")
        if spec.quantization.get("scheme") == "implicit":
            if spec.precision != "int8":
                raise Unsupported("implicit calibration is for INT8 only; use quantization.scheme=explicit")
            if not can.calibration or types_from_graph(spec, can):
                raise Unsupported(
                    f"TensorRT {release} has no calibrator for these types; use quantization.scheme=explicit"
                )
        if spec.options["types"] == "flags" and not can.weak_typing:
            raise Unsupported(f"TensorRT {release} takes types from the graph only; leave trt.types at auto")
        plan_profiles(spec.shapes, spec.options)

    def source_form(self, spec: BuildSpec) -> SourceForm:
        """Return the source form: Q/DQ for explicit quantization, casts where types come from the graph."""
        explicit = spec.precision in ("int8", "fp8") and spec.quantization["scheme"] == "explicit"
        needs_casts = types_from_graph(spec, installed()) and spec.precision not in ("fp32", "tf32")
        return SourceForm(
            rewrites=tuple(spec.options["rewrites"]),
            types=("bf16" if spec.precision == "bf16" else "fp16") if needs_casts else "fp32",
            keep_fp32=tuple(spec.options["keep_fp32"]) if needs_casts else (),
            quantized=spec.precision if explicit else "",
            calibration=spec.precision == "int8" and not explicit,
        )

    def build(self, spec: BuildSpec, source: Source) -> Artifact:
        assert source.onnx is not None
        made_from = {
            "onnx": source.onnx.sha256,
            "calibration": source.calibration.sha256 if source.calibration else "",
            "method": spec.quantization.get("method") if source.calibration else "",
        }

        def define(engine_spec: BuildSpec) -> Callable[[], DefineNetwork]:
            def import_define() -> DefineNetwork:
                from backends.tensorrt_.build.onnx_network import define_from_onnx

                return partial(define_from_onnx, engine_spec, source)

            return import_define

        return cached_engine(spec, made_from, define)

    def open(self, spec: BuildSpec, artifact: Artifact) -> Session:
        return session_of(self.opening(spec, artifact))

    def opening(self, spec: BuildSpec, artifact: Artifact) -> Iterator[tuple[str, Session | None]]:
        from backends.tensorrt_.session.open_session import opening

        yield "import", None
        yield from opening(spec, artifact)


def types_from_graph(spec: BuildSpec, can: Capabilities) -> bool:
    """Return whether casts in the ONNX file set the types of computation, and not builder flags."""
    return spec.options["types"] == "graph" or not can.weak_typing
