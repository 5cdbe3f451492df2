"""Plugin libraries and plans, brought into this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorrt as trt

from backends.base import Unsupported
from backends.tensorrt_.log import Log

_loaded: set[str] = set()
"""TensorRT gives nothing for a library that it cannot load, and nothing for one that it has loaded before."""


def load_plugins(options: Mapping[str, Any], log: Log) -> None:
    """Register TensorRT's own plugins and those of `options["plugin_libraries"]`, paths of shared libraries.

    Raises:
        Unsupported: a library is none that this release can load.
    """
    trt.init_libnvinfer_plugins(log, "")
    for library in options["plugin_libraries"]:
        if library not in _loaded and trt.get_plugin_registry().load_library(library) is None:
            raise Unsupported(
                f"TensorRT {trt.__version__} cannot load {library}: it must be a library of plugins built for this "
                f"release, with all that `ldd` says it needs"
            )
        _loaded.add(library)


def read_plan(plan: Any, options: Mapping[str, Any], log: Log) -> Any:
    """The `trt.ICudaEngine` of a plan (bytes, or what the builder gave), or None with the reason in `log`.

    Plans of `version_compatible` engines bring host code of their own along, which a runtime runs only if allowed to:
    what gets here was built here.
    """
    reader = trt.Runtime(log)
    reader.engine_host_code_allowed = options["version_compatible"]
    return reader.deserialize_cuda_engine(plan)
