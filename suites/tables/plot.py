"""What a request costs against how often its shape changes, for the best strategies: one SVG file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from suites.record import REPLAY
from suites.switching_model import Costs
from suites.switching_names import Names

BEST = 6
"""Strategies that are drawn: those that cost least on average over all shares of changes."""


def plot(costs: Sequence[Costs], path: Path, title: str = "") -> None:
    """Lines are what the costs of single changes add up to; points are traces that were replayed. Strategies whose
    outputs are wrong are left out.

    Args:
        path: of the file to write; its folder is made.
    """
    import matplotlib

    matplotlib.use("Agg")
    # Without these the same figure is another file each time.
    matplotlib.rcParams["svg.hashsalt"] = "suites"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    switch = np.linspace(0, 1, 21)
    names = Names([one.record for one in costs])
    best = sorted((one for one in costs if one.counts), key=lambda one: float(one.means.at(0.5)))[:BEST]
    for one in best:
        label = names.of(one.record, one.cuda_graph)
        (line,) = axes.plot(switch, [float(one.means.at(x)) / 1e6 for x in switch], label=label)
        replayed = [
            (float(m.phase.removeprefix(f"{REPLAY} switch=")), float(np.mean(m.samples)) / 1e6)
            for m in one.record.measurements
            if m.phase.startswith(f"{REPLAY} switch=") and m.cuda_graph == one.cuda_graph
        ]
        axes.plot(*zip(*replayed, strict=True), "o", color=line.get_color(), markersize=4) if replayed else None
    axes.set_title(title)
    axes.set_xlabel("share of requests that have another shape than the one before")
    axes.set_ylabel("ms a request")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small") if best else None
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)
