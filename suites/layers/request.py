"""The request of suite=layers: the largest shape, and the outputs that are marked at a time."""

from __future__ import annotations

from suites.asking.suite_request import RequestContext, SuiteRequest, require_model
from suites.layers.suite import LayersQuestion
from suites.schema.refusals import at_least


def suite_request(context: RequestContext) -> SuiteRequest:
    """
    Raises:
        Refused: the backend runs no model, or layers.chunk is too small.
    """
    require_model(context.config)
    chunk, largest = at_least("layers.chunk", context.config.layers.chunk, 1), context.shapes[-1:]
    return SuiteRequest(largest, largest, LayersQuestion(0, chunk), options={"marked": chunk})
