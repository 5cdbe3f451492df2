"""Single operations that show how fast a machine is, and the session that runs one at a time.

Needs CPython 3.10 and the standard library alone; the session belongs to a backend.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from backends.base import Array, Feeds, Session, Unsupported
from backends.json_part import Part

PRODUCT = "product"

TRANSFERS = ("pinned to device", "device to pinned", "pageable to device", "device to pageable")

KERNEL_LAUNCH, GRAPH_LAUNCH = "kernel launch", "graph launch"

AND_WAIT = " and wait"
"""End of the name of a launch that waits for the device each time. Other launches run back to back."""

WORK = {
    PRODUCT: lambda size: 2 * size**3,
    "device copy": lambda size: 2 * size,
    "copy": lambda size: 2 * size,
    "triad": lambda size: 3 * size,
    **dict.fromkeys(TRANSFERS, lambda size: size),
}
"""Work of a step by name. A product of two [size, size] matrices has size^3 multiplications and as many additions. A
copy of `size` bytes reads and writes them. A triad, a = b + s * c, reads two arrays of `size` bytes and writes one, as
STREAM counts it (J. McCalpin, Memory Bandwidth and Machine Balance in Current High Performance Computers, 1995)."""


@dataclass(frozen=True)
class Operation(Part):
    """One operation.

    Attributes:
        name: key of `WORK`, or a launch.
        precision: name of a precision for a product, else empty.
        size: rows of a square matrix, or bytes of an array; 0 for a launch.
    """

    name: str
    precision: str = ""
    size: int = 0

    @property
    def work(self) -> int:
        """Arithmetic operations or bytes of one step; 0 for a launch."""
        return WORK[self.name](self.size) if self.name in WORK else 0

    @property
    def unit(self) -> str:
        if self.name == PRODUCT:
            return "TOP/s" if self.precision == "int8" else "TFLOP/s"
        return "GB/s" if self.name in WORK else "µs"

    def figure(self, nanoseconds: float) -> float:
        """Return the figure in `unit` of a step that takes this time."""
        if self.name == PRODUCT:
            return self.work / nanoseconds / 1e3
        return self.work / nanoseconds if self.name in WORK else nanoseconds / 1e3


@dataclass(frozen=True)
class LeftOut(Part):
    """Operation that a machine cannot run, with the reason."""

    name: str
    precision: str
    reason: str


class OperationSession(Session):
    """Session that runs one selected operation in each step. It has no model and no inputs."""

    @abc.abstractmethod
    def operations(self, sizes: Sequence[int], size_in_bytes: int) -> tuple[list[Operation], list[LeftOut]]:
        """Return the operations of this device.

        Args:
            sizes: rows of the square matrices.
            size_in_bytes: size of the arrays that are copied.
        """

    @abc.abstractmethod
    def select(self, operation: Operation) -> None:
        """Allocate the operands; the next steps run this operation. The operands of the last one are freed."""

    def changing(self, feeds: Feeds) -> Iterator[str]:
        raise Unsupported("this backend runs single operations and no model; use suite=ceilings")

    def copy_in(self, feeds: Feeds) -> None:
        raise Unsupported("this backend runs single operations and no model; use suite=ceilings")

    @abc.abstractmethod
    def fetch(self) -> Array:
        """Return the output of the last step as FP32 or int32."""
