"""Plan of one cell: whether a run would measure it, and at which cost. No worker starts and no file is written."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from backends.base import SourceForm, Unavailable, Unsupported
from backends.description import MAIN
from backends.model.checkpoint_files import read_config
from backends.model.hub import find_local
from backends.model.identity import identity_of
from backends.registry import describe, load_backend
from suites.asking.request import Request
from suites.planning.estimate import Estimate, estimate, is_same_cell
from suites.planning.past_runs import PastRuns
from suites.records.record import OK, UNAVAILABLE, UNSUPPORTED, Record
from suites.running.check_model import check_model
from suites.running.engine_notes import engine_key, is_noted
from suites.running.job import Probed, ProbeJob
from suites.running.locating import with_checkpoint
from suites.running.pipeline import process_count
from suites.running.reuse import reusable
from suites.running.stages import export_job
from suites.worker import probe

RUN, RECORDED, REFUSED = "run", "recorded", "refused"
REUSED_S = 1.0
"""Seconds of a cell whose record is reused: only its probe runs."""


@dataclass(frozen=True)
class PlannedCell:
    """A cell of a plan.

    Attributes:
        model, backend, precision: as on the command line.
        status: RUN, RECORDED, REFUSED, or an outcome of the backend's check: "unsupported" or "unavailable".
        reason: one line for a cell that does not run.
        changes: arguments in which it differs from the other cells of the plan.
        engine: key of the engine that it builds or uses; "" if its backend builds none.
        engine_built: whether the cache has this engine.
        processes: number of measuring processes that it still needs.
        until: its last stage.
        cost: None if nothing is known.
        fetches: whether its checkpoint is not on this machine yet.
    """

    model: str
    backend: str
    precision: str
    status: str
    reason: str = ""
    changes: Sequence[str] = ()
    engine: str = ""
    engine_built: bool = False
    processes: int = 0
    until: str = "measure"
    cost: Estimate | None = None
    fetches: bool = False

    @property
    def runs(self) -> bool:
        return self.status == RUN

    def seconds(self, built: bool) -> float | None:
        """Return the expected seconds; None if nothing is known.

        Args:
            built: whether the engine exists when the cell starts.
        """
        if not self.runs:
            return REUSED_S
        if self.cost is None:
            return None
        return self.cost.first_s(self.until, built) + max(0, self.processes - 1) * self.cost.process_s


def plan_cell(request: Request, past: PastRuns) -> PlannedCell:
    """Return the plan of a request.

    Raises:
        Refused: the folder of this machine's records cannot be read.
    """
    request = located(request)
    release, checked = check_here(request)
    key = engine_key(request)
    planned = PlannedCell(
        model=request.cell["model"],
        backend=request.backend,
        precision=request.cell["precision"],
        status=RUN,
        engine=key,
        engine_built=bool(key) and is_noted(request.cache, key),
        processes=request.repeats if request.until == "measure" else 0,
        until=request.until,
        fetches=request.model is not None and request.model.weights != "random" and not request.model.path,
    )
    if checked is not None and checked.outcome != OK:
        return replace(planned, status=checked.outcome, reason=checked.reason)
    if refusal := model_refusal(request, checked):
        return replace(planned, status=refusal[0], reason=refusal[1])
    if request.until == "measure" and (earlier := earlier_record(request, past, release)) is not None:
        if earlier.outcome == UNSUPPORTED:
            return replace(planned, status=UNSUPPORTED, reason=earlier.reason)
        processes = max(0, request.repeats - process_count(earlier))
        if not processes:
            return replace(planned, status=RECORDED, processes=0)
        planned = replace(planned, processes=processes)
    return replace(planned, cost=estimate(request, past))


def model_refusal(request: Request, checked: Probed | None) -> tuple[str, str] | None:
    """Return the outcome and the reason with which the export stage would refuse the model; None if it would not.

    A checkpoint that is not on this machine yet is not checked.

    Args:
        checked: answer of the backend; None if it cannot be asked here.
    """
    model = request.model
    if model is None or not (model.path or model.weights == "random"):
        return None
    form = checked.form if checked is not None and checked.form is not None else SourceForm()
    try:
        folder = Path(model.path) if model.path else None
        config = model.architecture if folder is None else read_config(folder)
        check_model(export_job(request, form), config, folder)
    except Unsupported as reason:
        return UNSUPPORTED, str(reason)
    except Unavailable as reason:
        return UNAVAILABLE, str(reason)
    return None


def located(request: Request) -> Request:
    """Return the request with the identity of its checkpoint, if the checkpoint is on this machine."""
    model = request.model
    if model is None or model.weights == "random" or model.path:
        return request
    folder = find_local(model)
    if folder is None:
        return request
    try:
        identity = identity_of(folder, request.cache, writes=False)
    except (OSError, Unavailable):
        return request
    return with_checkpoint(request, replace(model, path=str(folder), identity=identity))


def earlier_record(request: Request, past: PastRuns, release: str | None) -> Record | None:
    """Return the record that a run would reuse or extend; None if it would measure all processes."""
    if request.rerun:
        return None
    records = [record for record in past.own(request.suite) if is_same_cell(request.cell, record, release)]
    return next((record for record in records if reusable(record, request)), None)


def check_here(request: Request) -> tuple[str | None, Probed | None]:
    """Return the release of the backend and its answer whether it can run the request.

    A backend of another interpreter gives no answer, because its libraries can be checked only there. Its release is
    read from the packages of that interpreter's virtual environment; it is None if there is no such environment.
    """
    backend = describe(request.backend)
    if Path(request.interpreter) == Path(sys.executable) and backend.interpreter.key == MAIN.key:
        probed = probe(ProbeJob(request.backend, request.spec, request.lengths.passes))
        return probed.release, probed
    folders = [sys.prefix] if Path(request.interpreter) == Path(sys.executable) else _environment(request.interpreter)
    return _release(load_backend(request.backend).distributions, folders), None


def _environment(interpreter: str) -> list[str]:
    """Return the folder of the virtual environment of an interpreter; [] if it has none."""
    folder = Path(interpreter).parent.parent
    return [str(folder)] if (folder / "pyvenv.cfg").is_file() else []


def _release(names: Sequence[str], prefixes: Sequence[str]) -> str | None:
    """Return the first of the packages that is installed below a prefix, with its version; None if it is unknown."""
    folders = [str(path) for prefix in prefixes for path in Path(prefix).glob("lib/python3*/site-packages")]
    for name in names:
        for distribution in importlib.metadata.distributions(name=name, path=folders):
            return f"{name} {distribution.version}"
    return None
