"""Python API of an installed TensorRT. It is loaded once and passed to all code that calls TensorRT."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from types import ModuleType

from backends.tensorrt_.runtime.capabilities import Capabilities


@dataclass(frozen=True)
class TensorRTApi:
    """Python API of one TensorRT release.

    Attributes:
        trt: the module `tensorrt`.
        can: capabilities of the release. A name that only some releases have is used under `if can.FLAG:`.
        loaded_libraries: paths of the plugin libraries that are loaded in this process.
    """

    trt: ModuleType
    can: Capabilities
    loaded_libraries: set[str] = field(default_factory=set)

    @property
    def version(self) -> str:
        return str(self.trt.__version__)


def load_api() -> TensorRTApi:
    """Import the TensorRT of this interpreter.

    Raises:
        ImportError: TensorRT or a library that it needs is missing.
    """
    import tensorrt

    def has_name(name: str) -> bool:
        try:
            reduce(getattr, name.split("."), tensorrt)
        except AttributeError:
            return False
        return True

    return TensorRTApi(tensorrt, Capabilities.where(has_name))
