"""Which TensorRT this interpreter has, or what to do to get one; TensorRT itself is imported last."""

from __future__ import annotations

import re

from backends.base import Unavailable, versions_of
from backends.tensorrt_.capabilities import Capabilities, installed

DISTRIBUTIONS = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13")
"""What TensorRT is installed as: the first may be a mere pointer to one of the others, or absent beside it."""

BESIDE = ("cuda-python", "nvidia-cublas-cu12", "nvidia-cudnn-cu12")
PACKAGES = (*DISTRIBUTIONS, *BESIDE)
RELEASES = ("8.6", "10", "11")
SET_UP = "run `make trt86`, or pip install tensorrt for release 10 or 11, and point interpreter.trt at that Python"


def available() -> Capabilities:
    """What the installed TensorRT can do.

    Raises:
        Unavailable: there is none, it is of a release this backend does not know, or a library it needs is missing.
    """
    release = installed_release()
    if not release:
        raise Unavailable(f"TensorRT is not installed in this interpreter: {SET_UP}")
    if not any(release == known or release.startswith(f"{known}.") for known in RELEASES):
        raise Unavailable(f"TensorRT {release} is not one this backend knows ({', '.join(RELEASES)}): {SET_UP}")
    try:
        import cuda.bindings.runtime  # noqa: F401

        return installed()
    except ImportError as error:
        raise Unavailable(missing(str(error))) from error


def installed_release() -> str:
    """The version of TensorRT in this interpreter, without importing it; empty if there is none."""
    return next(iter(versions_of(DISTRIBUTIONS).values()), "")


def missing(error: str) -> str:
    """What to install when importing TensorRT or cuda-python said `error`."""
    if "cuda" in error and "No module" in error:
        versions = "'cuda-python>=13,<14', or '>=12.8,<13' for a driver older than 580"
        return f"cuda-python is not installed beside TensorRT: pip install {versions}"
    library = re.search(r"lib\w+\.so[.\d]*", error)
    packages = {"libcudnn.so.8": "'nvidia-cudnn-cu12<9'", "libcublas.so.12": "nvidia-cublas-cu12",
                "libcublasLt.so.12": "nvidia-cublas-cu12"}  # fmt: skip
    if library and library.group() in packages:
        name = library.group()
        return (
            f"TensorRT needs {name}, which was not found: pip install {packages[name]} beside it, or run `make trt86`"
        )
    return f"TensorRT cannot be imported ({error}): {SET_UP}"
