"""The rounds of a suite with several engines, such as one for each chunk of layers or for each build option."""

from __future__ import annotations

from dataclasses import replace

from backends.base import SourceForm
from suites.asking.request import Request
from suites.records.parts import Check
from suites.records.record import OK
from suites.running.stages import StageResult, Stages, measure, prepare
from suites.suite import Result, load_suite


def measure_rounds(request: Request, stages: Stages, form: SourceForm, first: StageResult) -> StageResult:
    """Measure, and prepare and measure the further rounds of a suite that has several, each with its own engine.

    A suite that compares builds exports once.

    Args:
        first: result of `prepare` for the first round.
    """
    results: list[Result | None] = []
    checks: tuple[Check, ...] = ()
    staged, kept = first, None
    while True:
        if staged.job is not None:
            staged = measure(request, stages, staged)
        failed = request.question.failed(staged.outcome, staged.reason) if staged.outcome != OK else None
        if staged.exported is None or (staged.outcome != OK and failed is None):
            return staged
        results.append(failed or staged.parts.result)
        checks += staged.parts.checks
        if kept is None and request.question.keeps_first:
            kept = staged
        following = request.question.following(staged.exported.points)
        if following is None:
            break
        request = replace(request, question=following)
        exported = kept.exported if kept is not None and following.build_round() is not None else None
        staged = prepare(request, stages, form, exported)
    found = [result for result in results if result is not None]
    staged = kept or staged
    if request.question.joins_checks:
        staged = replace(staged, parts=replace(staged.parts, checks=checks))
    if not found:
        return staged
    suite = load_suite(request.suite)
    return replace(staged, parts=replace(staged.parts, result=suite.judged(suite.joined(found), request.judging)))
