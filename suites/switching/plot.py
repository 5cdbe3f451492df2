"""Plot of the time of a request by the share of shape changes, one line for each strategy, as an SVG file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from suites.switching.costs import Costs
from suites.switching.strategy_names import StrategyNames

HALF = 0.5
"""Share of shape changes at which strategies are ordered, and plain steps or CUDA graphs selected."""


def plot(costs: Sequence[Costs], path: Path, title: str = "") -> None:
    """Write the plot of some strategies.

    Lines are sums of the costs of single changes. Points are replayed traces. Of plain steps and CUDA graphs, only the
    cheaper variant of a strategy is drawn. Strategies with wrong outputs are left out.

    Args:
        path: the file; its folder is created.
    """
    import matplotlib

    matplotlib.use("Agg")
    # Without the salt, the same figure gives different bytes each time.
    matplotlib.rcParams["svg.hashsalt"] = "suites"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 8), layout="constrained")
    switch, colors = np.linspace(0, 1, 101), matplotlib.color_sequences["tab20"]
    names = StrategyNames([strategy.record for strategy in costs])
    for number, strategy in enumerate(_drawn(costs)):
        label, color = names.of(strategy.record, strategy.cuda_graph), colors[number % len(colors)]
        axes.plot(switch, [float(strategy.means.at(x)) / 1e6 for x in switch], label=label, color=color)
        replayed = [mean / 1e6 for mean in strategy.replays.values()]
        axes.plot(list(strategy.replays), replayed, "o", color=color, markersize=4)
    axes.set_title(title)
    axes.set_xlabel("share of requests that change the shape")
    axes.set_ylabel("ms per request")
    axes.set_yscale("log")
    axes.grid(which="both", alpha=0.2)
    figure.legend(loc="outside lower center", fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def _drawn(costs: Sequence[Costs]) -> list[Costs]:
    """Return the cheaper variant of each record, the cheapest first."""
    best: dict[str, Costs] = {}
    valid = (strategy for strategy in costs if strategy.is_valid)
    for strategy in sorted(valid, key=lambda strategy: float(strategy.means.at(HALF))):
        best.setdefault(strategy.record.cell.id, strategy)
    return list(best.values())
