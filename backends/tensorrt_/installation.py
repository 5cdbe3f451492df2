"""Which TensorRT this interpreter has, or what to do to get one; TensorRT itself is imported last."""

from __future__ import annotations

import re

from backends.base import Unavailable, versions_of
from backends.tensorrt_.capabilities import Capabilities, installed

PACKAGES = ("tensorrt", "cuda-python", "nvidia-cublas-cu12", "nvidia-cudnn-cu12")
RELEASES = ("8.6", "10", "11")
SET_UP = "run `make trt86`, or pip install tensorrt for release 10 or 11, and point interpreter.trt at that Python"


def available() -> Capabilities:
    """What the installed TensorRT can do.

    Raises:
        Unavailable: there is none, it is of a release this backend does not know, or a library it needs is missing.
    """
    release = versions_of(("tensorrt",)).get("tensorrt")
    if release is None:
        raise Unavailable(f"TensorRT is not installed in this interpreter: {SET_UP}")
    if not any(release == known or release.startswith(f"{known}.") for known in RELEASES):
        raise Unavailable(f"TensorRT {release} is not one this backend knows ({', '.join(RELEASES)}): {SET_UP}")
    try:
        import cuda.bindings.runtime  # noqa: F401

        return installed()
    except ImportError as error:
        raise Unavailable(missing(str(error))) from error


def missing(error: str) -> str:
    """What to install when importing TensorRT or cuda-python said `error`."""
    if "cuda" in error and "No module" in error:
        return "cuda-python is not installed beside TensorRT: pip install 'cuda-python>=13,<14'"
    library = re.search(r"lib\w+\.so[.\d]*", error)
    packages = {"libcudnn.so.8": "'nvidia-cudnn-cu12<9'", "libcublas.so.12": "nvidia-cublas-cu12",
                "libcublasLt.so.12": "nvidia-cublas-cu12"}  # fmt: skip
    if library and library.group() in packages:
        name = library.group()
        return (
            f"TensorRT needs {name}, which was not found: pip install {packages[name]} beside it, or run `make trt86`"
        )
    return f"TensorRT cannot be imported ({error}): {SET_UP}"
