"""Records as typed parts: the committed records survive a round trip, and unknown fields are kept and named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, json_of

from backends.json_codec import from_json, to_json
from backends.json_part import unknown_fields
from suites import report
from suites.records.measurement import Measurement, Telemetry
from suites.records.migrations import migrated
from suites.records.record import SCHEMA, Record, read_record, write_record
from suites.tasks.task_scores import TaskFigures, TaskScores

MakeRecord = Callable[..., Record]

REFERENCE = ROOT / "results" / "reference"
MACHINES = sorted(path.parent for path in REFERENCE.glob("*/records"))


def canonical(data: object) -> str:
    return json.dumps(data, sort_keys=True)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_committed_records_survive_a_round_trip(machine: Path) -> None:
    files = sorted(machine.glob("records/*/*.json"))
    assert files
    for file in files:
        data = json.loads(file.read_text(encoding="utf-8"))
        record = Record.from_json(data)
        data.pop("digest", None)
        assert canonical(record.to_json()) == canonical(migrated(data, SCHEMA)), file
        assert record.cell.id.rpartition("-")[2] == file.stem.rpartition("-")[2]
        assert record.schema == data["schema"]
        assert unknown_fields(record) == []


def test_the_migration_of_the_first_schema_only_adds_fields() -> None:
    first = {"schema": 1, "outcome": "ok", "measurements": [{"phase": "gpu"}], "checks": [{"batch": 1}]}
    assert migrated(first, 2) == {
        "schema": 2, "outcome": "ok", "measurements": [{"phase": "gpu", "process": 0}], "checks": [{"batch": 1}],
        "scores": {}, "processes": [], "maker": {}, "harness": 1, "scoring": 1,
    }  # fmt: skip
    assert migrated({"schema": 2}, 2) == {"schema": 2}


PLACES = ("", "cell", "environment", "maker", "settings", "facts", "facts.2x16", "checks.0", "measurements.1",
          "measurements.0.telemetry", "artifacts", "artifacts.inputs", "artifacts.inputs.notes", "processes.0",
          "processes.0.facts", "scores")  # fmt: skip
"""Objects in a record that may have an unknown field."""


def full(make_record: MakeRecord) -> Record:
    """Return a record in which all objects of `PLACES` exist."""
    facts = {"2x16": {"first_step_ns": 5}}
    scores = {"nonfinite": 0, "metric": "spearman", "value": 0.8, "difference": 0.0, "tolerance": 0.01}
    return make_record(
        suite="accuracy",
        lengths={"distribution": "texts", "tokens": "text", "task": "stsb"},
        facts=facts,
        scores=scores,
        maker={"version": "1", "commit": "", "dirty": False},
        processes=({"process": 1, "measured_at": "", "facts": facts},),
    )


@pytest.mark.parametrize("schema", [1, 2])
@pytest.mark.parametrize("place", PLACES)
def test_an_unknown_field_is_kept_and_named_once(
    place: str, schema: int, make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record, keys = full(make_record), [int(key) if key.isdigit() else key for key in place.split(".") if key]
    data = json_of(record)
    inner: Any = data
    for key in keys:
        inner = inner[key]
    inner["colour"] = {"name": ["red", 1]}
    read = Record.from_json(with_schema(data, schema))
    assert canonical(read.to_json()) == canonical(data)
    path = write_record(tmp_path, read)
    assert read_record(path) == replace(read, schema=SCHEMA)
    named = "".join("[]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")
    assert report.main([str(tmp_path)]) == 0
    field = f"{named}.colour" if named else "colour"
    assert capsys.readouterr().err.splitlines() == [f'note: {path}: unknown field "{field}" kept']


def with_schema(data: dict[str, Any], schema: int) -> dict[str, Any]:
    """Return the data of a record in a version of the layout, with the digest that this version needs."""
    from suites.records.record import digest_of

    content = {**data, "schema": schema}
    return content if schema == 1 else {**content, "digest": digest_of(content)}


def test_equal_unknown_fields_of_a_record_are_one_line(
    make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json_of(make_record())
    for measurement in data["measurements"]:
        measurement["colour"] = "red"
    path = write_record(tmp_path, Record.from_json(with_schema(data, 1)))
    assert report.main([str(tmp_path)]) == 0
    assert capsys.readouterr().err.splitlines() == [f'note: {path}: unknown field "measurements[].colour" kept']


def test_a_record_without_unknown_fields_gives_no_note(
    make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(tmp_path, make_record())
    assert report.main([str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""


def test_the_trace_of_a_replay_is_a_field_and_part_of_the_phase_in_json() -> None:
    replay = Measurement("replay", 0, 0, True, (1,), ((0, 1, 1),), True, trace="switch=0.5")
    assert to_json(replay)["phase"] == "replay switch=0.5"
    assert "trace" not in to_json(replay)
    assert from_json(Measurement, to_json(replay)) == replay


def test_the_load_of_the_cpu_is_next_to_the_other_telemetry_in_json() -> None:
    data = {"power_w": 300, "cpu_others": 0.5, "cpu_steal": 0.0, "cpu_resolution": 0.01, "threads_used": 2}
    telemetry = from_json(Telemetry, data)
    assert (telemetry.power_w, telemetry.threads_used, telemetry.memory_bytes) == (300, 2, None)
    assert canonical(to_json(telemetry)) == canonical(data)
    assert to_json(Telemetry()) == {}


def test_the_figures_of_a_task_are_next_to_the_other_scores_in_json() -> None:
    scores = TaskScores(0, TaskFigures("spearman", 0.8, -0.1, 0.9, 1.0, 1.0, 0.0, 0.0), 0.01)
    assert to_json(scores)["value"] == 0.8
    assert from_json(TaskScores, to_json(scores)) == scores
    assert to_json(TaskScores(3)) == {"nonfinite": 3}
    assert from_json(TaskScores, {"nonfinite": 3}).figures is None
