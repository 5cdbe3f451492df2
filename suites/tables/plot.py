"""What a request costs against how often its shape changes, for every strategy: one SVG file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from suites.record import REPLAY
from suites.switching_model import Costs, strategy


def plot(costs: Sequence[Costs], path: Path) -> None:
    """Lines are what the costs of single changes add up to; points are traces that were replayed.

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
    for one in sorted(costs, key=lambda c: strategy(c.record, c.cuda_graph)):
        (line,) = axes.plot(switch, [one.at(x) / 1e6 for x in switch], label=strategy(one.record, one.cuda_graph))
        replayed = [
            (float(m.phase.removeprefix(f"{REPLAY} switch=")), float(np.mean(m.samples)) / 1e6)
            for m in one.record.measurements
            if m.phase.startswith(f"{REPLAY} switch=") and m.cuda_graph == one.cuda_graph
        ]
        axes.plot(*zip(*replayed, strict=True), "o", color=line.get_color(), markersize=4) if replayed else None
    axes.set_xlabel("share of requests that have another shape than the one before")
    axes.set_ylabel("ms a request")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)
