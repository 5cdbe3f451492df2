"""Find the TensorRT release of this interpreter, or explain how to install one. TensorRT itself is imported last."""

from __future__ import annotations

import re
import sys

from backends.base import Unavailable, versions_of
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi, load_api

RTX_DISTRIBUTIONS = ("tensorrt-rtx", "tensorrt-rtx-cu12", "tensorrt-rtx-cu13")
DISTRIBUTIONS = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13", *RTX_DISTRIBUTIONS)
"""Python distributions of TensorRT, and then of TensorRT-RTX. The first one of each may only depend on one of the
others, or be absent."""

COMPANION_PACKAGES = ("cuda-python", "nvidia-cublas-cu12", "nvidia-cudnn-cu12")
PACKAGES = (*DISTRIBUTIONS, *COMPANION_PACKAGES)
RELEASES, RTX_RELEASES = ("8.6", "10", "11"), ("1",)
INSTALL_ADVICE = (
    "run `make trt86`, or pip install tensorrt for release 10 or 11, or run `make trt-rtx`, and set interpreter.trt to "
    "that Python"
)

INSTALL_COMMAND = f"{sys.executable} -m pip install tensorrt cuda-python"
"""Command that installs the newest release in this interpreter."""


def available_api() -> TensorRTApi:
    """Return the API of the installed TensorRT.

    Raises:
        Unavailable: TensorRT is not installed, this backend does not support its release, or a library that it needs is
            missing.
    """
    distribution, release = installed_distribution()
    if not release:
        raise Unavailable(f"TensorRT is not installed in this interpreter: {INSTALL_ADVICE}")
    rtx = distribution in RTX_DISTRIBUTIONS
    product, releases = ("TensorRT-RTX", RTX_RELEASES) if rtx else ("TensorRT", RELEASES)
    if not any(release == supported or release.startswith(f"{supported}.") for supported in releases):
        raise Unavailable(f"{product} {release} is not supported (supported: {', '.join(releases)}): {INSTALL_ADVICE}")
    try:
        import cuda.bindings.runtime  # noqa: F401

        return load_api()
    except ImportError as error:
        raise Unavailable(import_advice(str(error))) from error


def installed_release() -> str:
    """Return the version of TensorRT in this interpreter without importing it; empty if it is not installed."""
    return installed_distribution()[1]


def installed_distribution() -> tuple[str, str]:
    """Return the distribution of TensorRT in this interpreter and its version; empty texts if there is none."""
    return next(iter(versions_of(DISTRIBUTIONS).items()), ("", ""))


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
