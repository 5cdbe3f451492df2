"""The request of suite=ceilings: one cell for a device and its number of threads, without a model."""

from __future__ import annotations

from backends.base import Shape
from suites.asking.suite_request import RequestContext, SuiteRequest
from suites.ceilings.suite import CeilingsQuestion
from suites.measuring.machine import gpus
from suites.schema.enums import DeviceKind, Precision
from suites.schema.refusals import Refused

BACKEND = "torch_operations"

SIZES = {"cuda": (4096, 8192, 16384), "cpu": (1024, 2048)}
"""Rows of square matrices that fill a device: with 4096 rows, a product has 1,024 tiles of 128 x 128."""


def suite_request(context: RequestContext) -> SuiteRequest:
    """The shapes of the cell are those of the matrices.

    Raises:
        Refused: another backend, a precision or a batch in several passes was requested.
    """
    config = context.config
    if config.backend != BACKEND:
        raise Refused(f"suite=ceilings runs no model; use backend={BACKEND} instead of backend={config.backend}")
    if config.precision is not Precision.fp32:
        raise Refused(f"suite=ceilings measures every precision; leave precision={config.precision.name} out")
    on_gpu = config.device is not DeviceKind.cpu and bool(gpus())
    sizes = tuple(sorted(set(config.ceilings.sizes))) or SIZES["cuda" if on_gpu else "cpu"]
    shapes, megabytes = tuple(Shape(size, size) for size in sizes), config.ceilings.megabytes
    return SuiteRequest(shapes, shapes, CeilingsQuestion(sizes, megabytes), options={"megabytes": megabytes})
