"""Checks of a model before it is exported. They read only configuration and headers, so that a plan can run them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from backends.model.heads import check_output
from backends.model.supported import PLAIN_WEIGHTS, check_computable, check_named_layers
from suites.running.job import ExportJob
from suites.suite import ModelUse, load_suite


def check_model(job: ExportJob, config: Mapping[str, object], folder: Path | None) -> None:
    """Check that a model can be exported for a job.

    Args:
        config: contents of its config.json, or the settings of random weights.
        folder: folder of the checkpoint; None for random weights that are not made yet.

    Raises:
        Unsupported: the project, the backend or the suite does not support the model or its output.
        Unavailable: a file of the checkpoint is malformed.
    """
    check_computable(config)
    if job.source == "onnx" and job.form.arrays:
        check_named_layers(config, PLAIN_WEIGHTS)
    if job.spec.precision in ("int8", "fp8") and (option := job.spec.quantization.by_role):
        check_named_layers(config, option, "quantization.placement=gemm, without smooth, shift, search and qat_steps")
    if folder is not None:
        check_output(folder, job.spec.output)
    load_suite(job.suite).check_model(job.question, ModelUse(job.backend, config, job.spec.output))
