"""Find the checkpoint of a hub id before its cell gets an id, because the id depends on the checkpoint's files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from backends.base import Unavailable
from backends.json_codec import to_json
from backends.model.checkpoint_files import read_config
from backends.model.families import positions_of
from backends.model.identity import identity_of
from backends.model.reference import ModelReference
from backends.model_output import resolve_output
from suites.asking.model_request import beyond
from suites.asking.request import Request
from suites.records.cell import CellFields
from suites.running.job import Located, LocateJob
from suites.running.launch import Answer
from suites.schema.refusals import Refused

Run = Callable[[LocateJob, str], Answer[Located]]
"""Function that runs the job in an interpreter."""

_answers: dict[str, Located] = {}
"""Answers of the locate stage in this process, by the JSON of the job. A sweep queries the hub once."""


def locate_checkpoint(request: Request, run: Run) -> Request | Answer[Located]:
    """Return the request with the folder and identity of its checkpoint, or the answer of a failed locate stage.

    Raises:
        Refused: the checkpoint has fewer positions than the request needs.
    """
    model = request.model
    if model is None or model.weights == "random" or model.path:
        return request
    key = json.dumps(to_json(LocateJob(replace(model, seed=0), request.cache)), sort_keys=True)
    if key not in _answers or not _answers[key].path.is_dir():
        answer = run(LocateJob(model, request.cache), request.main_interpreter)
        if answer.result is None:
            return answer
        _answers[key] = answer.result
    found = _answers[key]
    identity = identity_of(found.path, request.cache)
    _check_positions(request, found.path)
    located = replace(model, path=str(found.path), origin=found.origin, identity=identity)
    return with_checkpoint(request, located)


def with_checkpoint(request: Request, model: ModelReference) -> Request:
    """Return the request with everything that depends on the files of its checkpoint, `model.path`."""
    folder = Path(model.path)
    output = resolve_output(request.spec.output, read_config(folder), folder)
    others = {
        name: value for name, value in request.cell["options"].items() if name not in request.spec.output.for_cell()
    }
    cell: CellFields = {
        **request.cell,
        "model_version": model.identity[:16],
        "options": {**others, **output.for_cell()},
    }
    return replace(request, model=model, spec=replace(request.spec, output=output), cell=cell)


def _check_positions(request: Request, folder: Path) -> None:
    try:
        most = positions_of(read_config(folder))
    except ValueError as error:
        raise Refused(f"model.hub={request.model.hub if request.model else ''}: {error}") from None
    longest = max(shape.sequence for shape in request.spec.shapes)
    if longest > most:
        raise Refused(beyond(longest, most, request.cell["model"]))


def checkpoint_changed(request: Request) -> str:
    """Return a reason if the files of the checkpoint changed while the cell ran; otherwise return ""."""
    model = request.model
    if model is None or not model.identity:
        return ""
    try:
        same = identity_of(Path(model.path), request.cache) == model.identity
    except (OSError, Unavailable):
        same = False
    return "" if same else "the checkpoint's files changed while the cell ran; run it again"
