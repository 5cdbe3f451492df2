"""Measurement for suite=kernels: one step under a profiler, then steps without it.

Runs in the measuring worker, over any session.
"""

from __future__ import annotations

from typing import cast

from backends.base import Session
from backends.kernel_times import ProfiledStep, StepProfile
from suites.kernels.profiler_tools import TOOLS
from suites.kernels.result import KernelsResult
from suites.kernels.suite import LIBRARY, REGION, KernelsQuestion
from suites.latency.measure import inputs_of
from suites.measuring import clock
from suites.measuring.measure_run import MeasureRun
from suites.measuring.output_difference import compare_with_reference
from suites.records.facts import Facts
from suites.records.parts import Check
from suites.running.job import Measured
from suites.suite import Question

STEPS = 20
"""Steps under the profiler of a library. The record has the median time of each kernel."""


def measure(run: MeasureRun, question: Question) -> Measured:
    """Profile one step. With profile=ncu or nsys, a child process under that tool runs it, between cudaProfilerStart
    and cudaProfilerStop; it opens a session of its own before this process does.

    Args:
        run: its arrays are inputs and references, as for suite=latency.

    Raises:
        Unsupported: the library has no profiler of kernels, or the tool needs a GPU.
        Unavailable: the tool is not installed or cannot read the counters of the GPU.
    """
    profiler, steps = cast(KernelsQuestion, question).profiler, dict[str, int]()
    shape = run.shapes[-1]
    feeds, reference, rows = inputs_of(run.arrays, shape)
    profile: StepProfile | None = None
    if profiler in TOOLS:
        run.progress(f"{profiler} runs one step")
        profile = TOOLS[profiler].profile(lambda prefix: run.again(KernelsQuestion(REGION), prefix))
    with run.session(steps) as session:
        run.progress(str(shape))
        session.load(feeds)
        session.step()
        session.wait()
        difference = compare_with_reference(session.fetch(), reference, rows, feeds["attention_mask"])
        steady = clock.warm_up(session, run.effort)
        if profiler == REGION:
            _region(session)
            return Measured(result=KernelsResult(profiler, ProfiledStep(()), (), steady))
        if profiler == LIBRARY:
            run.progress("profiling")
            profile = session.profile(STEPS)
        run.progress("steps without profiler")
        samples = _times(session, run.effort)
    assert profile is not None
    check = Check.of(difference, (shape.batch, shape.sequence), False)
    return Measured(
        checks=(check,),
        facts=Facts().opened(steps),
        result=KernelsResult(profile.profiler, profile.step, samples, steady),
    )


def _region(session: Session) -> None:
    """Run the one step that a tool observes. The steps before it have loaded all kernels."""
    from backends.cuda import profiler_range

    with profiler_range():
        session.step()
        session.wait()


def _times(session: Session, effort: clock.Effort) -> tuple[int, ...]:
    """Return times of a plain step in ns."""
    if session.stream is None:
        return clock.time_enqueue(session, effort)[1].values
    return clock.time_device(session, effort).values
