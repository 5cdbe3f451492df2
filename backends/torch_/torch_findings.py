"""Findings about PyTorch and about the compilers of torch.compile."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

from backends.base import Device, versions_of
from backends.finding import MISSING, OK, WARNING, Finding

COMPILERS = ("g++", "clang++")
VERSION_SECONDS = 10


def torch_findings(device: Device) -> tuple[Finding, ...]:
    """Return the build of PyTorch and the version of its cuDNN. Imports torch."""
    install = f"{sys.executable} -m pip install torch==2.13.0"
    if not versions_of(("torch",)):
        return (Finding("PyTorch", MISSING, "not installed", install),)
    import torch

    cuda = torch.version.cuda
    build = f"built for CUDA {cuda}" if cuda else "built for CPUs"
    text = f"{torch.__version__}, {build}"
    if device.kind != "cuda":
        return (Finding("PyTorch", OK, text),)
    if not cuda:
        return (Finding("PyTorch", MISSING, f"{text}; it cannot use the GPU", f"{install} --force-reinstall"),)
    if not torch.cuda.is_available():
        return (Finding("PyTorch", MISSING, f"{text}; it finds no usable GPU or driver", "nvidia-smi"),)
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]  # torch has no types for it
    found = Finding("cuDNN", OK, str(cudnn)) if cudnn else Finding("cuDNN", WARNING, "PyTorch finds none", install)
    return Finding("PyTorch", OK, text), found


def compiler_findings(device: Device) -> tuple[Finding, ...]:
    """Return the compilers of torch.compile: a C++ compiler on a CPU, triton and a C compiler on a GPU, and nvcc."""
    found = [name for name in ("gcc", *COMPILERS) if shutil.which(name)]
    texts = [f"{name} {_version(name)}".rstrip() for name in found]
    triton = versions_of(("triton",)).get("triton", "")
    texts += [f"triton {triton}"] if triton else []
    nvcc = shutil.which("nvcc")
    texts.append(f"nvcc {_version('nvcc')}".rstrip() if nvcc else "no nvcc (not needed)")
    text = ", ".join(texts)
    if device.kind == "cuda" and not triton:
        return (Finding("compilers", MISSING, f"no triton; {text}", f"{sys.executable} -m pip install triton"),)
    needed = {"gcc", "clang", "cc"} if device.kind == "cuda" else set(COMPILERS)
    if not any(shutil.which(name) for name in needed):
        return (Finding("compilers", MISSING, f"no {' or '.join(sorted(needed))}; {text}", "apt-get install g++"),)
    return (Finding("compilers", OK, text),)


def _version(program: str) -> str:
    """Return the version that a compiler prints; "" if it prints none."""
    try:
        done = subprocess.run(
            [program, "--version"],
            check=False,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=VERSION_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    match = re.search(r"release (\d[\d.]*)|(\d+\.\d+[\d.]*)", done.stdout)
    return next(filter(None, match.groups())) if match else ""
