"""Plan of the cells of one or several command lines of `suites.run`: check all of them, and print a table."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from suites.asking.request import resolve
from suites.cli.command_line import LONGEST
from suites.cli.composing import check_architecture, checked_config
from suites.planning.past_runs import PastRuns
from suites.planning.plan_text import plan_text
from suites.planning.planned_cell import REFUSED, PlannedCell, plan_cell
from suites.planning.sweep_plan import SweepPlan, with_changes
from suites.schema.refusals import Refused, shortened
from suites.text import one_line

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass
class PlanInvocation:
    """Plan of cells. It has the interface of `Invocation`, but starts no worker and writes no file.

    Attributes:
        ended: plans of the cells.
        arguments: arguments of each cell.
        refusals: number of cells for each refusal.
        running: whether code of the suite runs. An exception at another time comes from Hydra.
    """

    ended: list[PlannedCell] = field(default_factory=list)
    arguments: list[Sequence[str]] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    running: bool = False
    _past: dict[tuple[Path, str], PastRuns] = field(default_factory=dict)

    def check(self, config: DictConfig) -> None:
        """Plan one cell. Hydra calls this function for each cell of the command line."""
        from hydra.core.hydra_config import HydraConfig

        self.running = True
        choices = HydraConfig.get().runtime.choices
        try:
            run_config = checked_config(config)
            check_architecture(run_config)
            request = resolve(run_config, writes=False)
            key = (request.results, request.machine.slug)
            planned = plan_cell(request, self._past.setdefault(key, PastRuns(*key)))
        except Refused as reason:
            self.refusals[str(reason)] += 1
            names = (str(config.get(name, "")) for name in ("backend", "precision"))
            backend, precision = (name.rpartition(".")[2] for name in names)
            planned = PlannedCell(
                _model_name(config) or str(choices.get("model") or ""), backend, precision, REFUSED, str(reason)
            )
        self.ended.append(planned)
        self.arguments.append(list(HydraConfig.get().overrides.task))
        self.running = False

    def measure(self) -> None:
        """Print the refusals as a run does, and the plan unless all cells are refused."""
        self.show(devices=1)

    def show(self, devices: int) -> None:
        """Print the refusals and the plan.

        Args:
            devices: number of GPUs that share the cells.
        """
        for reason, cells in self.refusals.items():
            count = f"{cells} cells: " if cells > 1 else ""
            print(f"refused: {count}{one_line(shortened(reason, LONGEST))}", file=sys.stderr)
        if any(cell.status != REFUSED for cell in self.ended):
            print(plan_text(self.plan(devices)))

    def plan(self, devices: int) -> SweepPlan:
        """Return the plan of all cells.

        Args:
            devices: number of GPUs that share the cells.
        """
        machines = {machine for _, machine in self._past}
        bad = sum(past.bad_files() for past in self._past.values())
        return SweepPlan(with_changes(self.ended, self.arguments), frozenset(machines), bad, devices)

    def report(self) -> None:
        """Do nothing: a plan measures nothing, so there are no tables."""

    def status(self) -> int:
        """Return 2 if a cell is refused, as a run would, else 0."""
        return 2 if self.refusals else 0


def print_plan(commands: Iterable[tuple[Sequence[str], str]], devices: int) -> int:
    """Print the plan of several command lines of `suites.run`, and return the exit status.

    Args:
        commands: arguments of each command line, and its place for refusals, such as "line 3".
        devices: number of GPUs that share the cells.
    """
    from suites.cli import hydra_errors
    from suites.cli.hydra_cells import PLAN, compose_cells

    invocation = PlanInvocation()
    for arguments, place in commands:
        try:
            compose_cells([PLAN, *arguments], invocation.check)
        except Refused as reason:
            invocation.refusals[f"{place}: {reason}"] += 1
        except hydra_errors.composition_errors() as error:
            invocation.refusals[f"{place}: {hydra_errors.explain(error)}"] += 1
    invocation.show(devices)
    return invocation.status()


def _model_name(config: DictConfig) -> str:
    """Return the name of the model that a command line gives; empty if it only chooses a file of suites/conf/model."""
    model = config.get("model") or {}
    return str(model.get("name") or Path(str(model.get("path") or "")).name)
