"""The request of suite=layers: the largest shape, and the outputs that are marked at a time."""

from __future__ import annotations

from backends.model_output import HIDDEN
from suites.asking.suite_request import RequestContext, SuiteRequest, require_model
from suites.layers.suite import LayersQuestion


def suite_request(context: RequestContext) -> SuiteRequest:
    """
    Raises:
        Refused: the backend runs no model.
    """
    require_model(context.config)
    chunk, largest = context.config.layers.chunk, context.shapes[-1:]
    return SuiteRequest(largest, largest, LayersQuestion(0, chunk), options={"marked": chunk}, output=HIDDEN)
