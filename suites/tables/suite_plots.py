"""Plots of a machine. A suite with plots names the function that writes them as PLOTS in its tables.py."""

from __future__ import annotations

import importlib
from pathlib import Path

from suites.records.results_folder import MachineFolder
from suites.suite import has_part, part, suite_names
from suites.tables.write_tables import message


def write_suite_plots(folder: MachineFolder) -> list[Path]:
    """Write the plots of all suites of a machine; return the files.

    A suite whose plots cannot be made is named in `folder.bad`, and the others are still made.
    """
    written: list[Path] = []
    for suite in suite_names():
        place = str(getattr(part(suite, "tables"), "PLOTS", "")) if has_part(suite, "tables") else ""
        if not place:
            continue
        module, _, name = place.partition(":")
        try:
            written += getattr(importlib.import_module(module), name)(folder)
        except Exception as error:
            folder.bad[folder.plots / suite] = f"its plots were not made: {message(error)}"
    return written
