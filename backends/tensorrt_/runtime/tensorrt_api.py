"""Python API of an installed TensorRT. It is loaded once and passed to all code that calls TensorRT."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import reduce
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from backends.tensorrt_.runtime.capabilities import Capabilities

MODULES = ("tensorrt", "tensorrt_rtx")
"""Python modules of TensorRT and of TensorRT-RTX. An interpreter that has both uses the first."""


@dataclass(frozen=True)
class TensorRTApi:
    """Python API of one TensorRT release.

    Attributes:
        trt: the module `tensorrt` or `tensorrt_rtx`.
        can: capabilities of the release. A name that only some releases have is used under `if can.FLAG:`.
        loaded_libraries: paths of the plugin libraries that are loaded in this process.
    """

    trt: ModuleType
    can: Capabilities
    loaded_libraries: set[str] = field(default_factory=set)

    @property
    def version(self) -> str:
        return str(self.trt.__version__)

    @property
    def product(self) -> str:
        """Name and version: "TensorRT 8.6.0", or "TensorRT-RTX 1.7.1"."""
        return f"{'TensorRT-RTX' if self.can.named_targets else 'TensorRT'} {self.version}"


def load_api() -> TensorRTApi:
    """Import the TensorRT of this interpreter: the first of MODULES that is installed.

    Raises:
        ImportError: TensorRT or a library that it needs is missing.
    """
    tensorrt = import_module(installed_module() or MODULES[0])

    def has_name(name: str) -> bool:
        try:
            reduce(getattr, name.split("."), tensorrt)
        except AttributeError:
            return False
        return True

    return TensorRTApi(tensorrt, Capabilities.where(has_name))


def installed_module() -> str:
    """Return the Python module of the installed TensorRT without importing it; empty if there is none."""
    return next((name for name in MODULES if name in sys.modules or find_spec(name)), "")
