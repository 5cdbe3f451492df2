"""Run an exported OpenVINO model on the CPU. Needs openvino and numpy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypedDict

import numpy as np


class Settings(TypedDict):
    """`settings` in manifest.json: the name of the model, and properties of OpenVINO's CPU plugin."""

    file: str
    properties: dict[str, str]


def open_model(folder: Path, settings: Settings) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Open the model of an exported folder.

    Args:
        folder: the exported folder.
        settings: `settings` in manifest.json.

    Returns:
        A function from int32 arrays [batch, sequence] by input name to the output, FP32: [batch, sequence, features]
        for an output of each token, else [batch, features].

    Raises:
        RuntimeError: this OpenVINO cannot read the model.
    """
    import openvino

    model = openvino.Core().compile_model(str(folder / settings["file"]), "CPU", settings["properties"])
    request = model.create_infer_request()

    def run(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        request.infer(dict(arrays))
        return np.array(request.get_output_tensor(0).data, np.float32)

    return run
