"""Run an exported ONNX file with onnxruntime. Needs onnxruntime and numpy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypedDict

import numpy as np


class Settings(TypedDict):
    """`settings` in manifest.json: the name of the model, the execution provider and its options."""

    file: str
    provider: str
    provider_options: dict[str, str]


def open_model(folder: Path, settings: Settings) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Open the model of an exported folder.

    Args:
        folder: the exported folder.
        settings: `settings` in manifest.json.

    Returns:
        A function from int32 arrays [batch, sequence] by input name to the last hidden state, FP32
        [batch, sequence, hidden].

    Raises:
        RuntimeError: this onnxruntime does not have the execution provider.
    """
    import onnxruntime

    provider = settings["provider"]
    if provider not in onnxruntime.get_available_providers():
        raise RuntimeError(f"this onnxruntime has no {provider}; install onnxruntime-gpu and the CUDA libraries")
    if provider != "CPUExecutionProvider" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # the CUDA libraries of pip packages
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(folder / settings["file"]), options, providers=[(provider, settings["provider_options"])]
    )
    if provider not in session.get_providers():
        raise RuntimeError(f"onnxruntime could not load its {provider}; install the CUDA libraries that it needs")

    def run(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        (hidden,) = session.run(None, dict(arrays))
        return np.asarray(hidden, np.float32)

    return run
