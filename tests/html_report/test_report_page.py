"""The data and the file of `suites.report --html`, without a browser."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Measured

from backends.null_.null import Costs as Programmed
from suites.html_report import page as page_module
from suites.html_report.page_data import page_data
from suites.records.record import Record, write_record
from suites.records.results_folder import machine_folders
from suites.report import main

MakeRecord = Callable[..., Record]


def embedded(path: Path) -> Any:
    """Return the data in a page."""
    (packed,) = re.findall(r'id="data">([^<]*)<', path.read_text(encoding="utf-8"))
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def test_the_page_has_the_figures_and_commands_of_the_records(make_record: MakeRecord, tmp_path: Path) -> None:
    base = make_record(backend="torch_eager", command=("python", "-m", "suites.run", "batch=[2]"))
    write_record(tmp_path, base)
    write_record(tmp_path, make_record(precision="fp16", samples=(250_000,) * 20))
    assert main(["--html", str(tmp_path)]) == 0
    data = embedded(tmp_path / "report.html")
    (workload,) = data["workloads"]
    fast, slow = workload["rows"]
    assert data["baseline"] == "torch_eager fp32"
    assert fast["time"] == [0.125] * 3  # a CUDA graph takes half the time
    assert (fast["graph"], fast["speedup"], slow["speedup"]) == (True, 4, 1)
    assert workload["answers"] == [{"batch": 2, "sequence": 16, "winners": [0], "lowest": 0, "rows": 2}]
    assert slow["request_ms"] == slow["enqueue_ms"] == 0.5
    assert slow["tokens_s"] == pytest.approx(32 / 0.0005)
    assert data["records"][slow["record"]]["command"] == "python -m suites.run 'batch=[2]'"
    assert data["records"][slow["record"]]["id"] == base.cell.id


def test_equal_records_give_equal_pages(make_record: MakeRecord, tmp_path: Path) -> None:
    write_record(tmp_path, make_record())
    for name in ("a.html", "b.html"):
        assert main(["--html", str(tmp_path), "--output", str(tmp_path / name)]) == 0
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_all_suites_are_on_the_page(make_record: MakeRecord, measured: Measured, tmp_path: Path) -> None:
    latency = write_record(tmp_path, make_record())
    profile = tmp_path / "gpu-a" / "kernels" / f"{latency.stem}-2x16.csv"
    profile.parent.mkdir()
    profile.write_text('"Kernel Name","Metric Value","Metric Unit"\n"mha0","2,000","us"\n"gemm","3","ms"\n')
    layers = [{"point": name, "nonfinite": bad, "max_difference": 1.0, "relative_error": 0.2, "cosine_min": 0.5}
              for name, bad in (("0/gelu", 0), ("0/down", 3))]  # fmt: skip
    write_record(tmp_path, make_record(suite="layers", scores={"layers": layers, "threshold": 0.05, "first": "0/gelu"}))
    write_record(tmp_path, measured(Programmed(step_ms=5, shape_ms=2), switches=(0.0, 1.0)))
    write_record(
        tmp_path, make_record(backend="trt", outcome="unsupported", reason="no driver", measurements=(), checks=())
    )
    data = page_data(machine_folders(tmp_path))
    (kernels,) = data["kernels"]
    assert kernels["groups"]["attention"] == [2.0, 1]
    (errors,) = data["layers"]
    assert errors["points"] == [["0/gelu", 0.2], ["0/down", None]]
    (group,) = data["switching"]
    (strategy,) = group["strategies"]
    assert strategy["ends"][1] - strategy["ends"][0] == pytest.approx(2, rel=0.3)
    assert [share for share, _ in strategy["replays"]] == [0.0, 1.0]
    assert strategy["extra_us"][0][1] == pytest.approx(2000, rel=0.3)
    reasons = [data["records"][item["record"]]["reason"] for item in data["without_result"]]
    assert reasons == ["unsupported: no driver"]


def test_figures_that_are_not_finite_are_empty(make_record: MakeRecord, tmp_path: Path) -> None:
    lengths = {"distribution": "full", "tokens": "auto", "task": "stsb"}
    scores = {"metric": "spearman", "value": float("nan"), "reference_value": 0.8, "difference": float("nan"),
              "nonfinite": 0, "tolerance": 0.01, "cosine_min": 1.0, "cosine_mean": 1.0, "max_difference": 0.0,
              "relative_error": 0.0, "verdict": ""}  # fmt: skip
    write_record(tmp_path, make_record())
    write_record(tmp_path, make_record(suite="accuracy", lengths=lengths, scores=scores, measurements=(), checks=()))
    assert main(["--html", str(tmp_path)]) == 0
    (row,) = embedded(tmp_path / "report.html")["workloads"][0]["rows"]
    assert row["tasks"] == {"stsb, spearman": [None, None, None]}
    assert row["invalid"]


def test_bad_records_are_skipped_and_named(
    make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(tmp_path, make_record())
    broken = write_record(tmp_path, make_record(precision="fp16"))
    broken.write_text("no JSON")
    inputs = {"inputs": {"notes": {"tokens": "random", "shapes": {}}}}
    odd = write_record(tmp_path, make_record(precision="bf16", artifacts=inputs))
    assert main(["--html", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert f"skipped: {broken}: it is not JSON" in error
    assert f"skipped: {odd}: no figures can be read from it: KeyError: '2x16'" in error
    assert len(embedded(tmp_path / "report.html")["workloads"][0]["rows"]) == 1


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the last line of a refused command on standard error."""
    assert main(arguments) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_bad_arguments_are_refused(make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere has no records" in refusal(["--html", str(tmp_path / "nowhere")], capsys)
    path = write_record(tmp_path, make_record())
    assert refusal([str(tmp_path), "--output", "x.html"], capsys) == (
        "refused: --output names the file of --html; add --html"
    )
    assert "is a folder; name a file" in refusal(["--html", str(tmp_path), "--output", str(tmp_path)], capsys)
    inside_a_file = path / "report.html"
    assert "cannot be written (its folder is a file); choose another file" in refusal(
        ["--html", str(tmp_path), "--output", str(inside_a_file)], capsys
    )
    path.write_text("{}")
    assert "the folder has no usable records" in refusal(["--html", str(tmp_path)], capsys)
    assert not list(tmp_path.glob("*.html"))


def test_without_plotly_the_refusal_names_the_command(
    make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_record(tmp_path, make_record())
    monkeypatch.setattr(page_module, "find_spec", lambda name: None)
    line = refusal(["--html", str(tmp_path)], capsys)
    assert line.endswith(f"run {sys.executable} -m pip install '{page_module.REQUIREMENT}'")
    assert main([str(tmp_path)]) == 0, "tables need no plotly"


@pytest.fixture
def another_user(tmp_path: Path) -> Iterator[None]:
    """Run a test as the user nobody, who can enter the folders of the test but cannot write there."""
    closed = [folder for folder in (tmp_path, *tmp_path.parents) if not folder.stat().st_mode & 0o001]
    modes = {folder: folder.stat().st_mode for folder in closed}
    for folder, mode in modes.items():
        folder.chmod(mode | 0o055)
    os.seteuid(65534)
    yield
    os.seteuid(0)
    for folder, mode in modes.items():
        folder.chmod(mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_another_user_cannot_write_into_the_folder(
    make_record: MakeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    write_record(tmp_path, make_record())
    assert main(["--html", str(tmp_path), "--output", str(tmp_path / "first.html")]) == 0  # imports all modules
    request.getfixturevalue("another_user")
    line = refusal(["--html", str(tmp_path)], capsys)
    assert (
        line == f"refused: --output {tmp_path}/report.html cannot be written (Permission denied); choose another file"
    )
    assert not (tmp_path / "report.html").exists()


def test_a_machine_without_latency_has_a_page(measured: Measured, tmp_path: Path) -> None:
    record = measured(Programmed(step_ms=5), switches=(1.0,))
    write_record(tmp_path, replace(record, command=("python",)))
    data = page_data(machine_folders(tmp_path))
    assert (data["workloads"], len(data["switching"])) == ([], 1)
