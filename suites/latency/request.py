"""The request of suite=latency: the shapes as they are."""

from __future__ import annotations

from suites.asking.suite_request import RequestContext, SuiteRequest


def suite_request(context: RequestContext) -> SuiteRequest:
    return SuiteRequest(context.shapes, context.shapes)
