"""TensorRT's timings of tactics, kept on disk between builds: one file per GPU model, driver and TensorRT release."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import Device
from backends.cache import TIMINGS
from backends.cache_files import locked

if TYPE_CHECKING:
    import tensorrt as trt

logger = logging.getLogger(__name__)


def timing_cache_path(cache: Path, device: Device, version: str) -> Path:
    """Return the file for builds with TensorRT `version` on `device`, in the folder `cache`."""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{device.name} driver {device.driver} tensorrt {version}")
    return cache / TIMINGS / f"{name}.bin"


def load_timings(config: trt.IBuilderConfig, path: Path) -> None:
    """Set the timings of the file `path` in `config`; none if there is no file or TensorRT cannot read it."""
    content = path.read_bytes() if path.exists() else b""
    timings = config.create_timing_cache(content)
    if timings is None or not config.set_timing_cache(timings, ignore_mismatch=False):
        logger.warning("timing cache %s cannot be read by this release; starting a new one", path.name)
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def save_timings(config: trt.IBuilderConfig, path: Path) -> None:
    """Write the timings of a finished build to `path`, merged with the timings that are in the file by now.

    If both have timings of a layer, this build's are kept, because `combine` does not replace entries. This is needed
    to discard timings that led to an engine that cannot be opened.
    """
    with locked(path.with_suffix(".lock")):
        timings = config.get_timing_cache()
        others = config.create_timing_cache(path.read_bytes()) if path.exists() else None
        if others is not None and not timings.combine(others, ignore_mismatch=False):
            logger.warning("timing cache %s is from another release or GPU; starting a new one", path.name)
        partial = path.with_suffix(".partial")  # a fixed name: killed builders leave at most one file
        partial.write_bytes(memoryview(timings.serialize()))
        os.replace(partial, path)
