"""Records as a source of estimates: which machine counts first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import replaced

from suites.planning import past_runs
from suites.planning.estimate import estimate, memory_of, most_similar, process_seconds
from suites.planning.past_runs import PastRuns, nearest_machines
from suites.records.record import Record, write_record
from suites.schema.refusals import Refused

MakeRecord = Callable[..., Record]


@pytest.fixture(autouse=True)
def _no_committed_records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(past_runs, "REFERENCE", tmp_path / "reference")


def request(record: Record, effort: tuple[float, float] = (1.0, 1.0), **changes: Any) -> Any:
    cell = {name: value for name, value in record.cell.to_json().items() if name != "release"} | changes
    return SimpleNamespace(
        suite=cell["suite"], cell=cell, effort=SimpleNamespace(warm_up_s=effort[0], seconds=effort[1])
    )


def with_stages(record: Record, **stages: float) -> Record:
    settings = {"warm_up_s": 1.0, "seconds": 1.0}
    return replaced(
        record, stages={"probe": 1.0, "export": 2.0, "build": 0.5, "measure": 10.0, **stages}, settings=settings
    )


def test_cpus_are_near_by_cores_and_gpus_by_name() -> None:
    others = ["cpu-intel-64-cores", "cpu-intel-4-cores", "nvidia-h100", "nvidia-h200", "nvidia-a10"]
    assert nearest_machines("cpu-amd-2-cores", others) == ["cpu-intel-4-cores", "cpu-intel-64-cores"]
    assert nearest_machines("nvidia-h100-pcie", others) == ["nvidia-h100", "nvidia-h200", "nvidia-a10"]


def test_this_machine_counts_first_then_the_nearest(make_record: MakeRecord, tmp_path: Path) -> None:
    wanted = request(make_record())
    past = PastRuns(tmp_path, "gpu-a")
    assert estimate(wanted, past) is None
    write_record(tmp_path, with_stages(make_record(machine="gpu-b"), export=7.0))
    assert estimate(wanted, PastRuns(tmp_path, "gpu-a", others=False)) is None
    other = estimate(wanted, PastRuns(tmp_path, "gpu-a"))
    assert other is not None
    assert (other.machine, other.setup_s, other.same_cell) == ("gpu-b", 8.0, True)
    write_record(tmp_path, with_stages(make_record()))
    own = estimate(wanted, PastRuns(tmp_path, "gpu-a"))
    assert own is not None
    assert (own.machine, own.setup_s) == ("gpu-a", 3.0)


def test_committed_records_of_this_machine_count_before_those_of_others(
    make_record: MakeRecord, tmp_path: Path
) -> None:
    write_record(tmp_path, with_stages(make_record(machine="gpu-b")))
    write_record(tmp_path / "reference", with_stages(make_record()))
    found = estimate(request(make_record()), PastRuns(tmp_path, "gpu-a"))
    assert found is not None
    assert found.machine == "gpu-a"


def test_the_most_similar_records_count(make_record: MakeRecord) -> None:
    records = [
        make_record(model="large"),
        make_record(precision="int8"),
        make_record(shapes=((4, 16),)),
        make_record(suite="accuracy"),
        make_record(backend="other"),
        make_record(device="cpu"),
    ]
    wanted = request(make_record(), shapes=[[8, 16]]).cell
    assert most_similar(wanted, records) == [records[2]]
    assert most_similar(wanted, records[3:]) == []
    assert most_similar({**wanted, "model": "large", "precision": "int8"}, records[:2]) == [records[0]]


def test_a_failed_cell_and_a_bad_file_are_no_estimate(make_record: MakeRecord, tmp_path: Path) -> None:
    path = write_record(tmp_path, with_stages(make_record(outcome="failed", reason="x")))
    (path.parent / "null-broken.json").write_text("{")
    past = PastRuns(tmp_path, "gpu-a")
    assert estimate(request(make_record()), past) is None
    assert past.bad_files() == 1


def test_sampling_is_scaled_and_loading_is_not(make_record: MakeRecord) -> None:
    window = ((0, 4_000_000_000, 10),)
    record = make_record()
    record = replace(record, measurements=tuple(replace(item, windows=window) for item in record.measurements))
    record = with_stages(record, measure=10.0)  # 4 s of it sample
    assert process_seconds(record, request(record)) == 10.0
    assert process_seconds(record, request(record, shapes=[[2, 16], [4, 16]])) == 14.0
    assert process_seconds(record, request(record, effort=(0.5, 0.5))) == 8.0
    two = replaced(record, processes=({"process": 1, "measured_at": "", "facts": {}},))
    assert process_seconds(two, request(record)) == 5.0
    # The stage of one process cannot be shorter than its samples: another command wrote the other process.
    assert process_seconds(with_stages(two, measure=6.0), request(record)) == 6.0


def test_a_builder_that_starts_during_the_export_takes_no_time_of_the_build(
    make_record: MakeRecord, tmp_path: Path
) -> None:
    built = {"seconds": 60.0, "notes": {"started_early_s": 11.5}}
    write_record(tmp_path, replaced(with_stages(make_record()), artifacts={"built": built}))
    expected = estimate(request(make_record()), PastRuns(tmp_path, "gpu-a"))
    assert expected is not None
    assert (expected.build_s, expected.cached_build_s) == (48.5, 0.5)


def test_facts_that_a_record_lacks_are_unknown(make_record: MakeRecord) -> None:
    record = replaced(with_stages(make_record()), facts={}, settings={})
    assert memory_of(record) is None
    assert process_seconds(record, request(record)) == 10.0
    known = replaced(record, facts={"2x16": {"peak_host_bytes": 5000}, "open_ns": 3})
    assert memory_of(known) == 5000


def test_records_that_cannot_be_read_are_refused(make_record: MakeRecord, tmp_path: Path) -> None:
    folder = tmp_path / "gpu-a" / "records" / "latency"
    folder.parent.mkdir(parents=True)
    folder.write_text("not a folder")
    with pytest.raises(Refused, match=r"gpu-a/records/latency cannot be read \(Not a directory\); correct its perm"):
        PastRuns(tmp_path, "gpu-a").own("latency")
