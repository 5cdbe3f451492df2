"""Figures of the other suites for the page: costs of switching, loads, errors of layers, and times of kernels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from suites.html_report.latency_points import Number
from suites.html_report.record_facts import Json, layer_errors, rounded
from suites.kernels.classes import times_by_class
from suites.layers.kernel_tables import read_kernels
from suites.records.record import OK, Record
from suites.records.results_folder import MachineFolder
from suites.serving.load_curves import curves_by_workload
from suites.statistics.validity import Judged
from suites.switching.costs import Costs
from suites.switching.plot import chosen, is_steep, labels_of
from suites.switching.plot_files import drawn_costs
from suites.switching.tables import workload
from suites.tables.distinctions import distinctions
from suites.tables.markdown import configuration, joined, machine_title
from suites.tables.models import model_names


def switching_data(records: Sequence[Record], scores: Judged, number: Number) -> Sequence[Json]:
    """Return an object for each workload with strategies that have correct outputs."""
    names, groups = model_names(records), []
    for _, members in groupby(sorted(records, key=workload), key=workload):
        group = list(members)
        if not (costs := drawn_costs(group, scores)):
            continue
        costs.sort(key=lambda strategy: float(strategy.means.at(0.5)))
        first = [id(s) for p in sorted({c.record.cell.precision for c in costs}) for s in chosen(_of(costs, p))]
        strategies = [
            _strategy(strategy, label, number(strategy.record), id(strategy) in first)
            for strategy, label in zip(costs, labels_of(costs), strict=True)
        ]
        name = ", ".join([names(group[0]), *workload(group[0])[1:-1]])
        groups.append({"machine": machine_title(group[0]), "name": name, "strategies": strategies})
    return groups


def _of(costs: Sequence[Costs], precision: str) -> list[Costs]:
    return [strategy for strategy in costs if strategy.record.cell.precision == precision]


def _strategy(costs: Costs, label: str, record: int, first: bool) -> Json:
    """Return the costs of a strategy: ms without and with changes, replays in ms, and extra costs in µs by pair."""
    shapes = costs.shapes
    extra = [[costs.visits[before, after].extra if (before, after) in costs.visits else None for after in shapes]
             for before in shapes]  # fmt: skip
    return {
        "record": record,
        "label": label,
        "graph": costs.cuda_graph,
        "first": first,
        "steep": is_steep(costs),
        "ends": [rounded(float(costs.means.at(share)) / 1e6) for share in (0, 1)],
        "replays": [[share, rounded(mean / 1e6)] for share, mean in sorted(costs.replays.items())],
        "shapes": [f"{batch}x{sequence}" for batch, sequence in shapes],
        "extra_us": [[None if cost is None else rounded(np.median(cost) / 1e3) for cost in line] for line in extra],
    }


def serving_data(records: Sequence[Record], number: Number) -> Sequence[Json]:
    """Return an object for each workload under load: load, p50 and p99 in ms, and batch size of each strategy."""
    groups = []
    for curves in curves_by_workload(records):
        strategies = [
            {
                "record": number(curve.record),
                "label": curve.label,
                "points": [[rounded(v) for v in (p.load, p.p50_ms, p.p99_ms, p.batch)] for p in curve.points],
            }
            for curve in curves
        ]
        record = curves[0].record
        name = f"{record.cell.model}, {record.cell.weights} weights, {len(strategies)} strategies"
        groups.append({"machine": machine_title(record), "name": name, "strategies": strategies})
    return groups


def layers_data(records: Sequence[Record], number: Number) -> Sequence[Json]:
    """Return an object for each record of suite=layers with a result."""
    measured, common = [record for record in records if record.outcome == OK], distinctions(records)
    items = []
    for record in measured:
        errors = layer_errors(record)
        cell = record.cell
        shape = "x".join(str(size) for size in cell.shapes[-1])
        name = joined(
            f"{cell.model} {cell.backend} {cell.precision}, {shape}", configuration(record, common.of(record))
        )
        items.append({
            "record": number(record),
            "name": name,
            "threshold": errors.threshold,
            "first": errors.first,
            "points": [[point.name, point.relative] for point in errors.points],
        })  # fmt: skip
    return items


def kernels_data(folder: MachineFolder, number: Number) -> Sequence[Json]:
    """Return an object for each kernel profile of a machine: milliseconds and number of kernels by class.

    A profile that cannot be read, or whose record is missing, is added to the list of bad files.
    """
    items = []
    for path in sorted(folder.kernels.glob("*.csv")):
        stem, _, shape = path.stem.rpartition("-")
        record = folder.record("latency", stem)
        if record is None:
            folder.bad[path] = f"the latency record {stem} is missing"
            continue
        try:
            times = times_by_class(read_kernels(path))
        except ValueError as error:
            folder.bad[path] = str(error)
            continue
        groups = {name: [rounded(ns / 1e6), count] for name, (ns, count) in times.items()}
        items.append({"record": number(record), "shape": shape, "groups": groups})
    return items
