"""The latency question: how long does a forward pass take at each shape, with and without a CUDA graph?

Runs in the measuring worker, over any session.
"""

from __future__ import annotations

import resource
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from backends.base import Array, Feeds, Session, Shape, Unavailable, Unsupported
from suites import clock
from suites.checks import first_line
from suites.clock import Effort, Samples
from suites.cpu_load import cpu_load, read_cpu
from suites.record import END_TO_END, ENQUEUE, GPU, LATENCY, SUSTAINED, Measurement

FIRST_USE, AFTER_TIMING = "first use", "after timing"
"""When outputs were held against FP32's: before anything was timed, and once more what the last timed step left."""


def measure(
    session: Session,
    shapes: Sequence[Shape],
    arrays: Mapping[str, Array],
    effort: Effort,
    cuda_graph: bool,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Measurements, checks and facts at every shape; a shape that fails is named in `failures` and the next goes on."""
    measurements: list[Measurement] = []
    checks: list[dict[str, Any]] = []
    facts: dict[str, Any] = {}
    failures: dict[str, str] = {}
    # In the order of their size: the memory of a process only grows, so that a peak is that of its shape.
    for shape in sorted(shapes, key=lambda shape: shape.batch * shape.sequence):
        try:
            feeds, reference, rows = inputs_of(arrays, shape)
            first = clock.time_once(lambda: _first_step(session, feeds))  # noqa: B023  called at once
            facts[str(shape)] = {"first_step_ns": first}
            for graph in (False, True) if cuda_graph else (False,):
                progress(f"{shape} {'CUDA graph' if graph else 'plain'}")
                if graph:
                    try:
                        facts[str(shape)]["capture_ns"] = clock.time_once(session.capture)
                    except Unsupported as reason:
                        facts[str(shape)]["no_cuda_graph"] = str(reason)
                        break
                    session.step()
                    session.wait()
                where = {"batch": shape.batch, "sequence": shape.sequence, "cuda_graph": graph}
                known = reference, rows, feeds["attention_mask"]
                checks.append({**where, "when": FIRST_USE, **compare(session.fetch(), *known)})
                measurements += _phases(session, shape, feeds, effort, graph)
                checks.append({**where, "when": AFTER_TIMING, **compare(session.fetch(), *known)})
            facts[str(shape)]["peak_host_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        except (Unsupported, Unavailable):
            raise
        except Exception as error:
            # One shape that does not fit must not cost the others, and vendors' errors share no type. After it the
            # session may be unusable, which the next shape will then say too.
            traceback.print_exc()
            failures[str(shape)] = first_line(error)
    return {
        "measurements": [m.__dict__ for m in measurements],
        "checks": checks,
        "facts": facts,
        "failures": failures,
    }


def inputs_of(arrays: Mapping[str, Array], shape: Shape) -> tuple[Feeds, Array, Array]:
    """Feeds, FP32 reference [rows, sequence, hidden], and the rows of the batch it belongs to."""
    named = {name.split("/", 1)[1]: arrays[name] for name in arrays if name.startswith(f"{shape}/")}
    return named, named.pop("reference"), named.pop("rows")


def _first_step(session: Session, feeds: Feeds) -> None:
    session.load(feeds)
    session.step()
    session.wait()


def _phases(session: Session, shape: Shape, feeds: Feeds, effort: Effort, graph: bool) -> list[Measurement]:
    steady = clock.warm_up(session, effort)
    taken: dict[str, Samples] = {}
    before = read_cpu()
    if session.stream is not None:
        taken[GPU] = clock.time_device(session, effort)
    enqueue, taken[LATENCY] = clock.time_enqueue(session, effort)
    if session.stream is not None:
        taken[ENQUEUE] = enqueue
        taken[SUSTAINED] = clock.time_sustained(session, effort)
    taken[END_TO_END] = clock.time_end_to_end(session, feeds, effort)
    load = cpu_load(before, read_cpu())
    return [
        Measurement(phase, shape.batch, shape.sequence, graph, samples.values, samples.windows, steady, (), load)
        for phase, samples in taken.items()
    ]


def compare(output: Array, reference: Array, rows: Array, mask: Array) -> Mapping[str, Any]:
    """The output against the FP32 reference, over tokens that are not padding.

    Args:
        output: [batch, sequence, hidden] of any float type.
        reference: [rows, sequence, hidden] FP32.
        rows: the sequences of the batch that `reference` has.
        mask: int32 [batch, sequence].

    Returns:
        nonfinite: NaN and Inf in the whole output. cosine: the smallest, over sequences, of the cosine between
        mean-pooled hidden states. token_cosine: the smallest over single tokens. max_difference: absolute.
    """
    valid = mask.astype(bool)
    nonfinite = int(np.count_nonzero(~np.isfinite(output[valid])))
    found, kept = output[rows].astype(np.float64), valid[rows]
    wanted = reference.astype(np.float64)
    if nonfinite:
        return {"nonfinite": nonfinite, "cosine": None, "token_cosine": None, "max_difference": None}
    pooled = [np.where(kept[..., None], x, 0).sum(1) / kept.sum(1)[:, None] for x in (found, wanted)]
    return {
        "nonfinite": 0,
        "cosine": float(_cosine(*pooled).min()),
        "token_cosine": float(_cosine(found[kept], wanted[kept]).min()),
        "max_difference": float(np.abs(found - wanted)[kept].max()),
    }


def _cosine(a: Array, b: Array) -> Array:
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.asarray((a * b).sum(-1) / np.maximum(norms, 1e-30))
