"""Share of the compute units of a device that a session or a build may use. Those of an NVIDIA GPU are its SMs.

A session that is opened within `limited_to` makes its stream in this share. Each thread has its own share.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class ComputeShare:
    """Some of the compute units of a device.

    Attributes:
        units: number of compute units that the device gave.
        total: number of compute units of the device.
        context: the object of the vendor that has these units, see backends/green_contexts.py.
    """

    units: int
    total: int
    context: object = None


GREEN, MPS = "green", "mps"
"""Methods that limit a build: a green context, and MPS."""


@dataclass(frozen=True)
class BuildLimit:
    """Share of the compute units on which a builder measures its tactics.

    Attributes:
        method: GREEN or MPS.
        share: of the compute units of the device.
    """

    method: str
    share: float

    def __str__(self) -> str:
        return f"{self.method} {100 * self.share:g} percent"


_current: ContextVar[ComputeShare | None] = ContextVar("compute share", default=None)


@contextlib.contextmanager
def limited_to(share: ComputeShare | None) -> Iterator[None]:
    """Limit the sessions that this thread opens in this context; None sets no limit."""
    token = _current.set(share)
    try:
        yield
    finally:
        _current.reset(token)


def current_share() -> ComputeShare | None:
    """Return the share of sessions that this thread opens now; None without a limit."""
    return _current.get()
