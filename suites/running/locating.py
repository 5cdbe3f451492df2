"""Find the checkpoint of a hub id before its cell gets an id, because the id depends on the checkpoint's files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from backends.base import Unavailable
from backends.model.checkpoint_files import read_config
from backends.model.families import positions_of
from backends.model.identity import identity_of
from suites.asking.request import Request
from suites.records.record import OK
from suites.running.launch import Answer
from suites.schema.refusals import Refused

Run = Callable[[str, Mapping[str, Any], str], Answer]
"""Function that runs a stage with a job and an interpreter."""

_answers: dict[str, Mapping[str, Any]] = {}
"""Answers of the locate stage in this process, by the keys that determine them. A sweep queries the hub once."""


def locate_checkpoint(request: Request, run: Run) -> Request | Answer:
    """Return the request with the folder and identity of its checkpoint, or the answer of a failed locate stage.

    Raises:
        Refused: The checkpoint has fewer positions than the request needs.
    """
    model = request.job.get("model", {})
    if not model or request.job["source"] == "none" or model["weights"] == "random" or model["path"]:
        return request
    key = json.dumps([{name: value for name, value in model.items() if name != "seed"}, request.job["cache"]])
    if key not in _answers or not Path(_answers[key]["path"]).is_dir():
        answer = run("locate", request.job, request.main_interpreter)
        if answer.outcome != OK:
            return answer
        _answers[key] = answer.result
    folder = Path(_answers[key]["path"])
    identity = identity_of(folder, request.cache)
    _check_positions(request, folder)
    job = {
        **request.job,
        "model": {**model, "path": str(folder), "origin": _answers[key]["origin"], "identity": identity},
    }
    return replace(request, job=job, cell={**request.cell, "model_version": identity[:16]})


def _check_positions(request: Request, folder: Path) -> None:
    hub = request.job["model"]["hub"]
    try:
        most = positions_of(read_config(folder))
    except ValueError as error:
        raise Refused(f"model.hub={hub}: {error}") from None
    longest = max(sequence for _, sequence in request.job["shapes"])
    if longest > most:
        raise Refused(f"sequence={longest} is beyond the {most} positions of {request.cell['model']}")


def checkpoint_changed(request: Request) -> str:
    """Return a reason if the files of the checkpoint changed while the cell ran; otherwise return ""."""
    model = request.job.get("model", {})
    if not model.get("identity"):
        return ""
    try:
        same = identity_of(Path(model["path"]), request.cache) == model["identity"]
    except (OSError, Unavailable):
        same = False
    return "" if same else "the checkpoint's files changed while the cell ran; run it again"
