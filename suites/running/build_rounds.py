"""Builds of a suite that compares builds. A round has its own options or limit, and perhaps a cache of its own."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from backends.base import BuildSpec
from backends.cache import TIMINGS as TIMINGS_FOLDER
from backends.cache_files import make_private_folder
from backends.json_codec import from_json, to_object
from backends.options import BackendOptions
from suites.suite import CELL, FIRST, TIMINGS, BuildRound

FOLDER = "builds"
"""Folder of these caches in the folder of a job. It is removed when the cell has ended."""


def spec_of_round(spec: BuildSpec, build: BuildRound, job: Path) -> BuildSpec:
    """Return the specification of a round.

    Another cache than that of the cell is in `job`, so that builds of other runs are not used. A round with a new cache
    removes the engine of the round before it; only the first engine is kept.
    """
    current = spec.options_as(BackendOptions)
    options = from_json(type(current), {**to_object(current), **build.options}, "options")
    changed = replace(spec, options=options, shapes=build.shapes or spec.shapes, build_limit=build.limit)
    if build.cache == CELL:
        return changed
    first, other = job / FOLDER / "first", job / FOLDER / "other"
    cache = first if build.cache == FIRST else other
    if cache is other:
        shutil.rmtree(other, ignore_errors=True)
    make_private_folder(cache)
    if build.cache == TIMINGS and (first / TIMINGS_FOLDER).is_dir():
        shutil.copytree(first / TIMINGS_FOLDER, other / TIMINGS_FOLDER)
    return replace(changed, cache=cache)
