"""Report a missing library in one line. Importing this module ends the process if a library of the commands is missing.

Commands whose imports need a library import this module before the others.
"""

from __future__ import annotations

import importlib.util
import sys

from suites.root import ROOT

DISTRIBUTIONS = {
    "cuda": "cuda-python",
    "hydra": "hydra-core",
    "onnx_graphsurgeon": "onnx-graphsurgeon",
    "onnxruntime": "onnxruntime-gpu",
    "pynvml": "nvidia-ml-py",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}
"""Distributions whose name differs from the name of their module."""

NEEDED = ("hydra", "omegaconf", "numpy", "rich")
"""Modules that every command imports. Workers import the other libraries."""

REFUSED = 2


def not_installed(module: str) -> str:
    """Return one line about a missing module: its distribution, this Python, and how to correct it."""
    distribution = DISTRIBUTIONS.get(module.partition(".")[0], module.partition(".")[0])
    advice = f"run {sys.executable} -m pip install {distribution}"
    if (ROOT / "Makefile").exists():
        advice = "activate .venv (source .venv/bin/activate) or run make demo"
    return f"{distribution} is not installed in {sys.executable}; {advice}"


def check() -> None:
    """End this process with exit status 2 and one line on standard error if a library of the commands is missing."""
    for module in NEEDED:
        if module not in sys.modules and importlib.util.find_spec(module) is None:
            print(f"refused: {not_installed(module)}", file=sys.stderr)
            sys.exit(REFUSED)


check()
