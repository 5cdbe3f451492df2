"""Backend `trt`: TensorRT through its ONNX parser, with the TensorRT 8.6, 10 or 11 or the TensorRT-RTX of the
interpreter."""

from __future__ import annotations

from functools import partial

from backends.base import Artifact, BuildSpec, Source, SourceForm, Unsupported
from backends.profiles import plan_profiles
from backends.tensorrt_.build.onnx_network import define_from_onnx
from backends.tensorrt_.runtime.capabilities import Capabilities
from backends.tensorrt_.runtime.target import check_target
from backends.tensorrt_.runtime.tensorrt_options import TensorRTOptions, Types
from backends.tensorrt_.tensorrt_backend import TensorRTBackend


class TensorRT(TensorRTBackend):
    def check(self, spec: BuildSpec) -> None:
        check_target(self.api, spec)
        can, product = self.api.can, self.api.product
        capability = spec.device.compute_capability
        if spec.precision in ("tf32", "bf16") and capability < (8, 0):
            raise Unsupported(f"{spec.precision} needs compute capability 8.0; {spec.device.name} is older")
        if spec.precision == "bf16" and not can.bfloat16:
            raise Unsupported(f"{product} has no BF16; use precision=fp16, or TensorRT 10 or newer")
        if spec.precision == "fp8" and not can.opset_19:
            raise Unsupported(
                f"{product} reads ONNX up to opset 17, but FP8 Q/DQ needs opset 19; use TensorRT 10 or newer"
            )
        if spec.precision == "fp8" and capability < (8, 9):
            raise Unsupported(f"fp8 needs compute capability 8.9; {spec.device.name} is older")
        if spec.quantization.dynamic:
            raise Unsupported("TensorRT has no dynamic INT8; use quantization.scheme=explicit")
        if not spec.quantization.explicit:
            if spec.precision != "int8":
                raise Unsupported("implicit calibration is for INT8 only; use quantization.scheme=explicit")
            if not can.calibration or types_from_graph(spec, can):
                raise Unsupported(f"{product} has no calibrator for these types; use quantization.scheme=explicit")
        options = spec.options_as(TensorRTOptions)
        if options.types is Types.flags and not can.weak_typing:
            raise Unsupported(f"{product} takes types from the graph only; leave trt.types at auto")
        plan_profiles(spec.shapes, options)

    def source_form(self, spec: BuildSpec) -> SourceForm:
        """Return the source form: Q/DQ for explicit quantization, casts where types come from the graph."""
        options = spec.options_as(TensorRTOptions)
        explicit = spec.precision in ("int8", "fp8") and spec.quantization.explicit
        needs_casts = types_from_graph(spec, self.api.can) and spec.precision not in ("fp32", "tf32")
        return SourceForm(
            rewrites=tuple(rewrite.name for rewrite in options.rewrites),
            types=("bf16" if spec.precision == "bf16" else "fp16") if needs_casts else "fp32",
            keep_fp32=tuple(options.keep_fp32) if needs_casts else (),
            quantized=spec.precision if explicit else "",
            calibration=spec.precision == "int8" and not explicit,
        )

    def build(self, spec: BuildSpec, source: Source) -> Artifact:
        assert source.onnx is not None
        made_from = {
            "onnx": source.onnx.sha256,
            "calibration": source.calibration.sha256 if source.calibration else "",
            "method": spec.quantization.method.name if source.calibration else "",
        }
        return self.engine(spec, made_from, partial(define_from_onnx, source=source))


def types_from_graph(spec: BuildSpec, can: Capabilities) -> bool:
    """Return whether casts in the ONNX file set the types of computation, and not builder flags."""
    return spec.options_as(TensorRTOptions).types is Types.graph or not can.weak_typing
