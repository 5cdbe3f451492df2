"""TensorRT's timings of tactics, kept on disk between builds: one file a GPU model, driver and release."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import tensorrt as trt

from backends.base import Device
from backends.cache_files import locked

logger = logging.getLogger(__name__)


def timing_cache_path(cache: Path, device: Device) -> Path:
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{device.name} driver {device.driver} tensorrt {trt.__version__}")
    return cache / "timing" / f"{name}.bin"


def load_timings(config: trt.IBuilderConfig, path: Path) -> None:
    """Give `config` the timings in `path`; an empty cache if there are none or TensorRT cannot read them."""
    content = path.read_bytes() if path.exists() else b""
    timings = config.create_timing_cache(content)
    if timings is None or not config.set_timing_cache(timings, ignore_mismatch=False):
        logger.warning("timing cache %s cannot be read by this release; starting a new one", path.name)
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def save_timings(config: trt.IBuilderConfig, path: Path) -> None:
    """Write the timings of a finished build to `path`, with those that another builder may have put there meanwhile.

    Where both timed a layer this build's stay, for `combine` skips what is there already: timings that led to an
    engine that cannot be opened must not outlive the build that replaced them.
    """
    with locked(path.with_suffix(".lock")):
        timings = config.get_timing_cache()
        others = config.create_timing_cache(path.read_bytes()) if path.exists() else None
        if others is not None and not timings.combine(others, ignore_mismatch=False):
            logger.warning("timing cache %s is of another release or GPU; starting a new one", path.name)
        partial = path.with_suffix(".partial")  # one name, so that builders that are killed leave no more than one
        partial.write_bytes(memoryview(timings.serialize()))
        os.replace(partial, path)
