from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from suites.choosing.results_index import results_index
from suites.records.record import Record, write_record
from suites.records.results_folder import machine_folders
from suites.report import main

MakeRecord = Callable[..., Record]


def test_the_index_has_date_commit_command_headline_and_links(make_record: MakeRecord, tmp_path: Path) -> None:
    facts = {
        "measured_at": "2026-01-02T03:04:05", "maker": {"version": "1", "commit": "abcdef0123456789", "dirty": False},
        "command": ("python", "-m", "suites.run", "backend=ort"),
    }  # fmt: skip
    for backend, milliseconds in (("ort", 1), ("trt", 2)):
        samples = (milliseconds * 1_000_000,) * 20
        write_record(tmp_path, make_record(backend=backend, samples=samples, **facts))
    assert main([str(tmp_path)]) == 0
    text = (tmp_path / "index.md").read_text()
    assert "## GPU-A, driver 1.2" in text
    assert "2 of latency" in text
    assert "2026-01-02; commit abcdef012345" in text
    (link,) = [line for line in text.splitlines() if line.startswith("- **tiny**")]
    assert link == (
        "- **tiny**: [gpu_and_request](gpu-a/tables/tiny/gpu_and_request.md), [latency](gpu-a/tables/tiny/latency.md)"
    )
    assert (tmp_path / "gpu-a/tables/tiny/latency.md").exists()
    assert results_index(machine_folders(tmp_path), tmp_path) in text
