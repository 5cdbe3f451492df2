"""What a request costs against how often its shape changes, strategy by strategy: one SVG file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from suites.switching.costs import Costs
from suites.switching.strategy_names import Names

HALF = 0.5
"""The share of changes by which strategies are ordered, and plain steps or CUDA graphs chosen."""


def plot(costs: Sequence[Costs], path: Path, title: str = "") -> None:
    """Lines are what the costs of single changes add up to; points are traces that were replayed. Of each strategy that
    way is drawn, by plain steps or by CUDA graphs, which costs less; those whose outputs are wrong are left out.

    Args:
        path: of the file to write; its folder is made.
    """
    import matplotlib

    matplotlib.use("Agg")
    # Without these the same figure is another file each time.
    matplotlib.rcParams["svg.hashsalt"] = "suites"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 8), layout="constrained")
    switch, colors = np.linspace(0, 1, 101), matplotlib.color_sequences["tab20"]
    names = Names([one.record for one in costs])
    for number, one in enumerate(_drawn(costs)):
        label, color = names.of(one.record, one.cuda_graph), colors[number % len(colors)]
        axes.plot(switch, [float(one.means.at(x)) / 1e6 for x in switch], label=label, color=color)
        replayed = [mean / 1e6 for mean in one.replays.values()]
        axes.plot(list(one.replays), replayed, "o", color=color, markersize=4)
    axes.set_title(title)
    axes.set_xlabel("share of requests that have another shape than the one before")
    axes.set_ylabel("ms a request")
    axes.set_yscale("log")
    axes.grid(which="both", alpha=0.2)
    figure.legend(loc="outside lower center", fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def _drawn(costs: Sequence[Costs]) -> list[Costs]:
    """Of each record the cheaper way, the cheapest first."""
    best: dict[str, Costs] = {}
    for one in sorted((one for one in costs if one.counts), key=lambda one: float(one.means.at(HALF))):
        best.setdefault(one.record.cell.id, one)
    return list(best.values())
