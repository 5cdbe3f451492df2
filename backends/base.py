"""The interface of a backend: every path is built and measured through it.

A backend builds an `Artifact` from a `Source` (a checkpoint and, if requested, its ONNX file) and opens the artifact
as a `Session`. A session never reads a clock, and all sessions have the same verbs, so one clock times every backend.
Import all names of the interface from here. This module needs only CPython 3.10 and numpy.
"""

from __future__ import annotations

import abc
import contextlib
import importlib
import importlib.metadata
from collections.abc import Iterator, Sequence
from typing import final

from backends.compute_share import ComputeShare
from backends.finding import Finding
from backends.interface_values import (
    Array,
    Artifact,
    BuildSpec,
    Device,
    Feeds,
    Shape,
    Source,
    SourceForm,
    Unavailable,
    Unsupported,
)
from backends.session_interface import Session

__all__ = (
    "Array",
    "Artifact",
    "Backend",
    "BuildSpec",
    "Device",
    "Feeds",
    "Opening",
    "Session",
    "Shape",
    "Source",
    "SourceForm",
    "Unavailable",
    "Unsupported",
    "opened_session",
    "versions_of",
)


class Backend(abc.ABC):
    """Library that runs a model."""

    distributions: tuple[str, ...] = ()
    """Names under which the library can be installed. The first one that is installed gives the release."""

    also_recorded: tuple[str, ...] = ()
    """More packages whose versions are recorded."""

    @abc.abstractmethod
    def check(self, spec: BuildSpec) -> None:
        """Refuse a cell that cannot run. Every probe calls it before work starts, so it must not import slow modules.

        Raises:
            Unsupported: the backend has no implementation for the precision or for an option.
            Unavailable: a requirement of the backend is not installed.
        """

    def source_form(self, spec: BuildSpec) -> SourceForm:
        """Return the source format that the build needs for `spec`. Called after `check`."""
        return SourceForm()

    def start_builder(self, spec: BuildSpec) -> None:  # noqa: B027  most builders start at once
        """Start the builder that the next `build` uses, while the source is exported in another process.

        It is called if the description says so (`starts_builder`). `spec` may have other shapes than the build.
        """

    @abc.abstractmethod
    def build(self, spec: BuildSpec, source: Source) -> Artifact: ...

    @abc.abstractmethod
    def opening(self, spec: BuildSpec, artifact: Artifact) -> Opening:
        """Open a session in parts; yield the name of each part when it is done, and with the last one the session."""

    def tactics(self, artifact: Artifact) -> tuple[str, ...]:
        """Return the implementation that the build chose for each layer, one text for each layer; empty if unknown."""
        return ()

    def divide(self, spec: BuildSpec, shares: Sequence[float]) -> tuple[ComputeShare, ...]:
        """Return parts of the device without common compute units, one for each share of its compute units.

        Raises:
            Unsupported: a CPU is not divided.
            Unavailable: the driver or the device cannot be divided.
        """
        _require_gpu(spec.device)
        contexts = importlib.import_module("backends.green_contexts")
        parts: tuple[ComputeShare, ...] = contexts.divide(spec.device.index, shares)
        return parts

    def limit_process(self, spec: BuildSpec, share: float | None) -> contextlib.AbstractContextManager[ComputeShare]:
        """Return a context that limits this process to a share of the compute units. Enter it before a session opens.

        Processes that it starts share the device with each other. None does not limit this process.

        Raises:
            Unsupported: a CPU is not divided.
            Unavailable: MPS is not installed, may not be started, or does not serve this process.
        """
        _require_gpu(spec.device)
        daemon = importlib.import_module("backends.mps_daemon")
        context: contextlib.AbstractContextManager[ComputeShare] = daemon.limited_process(share)
        return context

    def findings(self, device: Device) -> tuple[Finding, ...]:
        """Return facts about the installed library for a diagnosis of this machine. It may import the library.

        Args:
            device: the device that cells would use.
        """
        return ()

    @final
    def open(self, spec: BuildSpec, artifact: Artifact) -> Session:
        """Run `opening` to its end and return the session."""
        return opened_session(self.opening(spec, artifact))


def _require_gpu(device: Device) -> None:
    if device.kind != "cuda":
        raise Unsupported("only the SMs of an NVIDIA GPU can be divided; choose device=cuda")


Opening = Iterator[tuple[str, Session | None]]
"""Parts of the opening of a session: the name of each part, and the session with the last one."""


def opened_session(opening: Opening) -> Session:
    """Run all parts of `opening` and return the session."""
    *_, (_, session) = opening
    assert session is not None
    return session


def versions_of(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the installed version of each package, without importing it. Missing packages are omitted."""
    versions = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions
