"""Load plugin libraries and plans into this process."""

from __future__ import annotations

from typing import Any

import tensorrt as trt

from backends.base import Unsupported
from backends.tensorrt_.options import EngineKeys
from backends.tensorrt_.runtime.log import Log

_loaded: set[str] = set()
"""Paths of loaded libraries. TensorRT returns None both for a library that it cannot load and for a loaded one."""


def load_plugins(options: EngineKeys, log: Log) -> None:
    """Register TensorRT's own plugins and those in `options.plugin_libraries`, paths of shared libraries.

    Raises:
        Unsupported: this release cannot load a library.
    """
    trt.init_libnvinfer_plugins(log, "")
    for library in options.plugin_libraries:
        if library not in _loaded and trt.get_plugin_registry().load_library(library) is None:
            raise Unsupported(
                f"TensorRT {trt.__version__} cannot load {library}: it must be a plugin library for this release, and "
                f"all libraries that `ldd` lists for it must be installed"
            )
        _loaded.add(library)


def read_plan(plan: Any, options: EngineKeys, log: Log) -> Any:
    """Deserialize a plan to a `trt.ICudaEngine`. Return None if that fails; `log` has the reason.

    Plans of `version_compatible` engines contain host code. A runtime runs that code only if it is allowed. Allowing it
    is safe here, because the suite itself built the plan.

    Args:
        plan: bytes, or the buffer that the builder returns.
    """
    reader = trt.Runtime(log)
    reader.engine_host_code_allowed = options.version_compatible
    return reader.deserialize_cuda_engine(plan)
