"""Backend `torch_tensorrt`: a model of transformers that Torch-TensorRT compiles for each optimization profile."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from backends.base import (
    Artifact,
    Backend,
    BuildSpec,
    Device,
    Opening,
    Source,
    Unavailable,
    Unsupported,
    versions_of,
)
from backends.cache import TIMINGS, ArtifactCache, digest_of, key_digest
from backends.cache_files import locked, make_private_folder
from backends.config_key import cell_mapping
from backends.finding import MISSING, OK, Finding
from backends.model.checkpoint_files import weight_files
from backends.profiles import plan_profiles
from backends.torch_tensorrt_.description import TorchTensorRTOptions

PRECISIONS = ("fp32", "tf32", "fp16", "bf16")

OLDEST = (2, 13)
"""First release whose engines take their types from the model."""

COMPANIONS = ("torch", "tensorrt", "tensorrt-cu13-libs", "tensorrt-cu12-libs", "transformers")

OPTIONS_OUTSIDE_KEY = ("profiles", "min", "opt", "max")
"""Options that are not in the cache key, which has the profiles instead."""


class TorchTensorRT(Backend):
    distributions = ("torch-tensorrt",)
    also_recorded = COMPANIONS

    def check(self, spec: BuildSpec) -> None:
        if spec.precision not in PRECISIONS:
            raise Unsupported(
                f"Torch-TensorRT takes {spec.precision} from models that nvidia-modelopt quantized, which this backend "
                "does not do; use backend=trt"
            )
        if spec.precision in ("tf32", "bf16") and spec.device.compute_capability < (8, 0):
            raise Unsupported(f"{spec.precision} needs compute capability 8.0; {spec.device.name} is older")
        if fault := _installation_fault():
            raise Unavailable(fault)
        plan_profiles(spec.shapes, spec.options_as(TorchTensorRTOptions), "torch_tensorrt")

    def findings(self, device: Device) -> tuple[Finding, ...]:
        """Return the release of Torch-TensorRT, or how to install it."""
        if fault := _installation_fault():
            return (Finding("Torch-TensorRT", MISSING, fault, f"{sys.executable} -m {_install_command()}"),)
        return (Finding("Torch-TensorRT", OK, versions_of(self.distributions)["torch-tensorrt"]),)

    def build(self, spec: BuildSpec, source: Source) -> Artifact:
        """Return a list of the programs of the profiles, in the order of the profiles."""
        options = spec.options_as(TorchTensorRTOptions)
        profiles = plan_profiles(spec.shapes, options, "torch_tensorrt")
        key = {
            "checkpoint": source.sha256,
            "precision": spec.precision,
            "output": spec.output.for_cell(),
            "profiles": [profile.to_json() for profile in profiles],
            "options": {n: value for n, value in cell_mapping(options).items() if n not in OPTIONS_OUTSIDE_KEY},
            "gpu": [spec.device.name, list(spec.device.compute_capability)],
            "driver": spec.device.driver,
        }

        def build(path: Path) -> Mapping[str, object]:
            from backends.torch_tensorrt_.compile_profiles import (
                TENSORRT,
                compile_profile,
                merged_counts,
                model_to_compile,
            )

            weights = Artifact(weight_files(source.checkpoint)[0], source.sha256)
            names = [f"profile{number}.ep" for number in range(len(profiles))]
            timings = _timings(spec)
            with locked(timings.with_suffix(".lock")):
                model = model_to_compile(spec, weights, timings)
                counts = [
                    compile_profile(model, profile, path.with_name(name))
                    for name, profile in zip(names, profiles, strict=True)
                ]
            programs = {name: digest_of(path.with_name(name)) for name in names}
            path.write_text(json.dumps(programs, indent=1), encoding="utf-8")
            return {
                "provider": TENSORRT,
                "nodes_by_provider": merged_counts(counts),
                "profiles": [str(profile) for profile in profiles],
                "engine_bytes": sum(path.with_name(name).stat().st_size for name in names),
            }

        versions = versions_of((*self.distributions, *COMPANIONS))
        return ArtifactCache(spec.cache).get("torch_tensorrt", key, "programs.json", build, versions)

    def opening(self, spec: BuildSpec, artifact: Artifact) -> Opening:
        import torch
        import torch_tensorrt  # noqa: F401  timed separately

        yield "import", None
        from backends.torch_tensorrt_.compile_profiles import load_program
        from backends.torch_tensorrt_.program_session import ProgramSession

        torch.set_float32_matmul_precision("high" if spec.precision == "tf32" else "highest")
        profiles = plan_profiles(spec.shapes, spec.options_as(TorchTensorRTOptions), "torch_tensorrt")
        programs = []
        for (name, digest), profile in zip(_programs(artifact).items(), profiles, strict=True):
            path = artifact.path.with_name(name)
            if digest_of(path) != digest:
                raise RuntimeError(f"{name} differs from the program that was built; run the cell again to rebuild it")
            programs.append((profile, load_program(path)))
            yield f"profile {profile}", None
        yield "session", ProgramSession(programs, spec.device)


def _programs(artifact: Artifact) -> dict[str, str]:
    """Return the digests of the programs by file name."""
    if digest_of(artifact.path) != artifact.sha256:
        raise RuntimeError("the list of programs differs from the one that was written; run the cell again")
    programs: dict[str, str] = json.loads(artifact.path.read_text(encoding="utf-8"))
    return programs


def _timings(spec: BuildSpec) -> Path:
    """Return the file of the timings of tactics for a GPU, driver and release, in a folder that exists."""
    key = {"gpu": spec.device.name, "driver": spec.device.driver, "versions": dict(versions_of(COMPANIONS))}
    folder = spec.cache / TIMINGS
    make_private_folder(folder)
    return folder / f"torch_tensorrt-{key_digest(key)[:24]}.bin"


def _installation_fault() -> str:
    """Return why Torch-TensorRT cannot run in this interpreter, with the fix; empty if it can."""
    versions = versions_of(("torch", "torch-tensorrt"))
    if "torch" not in versions:
        return "torch is not installed in this interpreter: pip install torch==2.13.0"
    if "torch-tensorrt" not in versions:
        return f"torch-tensorrt is not installed in this interpreter: {_install_command()}"
    torch, compiler = (_release(versions[name]) for name in ("torch", "torch-tensorrt"))
    if compiler < OLDEST:
        found = versions["torch-tensorrt"]
        return f"torch-tensorrt {found} is older than 2.13: pip install --upgrade torch-tensorrt torch"
    if torch != compiler:
        return (
            f"torch-tensorrt {versions['torch-tensorrt']} is for another release than torch {versions['torch']}: "
            f"{_install_command()}"
        )
    return ""


def _install_command() -> str:
    """Return the command that installs the release for the torch of this interpreter."""
    installed = versions_of(("torch",)).get("torch", "2.13")
    release = max(_release(installed), OLDEST)
    return f"pip install 'torch-tensorrt=={release[0]}.{release[1]}.*'"


def _release(version: str) -> tuple[int, int]:
    major, minor, *_ = version.split(".")
    return int(major), int(minor)
