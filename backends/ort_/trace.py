"""Times of operators from a trace of ONNX Runtime's profiler on a CPU."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from backends.json_codec import from_json
from backends.kernel_times import KernelTime, ProfiledStep, joined_kernels

NODE_SUFFIX = "_kernel_time"
"""End of the name of the event in which an operator computes."""


def read_trace(path: Path) -> list[ProfiledStep]:
    """Return a step for each run of the session, in order.

    The trace is a list of events with times in µs: one named model_run for each run, and within it one for each node
    of the optimized graph. Nodes run one after another. The rest of a run is idle: the work of the session between
    nodes.
    """
    events = from_json(list[Mapping[str, object]], json.loads(path.read_text(encoding="utf-8")), "trace")
    nodes = [event for event in events if event["cat"] == "Node" and str(event["name"]).endswith(NODE_SUFFIX)]
    runs = [event for event in events if event["name"] == "model_run"]
    return [_step(run, nodes) for run in sorted(runs, key=_start)]


def _step(run: Mapping[str, object], nodes: Sequence[Mapping[str, object]]) -> ProfiledStep:
    start, end = _start(run), _start(run) + _duration(run)
    inside = [node for node in nodes if start <= _start(node) < end]
    kernels = joined_kernels(
        KernelTime(str(node["name"]).removesuffix(NODE_SUFFIX), 1000 * _duration(node), _operator(node))
        for node in inside
    )
    return ProfiledStep(kernels, max(0, 1000 * _duration(run) - sum(kernel.nanoseconds for kernel in kernels)))


def _start(event: Mapping[str, object]) -> int:
    return from_json(int, event["ts"], "ts")


def _duration(event: Mapping[str, object]) -> int:
    return from_json(int, event["dur"], "dur")


def _operator(event: Mapping[str, object]) -> str:
    return str(from_json(Mapping[str, object], event["args"], "args").get("op_name", ""))
