"""onnxruntime through its execution providers."""

from __future__ import annotations

import sys
from pathlib import Path

from backends.base import (
    Artifact,
    Backend,
    BuildSpec,
    Device,
    Opening,
    Source,
    SourceForm,
    Unavailable,
    Unsupported,
    versions_of,
)
from backends.cache import ArtifactCache
from backends.finding import MISSING, OK, Finding
from backends.model.checkpoint_files import read_config
from backends.model.families import family_of
from backends.options import Switch
from backends.ort_.description import OrtOptions, Provider
from backends.ort_.fused_operators import fuse_operators
from backends.ort_.ort_session import OrtSession, SessionSettings
from backends.ort_.provider_checks import check_named_provider
from backends.ort_.providers import INSTALLED, PACKAGES, TENSORRT_LIBRARIES, provider_of


class OnnxRuntime(Backend):
    distributions = INSTALLED
    also_recorded = ("onnx", *PACKAGES, *TENSORRT_LIBRARIES)

    def check(self, spec: BuildSpec) -> None:
        if not versions_of(INSTALLED):
            raise Unavailable("onnxruntime is not installed in this interpreter: pip install onnxruntime-gpu")
        named = spec.options_as(OrtOptions).provider
        if named is not Provider.auto:
            check_named_provider(spec, named)
        if named not in (Provider.auto, Provider.cpu, Provider.cuda):
            return
        if spec.precision == "bf16":
            raise Unsupported("onnxruntime.transformers converts BERT to float16 only; it has no bfloat16 conversion")
        if spec.device.kind == "cpu" and spec.precision in ("fp16", "tf32"):
            raise Unsupported(
                f"onnxruntime's CPU provider computes BERT in FP32 or INT8; {spec.precision} needs the CUDA provider"
            )
        if spec.precision == "tf32" and spec.device.compute_capability < (8, 0):
            raise Unsupported(f"tf32 needs compute capability 8.0; {spec.device.name} is older; use fp32 or fp16")
        if spec.precision == "fp8":
            raise Unsupported("onnxruntime has no FP8 MatMul for BERT; use backend=trt with TensorRT 10 or newer")
        if spec.precision == "int8" and not (spec.quantization.explicit or spec.quantization.dynamic):
            raise Unsupported("onnxruntime reads INT8 from Q/DQ in the graph: use quantization.scheme=explicit")
        if spec.precision == "int8" and spec.quantization.dynamic and spec.device.kind == "cuda":
            raise Unsupported(
                "onnxruntime computes dynamic INT8 on a CPU: use device=cpu or quantization.scheme=explicit"
            )

    def findings(self, device: Device) -> tuple[Finding, ...]:
        """Return the version of onnxruntime and its execution providers."""
        versions, install = versions_of(INSTALLED), f"{sys.executable} -m pip install onnxruntime-gpu"
        if not versions:
            return (Finding("ONNX Runtime", MISSING, "not installed", install),)
        import onnxruntime

        providers = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
        added = [f"{name} {version}" for name, version in versions_of(PACKAGES).items()]
        text = f"{next(iter(versions.values()))}, execution providers: {', '.join([*providers, *added])}"
        if device.kind == "cuda" and "CUDA" not in providers:
            return (Finding("ONNX Runtime", MISSING, f"{text}; it cannot use the GPU", install),)
        return (Finding("ONNX Runtime", OK, text),)

    def source_form(self, spec: BuildSpec) -> SourceForm:
        """Return the source form: Q/DQ for INT8 and FP8, and casts for the provider that takes types from the graph."""
        quantized = spec.precision if spec.precision in ("int8", "fp8") else ""
        if provider_of(spec) is Provider.nv_tensorrt_rtx and spec.precision not in ("fp32", "tf32"):
            return SourceForm(types="fp16", quantized=quantized)
        return SourceForm(quantized=quantized)

    def build(self, spec: BuildSpec, source: Source) -> Artifact:
        """Return the graph, with the engines of its provider and the provider of each node if the cell names one."""
        graph = self._graph(spec, source)
        if spec.options_as(OrtOptions).provider is Provider.auto:
            return graph
        from backends.ort_.provider_build import build_with_provider

        return build_with_provider(spec, graph)

    def _graph(self, spec: BuildSpec, source: Source) -> Artifact:
        """Return the ONNX file unchanged or, if fusion is on, rewritten by the BERT optimizer of onnxruntime.

        An INT8 file stays unchanged: the patterns of the optimizer do not match across its nodes.
        """
        assert source.onnx is not None
        fusion = spec.options_as(OrtOptions).fusion
        fuse = fusion is Switch.on or (fusion is Switch.auto and provider_of(spec) is Provider.cuda)
        if not fuse or spec.precision == "int8":
            return source.onnx
        onnx_file, half, gpu = source.onnx, spec.precision == "fp16", spec.device.kind == "cuda"

        def build(path: Path) -> dict[str, object]:
            return fuse_operators(onnx_file.path, source.checkpoint, path, half, gpu)

        embeddings = family_of(read_config(source.checkpoint)).fused_embeddings
        key = {"source": onnx_file.sha256, "half": half, "gpu": gpu, **({} if embeddings else {"embeddings": False})}
        return ArtifactCache(spec.cache).get("ort", key, "model.onnx", build, versions_of((*INSTALLED, "onnx")))

    def opening(self, spec: BuildSpec, artifact: Artifact) -> Opening:
        import onnxruntime  # noqa: F401  timed separately

        yield "import", None
        if spec.options_as(OrtOptions).provider is Provider.auto:
            yield "load", OrtSession(spec, artifact.path, _settings(spec))
            return
        from backends.ort_.provider_build import opening

        yield from opening(spec, artifact)


def _settings(spec: BuildSpec) -> SessionSettings:
    """Return the settings of a session with the provider of the device."""
    if spec.device.kind != "cuda":
        return SessionSettings()
    from backends.cuda import CudaStream

    return SessionSettings(CudaStream(spec.device.index), spec.cuda_graph)
