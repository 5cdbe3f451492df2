"""All data of the page: one JSON object from the records of all machines of a results folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from suites.html_report.latency_points import BASELINE, latency_data
from suites.html_report.other_data import kernels_data, layers_data, serving_data, switching_data
from suites.html_report.record_facts import Json, record_entry
from suites.latency.ranking import RANK_NAMES
from suites.records.record import OK, Record
from suites.records.results_folder import MachineFolder
from suites.schema.enums import Rank
from suites.statistics.validity import judged
from suites.switching.plot_files import usable_records
from suites.tables.series_styles import COLORS, COLORS_ON_DARK, MOST_SERIES
from suites.tables.write_tables import rejected_cells
from suites.text import one_line

SUITES = ("latency", "accuracy", "layers", "switching", "serving")
"""Suites whose records without a result are listed."""

Build = Callable[[Sequence[Record]], Sequence[Json]]


UNITS = {Rank.gpu: "ms per forward pass", Rank.request: "ms per request"}


def page_data(folders: Sequence[MachineFolder], rank: Rank = Rank.gpu) -> Json:
    """Return the data of the page.

    As in the tables, cells that a search tried and rejected are left out. A record that gives no figures because its
    content is wrong is added to the list of bad files of its folder.
    """
    page = _Page(rank)
    for folder in folders:
        page.add(folder)
    return {
        "styles": {"light": COLORS, "dark": COLORS_ON_DARK, "most": MOST_SERIES},
        "baseline": str(BASELINE),
        "rank": RANK_NAMES[rank],
        "unit": UNITS[rank],
        "count": sum(len(folder.records(suite)) for folder in folders for suite in SUITES),
        "records": page.entries,
        **page.parts,
    }


class _Page:
    """Parts of the page that grow machine by machine. Entries are the records that figures link to."""

    def __init__(self, rank: Rank) -> None:
        self._rank = rank
        self.entries: list[Json] = []
        self.parts: dict[str, list[Json]] = {
            name: [] for name in ("workloads", "switching", "serving", "layers", "kernels", "without_result")
        }
        self._numbers: dict[str, int] = {}

    def number(self, record: Record) -> int:
        """Return the number of a record in `entries`; add it if it is new."""
        key = f"{record.environment.machine}/{record.cell.suite}/{record.cell.id}"
        if key not in self._numbers:
            self._numbers[key] = len(self.entries)
            self.entries.append(record_entry(record))
        return self._numbers[key]

    def add(self, folder: MachineFolder) -> None:
        """Add the figures of one machine."""
        rejected = rejected_cells(folder)
        scores = judged(folder.records("accuracy"))
        usable_records(folder)

        def switching(records: Sequence[Record]) -> Sequence[Json]:
            return switching_data(records, scores, self.number)

        def latency(records: Sequence[Record]) -> Sequence[Json]:
            kept = [record for record in records if record.cell.id not in rejected]
            return latency_data(kept, scores, self.number, self._rank, folder.records("ceilings"))

        self.parts["workloads"] += _built(folder, "latency", latency)
        self.parts["switching"] += _built(
            folder, "switching", lambda records: switching_data(records, scores, self.number)
        )
        self.parts["serving"] += _built(folder, "serving", lambda records: serving_data(records, self.number))
        self.parts["layers"] += _built(folder, "layers", lambda records: layers_data(records, self.number))
        self.parts["kernels"] += kernels_data(folder, self.number)
        for suite in SUITES:
            failed = [record for record in folder.records(suite) if record.outcome != OK]
            self.parts["without_result"] += [{"record": self.number(record)} for record in failed]


def _built(folder: MachineFolder, suite: str, build: Build) -> Sequence[Json]:
    """Return the data of a suite. If they cannot be made, records that give no data alone are left out."""
    try:
        return build(folder.records(suite))
    except Exception:
        for record in folder.records(suite):
            try:
                build([record])
            except Exception as error:
                reason = one_line(f"{type(error).__name__}: {error}", 200)
                folder.leave_out(record, f"no figures can be read from it: {reason}")
        return build(folder.records(suite))
