"""Advice for a load as text of 80 columns."""

from __future__ import annotations

import math
import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from suites.records.record import Record
from suites.serving.capacity_plan import Configuration, Demand
from suites.serving.other_processes import disturbed_loads
from suites.serving.result import ServingResult
from suites.serving.strategy_text import batching
from suites.tables.end_table import WIDTH
from suites.tables.markdown import digits, machine_title
from suites.text import one_line

TRAINED, NO_MODEL = "trained", "none"
"""Weights of a model that can be deployed, and the name of the model of a backend without one."""


@dataclass(frozen=True)
class Prices:
    """Price of an hour of a device: the one whose name is part of the machine's name, or the general one.

    Attributes:
        general: None if it was not given.
        by_machine: by part of the name of a machine, in lower case.
    """

    general: float | None
    by_machine: tuple[tuple[str, float], ...] = ()

    def of(self, machine: str) -> float | None:
        return next((price for name, price in self.by_machine if name in machine.lower()), self.general)


@dataclass(frozen=True)
class Advice:
    """The configurations for a demand and their costs.

    Attributes:
        results: folder of the records, for the command that deploys one of them; empty for the default one.
    """

    demand: Demand
    configurations: Sequence[Configuration]
    prices: Prices
    results: str = ""

    def cost(self, found: Configuration) -> float | None:
        """Return the cost of a million requests; None without a price."""
        price = self.prices.of(machine_title(found.record))
        return None if price is None else price * found.device_hours(self.demand)

    def cheapest(self) -> list[Configuration]:
        """Return the configurations by cost; those without a price last, by their number of devices."""

        def key(found: Configuration) -> tuple[float, int, float]:
            cost = self.cost(found)
            return math.inf if cost is None else cost, found.replicas, -found.margin(self.demand)

        return sorted(self.configurations, key=key)

    def text(self) -> str:
        """Return the cheapest configuration with the command that deploys it, and the others below."""
        demand, ordered = self.demand, self.cheapest()
        best, within = ordered[0], f"{demand.percentile:g}% of latencies within {demand.bound_ms:g} ms"
        lines = [f"{digits(demand.load)} requests/s with {within}:", *self._block(best, "1. ")]
        lines += ["", *self._deployment(best.record)]
        for number, found in enumerate(ordered[1:], 2):
            lines += ["", *self._block(found, f"{number}. ")]
        if any(found.simulated for found in ordered):
            lines += ["", *textwrap.wrap(SIMULATION, WIDTH)]
        if any(not found.simulated and found.replicas > 1 for found in ordered):
            lines += ["", *textwrap.wrap(SHARED, WIDTH)]
        return "\n".join(lines)

    def _deployment(self, record: Record) -> list[str]:
        """Return the command that deploys the model, or the reason why there is none."""
        cell = record.cell
        if cell.model == NO_MODEL:
            return ["It has no model to deploy."]
        folder = f" --records {shlex.quote(self.results)}" if self.results else ""
        if cell.weights == TRAINED:
            return ["Deploy it:", f"  python -m suites.deploy {cell.id} REPOSITORY{folder}"]
        return textwrap.wrap(
            one_line(
                f"It cannot be deployed: the model has {cell.weights} weights. Measure a trained model with backend="
                f"{cell.backend} precision={cell.precision} and deploy that record. suites.deploy uses the rules of "
                "the best record with random weights too, if model and machine have the same names."
            ),
            WIDTH,
        )

    def _block(self, found: Configuration, number: str) -> list[str]:
        cell = found.record.cell
        cost, hours = self.cost(found), found.device_hours(self.demand)
        devices = f"{found.replicas} device{'' if found.replicas == 1 else 's'}"
        how = "simulated" if found.simulated else "measured" if found.replicas == 1 else "measured on one device"
        percentile = f"p{self.demand.percentile:g}"
        latency = "" if math.isnan(found.latency_ms) else f", {percentile} {digits(found.latency_ms)} ms at this load"
        title = f"{cell.model}, {cell.backend} {cell.precision}: {batching(found.record)}"
        return [
            *textwrap.wrap(one_line(f"{number}{title}"), WIDTH, subsequent_indent="   "),
            f"   {one_line(machine_title(found.record))}",
            f"   {devices} ({how}), margin {found.margin(self.demand):.0%}{latency}",
            f"   one device carries {digits(found.highest)} requests/s within the bound",
            f"   {digits(hours)} device hours for a million requests"
            + (f", which cost {digits(cost)}" if cost is not None else ""),
            f"   record {cell.id}",
            *_warning(found.record),
        ]


def _warning(record: Record) -> list[str]:
    """Return the disturbance of a record in lines; none if there was none."""
    result = record.result
    found = disturbed_loads(result) if isinstance(result, ServingResult) else ""
    text = f"other processes took {found}" if found else ""
    return textwrap.wrap(text, WIDTH, initial_indent="   ", subsequent_indent="   ")


SIMULATION = (
    "Simulated: several devices were not measured. In simulated time, all devices take batches from one queue, and "
    "each batch takes a random one of the measured times of its size. Network, load balancer and other loads of the "
    "host are not part of it."
)

SHARED = (
    "Measured on one device: each device gets an equal share of the load, at random, as one device did in the "
    "measurement."
)
