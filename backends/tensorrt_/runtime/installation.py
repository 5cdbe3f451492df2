"""Find the TensorRT release of this interpreter, or explain how to install one. TensorRT itself is imported last."""

from __future__ import annotations

import re
import sys

from backends.base import Unavailable, versions_of
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi, load_api

DISTRIBUTIONS = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13")
"""Python distributions of TensorRT. The first one may only depend on one of the others, or be absent."""

COMPANION_PACKAGES = ("cuda-python", "nvidia-cublas-cu12", "nvidia-cudnn-cu12")
PACKAGES = (*DISTRIBUTIONS, *COMPANION_PACKAGES)
RELEASES = ("8.6", "10", "11")
INSTALL_ADVICE = (
    "run `make trt86`, or pip install tensorrt for release 10 or 11, and set interpreter.trt to that Python"
)

INSTALL_COMMAND = f"{sys.executable} -m pip install tensorrt cuda-python"
"""Command that installs the newest release in this interpreter."""


def available_api() -> TensorRTApi:
    """Return the API of the installed TensorRT.

    Raises:
        Unavailable: TensorRT is not installed, this backend does not support its release, or a library that it needs is
            missing.
    """
    release = installed_release()
    if not release:
        raise Unavailable(f"TensorRT is not installed in this interpreter: {INSTALL_ADVICE}")
    if not any(release == supported or release.startswith(f"{supported}.") for supported in RELEASES):
        raise Unavailable(f"TensorRT {release} is not supported (supported: {', '.join(RELEASES)}): {INSTALL_ADVICE}")
    try:
        import cuda.bindings.runtime  # noqa: F401

        return load_api()
    except ImportError as error:
        raise Unavailable(import_advice(str(error))) from error


def installed_release() -> str:
    """Return the version of TensorRT in this interpreter without importing it; empty if it is not installed."""
    return next(iter(versions_of(DISTRIBUTIONS).values()), "")


def import_advice(error: str) -> str:
    """Return which package to install after a failed import of TensorRT or cuda-python.

    Args:
        error: message of the ImportError.
    """
    if "cuda" in error and "No module" in error:
        versions = "'cuda-python>=13,<14', or '>=12.8,<13' for a driver older than 580"
        return f"cuda-python is not installed in the Python of TensorRT: pip install {versions}"
    library = re.search(r"lib\w+\.so[.\d]*", error)
    packages = {"libcudnn.so.8": "'nvidia-cudnn-cu12<9'", "libcublas.so.12": "nvidia-cublas-cu12",
                "libcublasLt.so.12": "nvidia-cublas-cu12"}  # fmt: skip
    if library and library.group() in packages:
        name = library.group()
        return (
            f"TensorRT needs {name}, which was not found: pip install {packages[name]} in the same Python, "
            f"or run `make trt86`"
        )
    return f"TensorRT cannot be imported ({error}): {INSTALL_ADVICE}"
