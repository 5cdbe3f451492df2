"""Import of the code that all models of transformers share, without packages that no encoder here needs."""

from __future__ import annotations

import importlib

UNUSED = ("is_torchao_available", "is_scipy_available")
"""Functions of transformers.utils that decide on imports: torchao for quantized checkpoints, which are refused, and
scipy for losses of object detection."""


def import_model_code() -> None:
    """Import transformers.modeling_utils as if the packages of UNUSED were missing. They take a tenth of the time."""
    from transformers import utils

    found = {name: getattr(utils, name) for name in UNUSED if hasattr(utils, name)}
    try:
        for name in found:
            setattr(utils, name, lambda *_: False)
        importlib.import_module("transformers.modeling_utils")
    finally:
        for name, function in found.items():
            setattr(utils, name, function)
