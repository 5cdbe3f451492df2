"""The request of suite=launch: all shapes of the command line."""

from __future__ import annotations

from suites.asking.suite_request import RequestContext, SuiteRequest
from suites.schema.refusals import Refused


def suite_request(context: RequestContext) -> SuiteRequest:
    """
    Raises:
        Refused: sequences are not full; the same step would then have several numbers of tokens.
    """
    if context.lengths.distribution != "full":
        name = context.config.lengths.name
        raise Refused(f"suite=launch compares batches of full sequences; leave lengths={name} out")
    return SuiteRequest(context.shapes, context.shapes)
