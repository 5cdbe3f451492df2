"""Facts of one measuring process: figures that are not samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from backends.json_part import Part, optional, optional_mapping
from suites.measuring.cpu_load import CpuLoad

SHAPE = "[0-9]+x[0-9]+"
"""Regular expression for the name of a shape: batch and sequence length."""


@dataclass(frozen=True)
class ShapeFacts(Part):
    """Facts about one shape.

    Attributes:
        first_step_ns: time of the first step with this shape.
        capture_ns: time to capture the CUDA graph.
        no_cuda_graph: the reason why there is no CUDA graph; empty otherwise.
        peak_host_bytes: largest host memory of the process so far.
    """

    first_step_ns: int | None = optional(None)
    capture_ns: int | None = optional(None)
    no_cuda_graph: str = optional("")
    peak_host_bytes: int | None = optional(None)


@dataclass(frozen=True)
class DeviceMemory(Part):
    """Device memory in bytes that parts of suite=switching took.

    Attributes:
        opening: by step of the opening of the session for plain steps.
        shapes: by the first requests of all shapes.
        graphs: by all CUDA graphs that are kept.
    """

    opening: Mapping[str, int] = optional_mapping()
    shapes: int | None = optional(None)
    graphs: int | None = optional(None)


@dataclass(frozen=True)
class Facts(Part):
    """Facts of one measuring process. In JSON, the facts of a shape are next to the others, by the name of the shape.

    Attributes:
        open_ns: time to open the first session; `opening_ns` has it by step.
        loaded: versions of the loaded packages, by name.
        cpu_load: load over the whole process; None if it is not known.
        memory: device memory; None without a device, and for other suites than switching.
        graphs: number of CUDA graphs that are kept.
        steady: whether each warm-up became steady: of "plain" steps and of "graph" replays.
        cuda_module_loading: value of CUDA_MODULE_LOADING.
        no_cuda_graph: the reason why there are no CUDA graphs; empty otherwise.
        shapes: facts by name of a shape.
    """

    json_items: ClassVar[Mapping[str, str]] = {"shapes": SHAPE}

    open_ns: int | None = optional(None)
    opening_ns: Mapping[str, int] = optional_mapping()
    loaded: Mapping[str, str] = optional_mapping()
    cpu_load: CpuLoad | None = optional(None)
    memory: DeviceMemory | None = optional(None)
    graphs: int | None = optional(None)
    steady: Mapping[str, bool] = optional_mapping()
    cuda_module_loading: str = optional("")
    no_cuda_graph: str = optional("")
    shapes: Mapping[str, ShapeFacts] = optional_mapping()

    def opened(self, steps: Mapping[str, int]) -> Facts:
        """Return these facts with the times of the steps of an opening in ns."""
        return replace(self, open_ns=sum(steps.values()), opening_ns=dict(steps))

    def of_shape(self, name: str) -> ShapeFacts:
        """Return the facts of a shape; without any figure if there are none."""
        return self.shapes.get(name, ShapeFacts())

    @classmethod
    def from_layout(cls, data: Mapping[str, object]) -> Mapping[str, object]:
        # Without a figure, the load was an empty object.
        return super().from_layout({name: value for name, value in data.items() if (name, value) != ("cpu_load", {})})
