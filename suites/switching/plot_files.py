"""The files of the plots of switching records: one for each workload and precision."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from suites.records.record import Record
from suites.records.results_folder import MachineFolder
from suites.statistics.validity import Judged, judged
from suites.switching.costs import Costs
from suites.switching.plot import plot
from suites.switching.tables import costs_of, workload
from suites.text import one_line

NO_SCORES: Judged = {}


def usable_records(folder: MachineFolder) -> list[Record]:
    """Return the records of suite=switching whose costs can be read. The others are added to the list of bad files."""
    for record in folder.records("switching"):
        try:
            workload(record)
            for costs in costs_of(record, NO_SCORES):
                assert costs.means.served, costs.output_faults
        except Exception as error:
            folder.leave_out(record, one_line(f"its costs cannot be read: {type(error).__name__}: {error}", 200))
    return folder.records("switching")


def write_machine_plots(folder: MachineFolder) -> list[Path]:
    """Write the plots of all workloads of a machine; return the files.

    The workload of a model with the most records has the name that `write_plots` gives it. The names of its others end
    in a digest.
    """
    scores, written = judged(folder.records("accuracy")), []
    records = sorted(usable_records(folder), key=workload)
    groups = sorted(([*members] for _, members in groupby(records, key=workload)), key=len, reverse=True)
    models: set[str] = set()
    for group in groups:
        model = group[0].cell.model
        digest = hashlib.sha256(repr(workload(group[0])).encode()).hexdigest()[:8]
        written += write_plots(group, folder.plots, scores, f"-{digest}" if model in models else "")
        models.add(model)
    return sorted(written)


def write_plots(records: Sequence[Record], folder: Path, scores: Judged = NO_SCORES, suffix: str = "") -> list[Path]:
    """Write a plot for each precision that has strategies with correct outputs; return the files.

    Args:
        records: records of one machine and workload.
        folder: the folder of the files.
        suffix: end of the names of the files.
    """
    paths = []
    for precision in sorted({record.cell.precision for record in records}):
        group = [record for record in records if record.cell.precision == precision]
        costs = drawn_costs(group, scores)
        if not costs:
            continue
        names = [group[0].cell.model, precision]
        name = re.sub(r"[^a-z0-9_.-]+", "-", "-".join(names).lower())
        paths.append(folder / f"switching-{name}{suffix}.svg")
        plot(costs, paths[-1], ", ".join([group[0].environment.machine, *names]))
    return paths


def drawn_costs(records: Sequence[Record], scores: Judged) -> list[Costs]:
    """Return the costs of strategies with correct outputs that were measured more than once."""
    return [c for record in records for c in costs_of(record, scores) if c.is_valid and not c.measured_once]
