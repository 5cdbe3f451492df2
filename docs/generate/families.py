"""Table of the supported model families."""

from __future__ import annotations

from backends.model.families import FAMILIES
from suites.tables.markdown import markdown


def family_table() -> str:
    """Return the model types of `FAMILIES` by the backends that run them."""
    every = [name for name, family in FAMILIES.items() if family.named_layers]
    others = [name for name, family in FAMILIES.items() if not family.named_layers]
    rows = [
        [", ".join(f"`{name}`" for name in every), "every backend and precision"],
        [
            ", ".join(f"`{name}`" for name in others),
            "PyTorch, ONNX Runtime and `trt`; in INT8 with `quantization.placement=gemm`",
        ],
    ]
    return markdown(["`model_type` in config.json", "runs with"], rows)
