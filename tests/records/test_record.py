from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from suites.records.record import Record, read_record, record_path, write_record
from suites.records.results_folder import read_records
from suites.records.value_types import BadRecord
from suites.schema.refusals import Refused


def test_round_trip_through_a_file(make_record: Callable[..., Record], tmp_path: Path) -> None:
    record = make_record()
    path = write_record(tmp_path, record)
    assert path == tmp_path / "gpu-a" / "records" / "latency" / f"{record.cell.id}.json"
    assert read_record(path) == record
    assert list(read_records(tmp_path, "latency")) == [record]


@pytest.mark.parametrize(
    ("schema", "says"),
    [("99", "newer than 2"), ("0", "this version reads 1 to 2"), ('"2"', "reads 1 to 2"), ("null", "schema is None")],
)
def test_a_record_of_another_schema_is_not_read(
    schema: str, says: str, make_record: Callable[..., Record], tmp_path: Path
) -> None:
    path = write_record(tmp_path, make_record())
    path.write_text(path.read_text().replace('"schema": 2', f'"schema": {schema}'))
    with pytest.raises(BadRecord, match=says):
        read_record(path)


def test_a_record_that_was_changed_is_not_read(make_record: Callable[..., Record], tmp_path: Path) -> None:
    path = write_record(tmp_path, make_record())
    text = path.read_text()
    path.write_text(text.replace("1000000", "1000001", 1))
    with pytest.raises(BadRecord, match="its digest does not match its content"):
        read_record(path)
    path.write_text(text.replace("\n", " "))  # other white space does not change the content
    assert read_record(path) == make_record()


def test_a_record_of_the_first_schema_is_read_with_defaults(make_record: Callable[..., Record], tmp_path: Path) -> None:
    path = write_record(tmp_path, make_record())
    data = json.loads(path.read_text())
    later = ("digest", "maker", "harness", "scoring", "processes", "facts", "settings", "stages", "log_tail")
    path.write_text(json.dumps({name: value for name, value in data.items() if name not in later} | {"schema": 1}))
    record = read_record(path)
    assert (record.harness, record.scoring, record.maker) == (1, 1, None)
    assert record.measurements == make_record().measurements


def test_a_record_that_would_not_be_readable_is_not_written(make_record: Callable[..., Record], tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"could not be read again: cell\.shapes\[0\] is not a batch and a sequence"):
        write_record(tmp_path, make_record(shapes=((1 << 40, 16),)))
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("machine", ["../../x", "/tmp/x", "", ".", "a/b", "A\nB", "x" * 300])
def test_a_record_is_not_written_outside_its_folder(
    machine: str, make_record: Callable[..., Record], tmp_path: Path
) -> None:
    results = tmp_path / "below" / "results"
    with pytest.raises(ValueError, match="not names of a machine and a suite"):
        write_record(results, make_record(machine=machine))
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("model", ["../../pwn", "BAAI/bge-small", "x" * 300, ".hidden", "mod\u00e8le \n#"])
def test_file_names_do_not_contain_the_models_folder(
    model: str, make_record: Callable[..., Record], tmp_path: Path
) -> None:
    path = record_path(tmp_path, "gpu-a", make_record(model=model).cell)
    assert path.parent == tmp_path / "gpu-a" / "records" / "latency"
    assert len(path.name) < 200
    assert not path.name.startswith(".")
