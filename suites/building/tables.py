"""Records of suite=building to markdown: a row for each build, and the advice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from suites.building.advice import sentences, shortest_near_best
from suites.building.result import MEASURED_AGAIN, PROFILES, SAVED_TIMINGS, Build, BuildingResult, Engine
from suites.records.record import Record
from suites.tables.markdown import by_machine, digits, fitted, notes_cell, wrapped
from suites.tables.record_sections import backend_title, record_section
from suites.tables.table import Table

COLUMNS = ("build", "timings", "profiles", "build s", "file MB", "p50 ms", "to first", "other tactics", "output",
           "file", "notes")  # fmt: skip

EXAMPLE = "other tactics are those of "
"""Start of a note with layers."""

LEGEND = """\
Cost of a build, and speed of its engine, by build option. Each row is one build in its own process, measured in another
process. The first row has the options of the cell.

- **build**: the option that differs from the first row. "measured again" is the engine of the first row in another
  process, and "built again" a build with the same options.
- **timings**: "none" if the builder measured all tactics itself, "saved" if it had the timings of the first build.
- **profiles**: number of optimization profiles. Engines of several profiles are built for the largest shapes.
- **build s**: wall time of the build: start of the builder, network, tactics, and the check of the engine.
- **file MB**: size of the engine in 10^6 bytes.
- **p50 ms**: median time of a step at the largest shape, by a CUDA graph on a GPU if the engine can be captured.
- **to first**: change of this time from the first row.
- **other tactics**: layers whose kernel is not that of the first row, of all layers. Empty if kernels are not known.
- **output**: whether the output at the largest shape has the bits of the first row.
- **file**: whether the engine has the bytes of the first row.
- **notes**: why there is no engine, or a remark on its times."""


def building_tables(records: Iterable[Record]) -> str:
    """Return one section for each machine, with one table for each record."""
    return by_machine("Building", LEGEND, records, _section)


def _section(records: Sequence[Record]) -> str:
    return record_section(records, _part, _title)


def _title(record: Record) -> str:
    batch, sequence = record.cell.shapes[-1]
    return f"{backend_title(record)}, {batch}x{sequence}"


def _part(record: Record) -> list[str]:
    result = record.result
    assert isinstance(result, BuildingResult)
    advice = [wrapped(f"- {sentence}", "  ") for sentence in sentences(result)]
    return [fitted(COLUMNS, rows_of(result), 2), "", *advice]


def rows_of(result: BuildingResult) -> list[list[str]]:
    """Return a row for each build."""
    first = result.builds[0].engine
    assert first is not None
    advised = shortest_near_best(result)
    return [_row(build, first, advised[0].setting if advised else None) for build in result.builds]


def _row(build: Build, first: Engine, shortest: str | None) -> list[str]:
    name = build.setting or build.kind
    timings = "saved" if build.kind == SAVED_TIMINGS else "" if build.kind == MEASURED_AGAIN else "none"
    engine = build.engine
    if engine is None:
        return [name, timings, *[""] * 8, f"{build.outcome}: {build.reason}"]
    is_first = engine is first
    notes = notes_cell(
        "shortest within 2%" if build.setting == shortest and (build.setting or is_first) and _compared(build) else "",
        "" if engine.steady else "not steady after warm-up",
        f"{EXAMPLE}{'; '.join(engine.examples)}" if engine.examples else "",
    )
    return [
        name,
        timings,
        str(engine.profiles),
        "" if build.kind == MEASURED_AGAIN else digits(engine.seconds),
        digits(engine.engine_bytes / 1e6),
        digits(engine.milliseconds),
        "" if is_first else f"{engine.milliseconds / first.milliseconds - 1:+.1%}",
        "" if engine.other_tactics is None else f"{engine.other_tactics} of {engine.layers}",
        "" if is_first else "same" if engine.output == first.output else "other",
        "" if is_first else "same" if engine.plan == first.plan else "other",
        notes,
    ]


def _compared(build: Build) -> bool:
    """Return whether the build is one of those that the advice compares."""
    return build.kind not in (PROFILES, SAVED_TIMINGS, MEASURED_AGAIN)


TABLES = {"building": Table("suites.building.tables:building_tables")}

END_TABLES = "suites.building.building_end_tables:building_end_tables"
"""Function that makes the short tables at the end of a run."""
