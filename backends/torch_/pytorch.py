"""PyTorch as users of transformers run it: eager with scaled dot product attention, or with torch.compile."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

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
from backends.finding import Finding
from backends.model.checkpoint_files import weight_files
from backends.options import Switch
from backends.torch_.description import CompileOptions
from backends.torch_.dynamic_linear import METHOD, check_int8, int8_findings
from backends.torch_.fp8 import INPUT_RANGES, check_fp8, ranges_of
from backends.torch_.torch_findings import compiler_findings, torch_findings
from backends.torch_.torch_session import TorchSession

PRECISIONS = ("fp32", "tf32", "fp16", "bf16")


@dataclass(frozen=True)
class Torch(Backend):
    """Backend for a model of transformers in PyTorch: with torch.compile if `compiled`, else eager."""

    compiled: bool
    distributions = ("torch",)
    also_recorded = ("transformers", "triton", "torchao")

    def check(self, spec: BuildSpec) -> None:
        if spec.precision == "int8" and self.compiled:
            check_int8(spec)
        elif spec.precision == "fp8" and self.compiled:
            check_fp8(spec.device)
        elif spec.precision == "fp8":
            raise Unsupported("FP8 needs torch.compile: use backend=torch_compile or backend=torch_packed")
        elif spec.precision not in PRECISIONS:
            cpu = spec.device.kind == "cpu"
            other = "backend=torch_compile with quantization.scheme=dynamic" if cpu else "backend=trt"
            raise Unsupported(f"torch_eager has no {spec.precision.upper()}; use {other}, or backend=ort")
        if spec.device.kind == "cpu" and spec.precision == "tf32":
            raise Unsupported("TF32 is a number format of GPU tensor cores; on a CPU use precision=fp32")
        if (
            spec.device.kind == "cuda"
            and spec.precision in ("tf32", "bf16")
            and spec.device.compute_capability < (8, 0)
        ):
            raise Unsupported(
                f"{spec.precision} needs compute capability 8.0; {spec.device.name} is older; use fp32 or fp16"
            )
        if not versions_of(("torch",)):
            raise Unavailable("torch is not installed in this interpreter: pip install torch==2.13.0")
        if self.compiled and spec.device.kind == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
            raise Unavailable("torch.compile on a CPU needs a C++ compiler: install g++ or use backend=torch_eager")

    def findings(self, device: Device) -> tuple[Finding, ...]:
        own = (*compiler_findings(device), *int8_findings(device)) if self.compiled else ()
        return (*torch_findings(device), *own)

    def source_form(self, spec: BuildSpec) -> SourceForm:
        return SourceForm(linear_ranges=spec.precision == "fp8")

    def build(self, spec: BuildSpec, source: Source) -> Artifact:
        """Return the weights of the checkpoint unchanged. PyTorch compiles in the process that runs the model."""
        notes: dict[str, object] = {"marked": list(source.marked)} if source.marked else {}
        notes |= {"int8": METHOD} if spec.precision == "int8" else {}
        notes |= {INPUT_RANGES: ranges_of(source)} if spec.precision == "fp8" else {}
        path = weight_files(source.checkpoint)[0]
        return Artifact(path, source.sha256, versions_of((*self.distributions, *self.also_recorded)), notes=notes)

    def opening(self, spec: BuildSpec, artifact: Artifact) -> Opening:
        import torch  # noqa: F401  timed separately

        yield "import", None
        yield "load", self._load(spec, artifact)

    def _load(self, spec: BuildSpec, artifact: Artifact) -> TorchSession:
        import torch

        from backends.torch_.model_precision import load_model

        torch.set_float32_matmul_precision("high" if spec.precision == "tf32" else "highest")
        if spec.threads:
            torch.set_num_threads(spec.threads)
        model = load_model(spec, artifact)
        if self.compiled:
            # One specialized graph per shape, as in a server with fixed shapes. Above the default limit of 8 graphs,
            # torch.compile would silently fall back to eager.
            torch._dynamo.config.recompile_limit = max(64, 2 * len(spec.shapes))
            options = spec.options_as(CompileOptions)
            dynamic = {Switch.auto: None, Switch.on: True, Switch.off: False}[options.dynamic]
            compiled = torch.compile(model, mode=options.compile_mode.value, dynamic=dynamic)
            return TorchSession(compiled, spec.device.kind, spec.device.index)
        return TorchSession(model, spec.device.kind, spec.device.index)


def TorchEager() -> Torch:
    return Torch(compiled=False)


def TorchCompile() -> Torch:
    return Torch(compiled=True)
