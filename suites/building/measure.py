"""Measurement for suite=building: time and output of one engine, at its largest shape.

Runs in the measuring worker, over any session.
"""

from __future__ import annotations

import hashlib
from typing import cast

import numpy as np

from suites.building.result import Build, BuildingResult, Engine
from suites.building.suite import BuildingQuestion
from suites.latency.measure import inputs_of
from suites.measuring import clock
from suites.measuring.measure_run import MeasureRun
from suites.measuring.output_difference import compare_with_reference
from suites.records.facts import Facts
from suites.records.parts import Check
from suites.running.job import Measured
from suites.suite import Question


def measure(run: MeasureRun, question: Question) -> Measured:
    """Measure the engine of this round. The result has one build.

    Args:
        run: its arrays are inputs and references, as for suite=latency.
    """
    asked = cast(BuildingQuestion, question)
    variant, steps = asked.variant, dict[str, int]()
    shape = variant.shapes[-1]
    feeds, reference, rows = inputs_of(run.arrays, shape)
    with run.session(steps) as session:
        run.progress(str(shape))
        session.load(feeds)
        session.step()
        session.wait()
        output = np.ascontiguousarray(session.fetch())
        valid = output[feeds["attention_mask"].astype(bool)] if output.ndim > 2 else output
        digest = hashlib.sha256(valid.tobytes()).hexdigest()
        difference = compare_with_reference(output, reference, rows, feeds["attention_mask"])
        graph = run.cuda_graph and clock.captured(session)
        samples, steady = clock.time_steps(session, run.effort)
    artifact = run.artifact
    assert artifact is not None
    tactics = run.tactics()
    profiles = artifact.notes.get("profiles")
    engine = Engine(
        seconds=artifact.seconds,
        engine_bytes=artifact.path.stat().st_size,
        plan=artifact.sha256,
        profiles=len(profiles) if isinstance(profiles, list) else len(variant.shapes),
        samples=samples,
        steady=steady,
        output=digest,
        cosine=difference.cosine,
        tactics=tactics,
        layers=len(tactics),
    )
    check = Check.of(difference, (shape.batch, shape.sequence), graph, f"build {asked.number + 1}")
    result = BuildingResult((Build(variant.kind, variant.setting, engine),))
    return Measured(checks=(check,), facts=Facts().opened(steps), result=result)
