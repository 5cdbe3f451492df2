"""Load plugin libraries and plans into this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.base import Unsupported
from backends.tensorrt_.runtime.log import Log
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi
from backends.tensorrt_.runtime.tensorrt_options import EngineKeys

if TYPE_CHECKING:
    import tensorrt as trt


def load_plugins(api: TensorRTApi, options: EngineKeys, log: Log) -> None:
    """Register TensorRT's own plugins and those in `options.plugin_libraries`, paths of shared libraries.

    Raises:
        Unsupported: this release cannot load a library.
    """
    trt = api.trt
    trt.init_libnvinfer_plugins(log.logger, "")
    for library in options.plugin_libraries:
        # TensorRT returns None both for a library that it cannot load and for a loaded one.
        if library not in api.loaded_libraries and trt.get_plugin_registry().load_library(library) is None:
            raise Unsupported(
                f"TensorRT {api.version} cannot load {library}: it must be a plugin library for this release, and "
                f"all libraries that `ldd` lists for it must be installed"
            )
        api.loaded_libraries.add(library)


def read_plan(api: TensorRTApi, plan: bytes | trt.IHostMemory, options: EngineKeys, log: Log) -> trt.ICudaEngine | None:
    """Deserialize a plan. Return None if that fails; `log` has the reason.

    Plans of `version_compatible` engines contain host code. A runtime runs that code only if it is allowed. Allowing it
    is safe here, because the suite itself built the plan.

    Args:
        plan: bytes, or the buffer that the builder returns.
    """
    trt, can = api.trt, api.can
    reader = trt.Runtime(log.logger)
    reader.engine_host_code_allowed = options.version_compatible
    if can.engine_validity:
        validity, reasons = reader.get_engine_validity(plan)
        if validity == trt.EngineValidity.INVALID:
            log.errors.append(f"the plan does not run here: {_explained(api, int(reasons))}")
            return None
    return reader.deserialize_cuda_engine(plan)


INVALIDITY = {
    "VERSION_MISMATCH": "it is of another release of TensorRT-RTX; build it with this one",
    "UNSUPPORTED_CC": "it is for another GPU; build it for this GPU, or with trt.target=portable",
    "OLD_CUDA_DRIVER": "the driver of the GPU is too old for it; install a newer driver",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is too old for it; install a newer one",
    "INSUFFICIENT_GPU_MEMORY": "the GPU has too little free memory for it; free some",
    "MALFORMED_ENGINE": "it is damaged, or not a plan of TensorRT-RTX; build it again",
    "CUDA_ERROR": "CUDA reports an error; nvidia-smi must list the GPU",
}
"""Reasons of EngineInvalidityDiagnostics, with what to do."""

NO_REASON = "TensorRT-RTX gives no reason; nvidia-smi must list a GPU that it supports"


def _explained(api: TensorRTApi, reasons: int) -> str:
    """Return the reasons in a bit mask of EngineInvalidityDiagnostics in words."""
    trt, can = api.trt, api.can
    if not can.engine_validity:
        return ""
    names = [name for name, reason in trt.EngineInvalidityDiagnostics.__members__.items() if reasons & int(reason)]
    return "; ".join(INVALIDITY.get(name, name.lower().replace("_", " ")) for name in names) or NO_REASON
