"""TensorRT's timings of tactics, kept on disk between builds: one file per GPU model, driver and TensorRT release.

All profiles and builds share the file, but builds under a limit have a file for each limit. Machines with the same
GPU, driver and release have the same file name, so a copy of the file serves them too. A file that TensorRT does not
accept, such as one of another release or GPU, is renamed and never mixed with other timings.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import BuildSpec
from backends.cache import TIMINGS
from backends.cache_files import locked

if TYPE_CHECKING:
    import tensorrt as trt

logger = logging.getLogger(__name__)

REJECTED = ".rejected"
"""Suffix of a file that TensorRT did not accept. The newest one of each name is kept."""


def timing_cache_path(spec: BuildSpec, version: str) -> Path:
    """Return the file for builds of `spec` with TensorRT `version`, in its cache."""
    device, limit = spec.device, f" on {spec.build_limit}" if spec.build_limit else ""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{device.name} driver {device.driver} tensorrt {version}{limit}")
    return spec.cache / TIMINGS / f"{name}.bin"


def load_timings(config: trt.IBuilderConfig, path: Path) -> bool:
    """Set the timings of the file `path` in `config`; none if there is no file. Return whether there are timings.

    A file of another release or GPU, or a damaged one, is set aside.
    """
    content = path.read_bytes() if path.exists() else b""
    timings = _timings_in(config, content)
    if timings is None or not config.set_timing_cache(timings, ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
        with locked(_lock_of(path)):
            _set_aside(path, content)
        return False
    return bool(content)


def save_timings(config: trt.IBuilderConfig, path: Path) -> None:
    """Write the timings of a finished build to `path`, merged with the timings that are in the file by now.

    If both have timings of a layer, this build's are kept, because `combine` does not replace entries. This is needed
    to discard timings that led to an engine that cannot be opened.
    """
    with locked(_lock_of(path)):
        timings = config.get_timing_cache()
        content = path.read_bytes() if path.exists() else b""
        if content:
            others = _timings_in(config, content)
            if others is None or not timings.combine(others, ignore_mismatch=False):
                _set_aside(path, content)
        partial = path.with_suffix(".partial")  # a fixed name: killed builders leave at most one file
        partial.write_bytes(memoryview(timings.serialize()))
        os.replace(partial, path)


def _timings_in(config: trt.IBuilderConfig, content: bytes) -> trt.ITimingCache | None:
    """Return the timings in the content of a file; None if TensorRT cannot read it.

    TensorRT-RTX returns an empty cache for content that it does not use.
    """
    timings, empty = config.create_timing_cache(content), config.create_timing_cache(b"")
    if timings is None or _size(timings) <= _size(empty) < len(content):
        return None
    return timings


def _size(timings: trt.ITimingCache) -> int:
    return len(memoryview(timings.serialize()))


def _lock_of(path: Path) -> Path:
    return path.with_suffix(".lock")


def _set_aside(path: Path, content: bytes) -> None:
    """Rename `path` if it still has this content; another builder may have replaced it. The caller holds its lock."""
    if path.exists() and path.read_bytes() == content:
        rejected = path.with_suffix(REJECTED)
        os.replace(path, rejected)
        logger.warning(
            "timing cache %s is damaged, or of another release or GPU; renamed to %s, and this build times all tactics",
            path.name,
            rejected.name,
        )
