from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT
from markdown_rows import rows as table_rows

from suites.records.record import Record, write_record
from suites.records.results_folder import MachineFolder, machine_folders
from suites.report import main
from suites.tables.markdown import without_legend
from suites.tables.write_tables import terminal_tables, write_machine, write_tables

REFERENCE = ROOT / "results" / "reference"


def test_every_machine_has_its_own_tables(make_record: Callable[..., Record], tmp_path: Path) -> None:
    write_record(tmp_path, make_record())
    write_record(tmp_path, make_record(machine="gpu-b"))
    tables, _ = write_tables(tmp_path)
    assert tables == [tmp_path / machine / "tables" / "tiny" / "latency.md" for machine in ("gpu-a", "gpu-b")]
    assert [without_legend(table.read_text()).count("\n## ") for table in tables] == [1, 1]


def test_without_records_there_is_no_table(tmp_path: Path) -> None:
    assert write_tables(tmp_path) == ([], [])


def test_a_file_that_is_not_a_record_is_named(
    make_record: Callable[..., Record], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(tmp_path, make_record())
    path = write_record(tmp_path, make_record(precision="fp16"))
    path.write_text("no JSON")
    assert main([str(tmp_path)]) == 1
    assert f"skipped: {path}: " in capsys.readouterr().err
    assert "| fp32 " in (tmp_path / "gpu-a" / "tables" / "tiny" / "latency.md").read_text()


def test_a_folder_without_records_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "nowhere has no records" in capsys.readouterr().err


def test_a_terminal_shows_the_rows_and_where_the_columns_are_explained(make_record: Callable[..., Record]) -> None:
    text = terminal_tables("latency", [make_record()], MachineFolder(Path("results"), "gpu-a"))
    assert text.startswith("## GPU-A, driver 1.2")
    assert "Legend" not in text
    assert "**p50 ms**" not in text
    assert text.endswith("The columns are explained in results/gpu-a/tables/tiny/latency.md")


@pytest.mark.parametrize("folder", machine_folders(REFERENCE), ids=lambda folder: folder.name)
def test_committed_tables_match_the_committed_records(folder: MachineFolder, tmp_path: Path) -> None:
    files = [path for path in folder.tables.rglob("*") if path.is_file()]
    committed = {path.relative_to(folder.tables): path.read_text() for path in files}
    (tmp_path / folder.name).mkdir()
    for part in ("records", "kernels"):
        (tmp_path / folder.name / part).symlink_to(folder.path / part)
    made = MachineFolder(tmp_path, folder.name)
    assert {path.relative_to(made.tables): path.read_text() for path in write_machine(made)} == committed
    assert (
        max(len(line) for path, text in committed.items() if path.suffix == ".md" for line in text.splitlines()) <= 160
    )


def test_kernel_times_are_summed_by_operation(make_record: Callable[..., Record], tmp_path: Path) -> None:
    record = write_record(tmp_path, make_record())
    rows = [("mha0", "2,000", "us"), ("sm90_xmma_gemm_f16", "3", "ms"), ("__myl_bb0_2_ResMovTra", "500000", "ns")]
    names = ("Kernel Name", "Metric Value", "Metric Unit")
    lines = [",".join(f'"{cell}"' for cell in row) for row in (names, *rows)]
    profile = record.parents[2] / "kernels" / f"{record.stem}-8x128.csv"
    profile.parent.mkdir()
    profile.write_text("\n".join(lines))
    table = write_tables(tmp_path)[0][-1]
    assert table.name == "kernels.md"
    (row,) = table_rows(table.read_text())
    assert list(row.values())[2:-1] == ["8", "128", "3", "5.50", "3.00 (1)", "2.00 (1)", "0.50 (1)"]
    drawn = write_record(tmp_path, make_record(lengths={"distribution": "lognormal", "mean": 177.0, "sigma": 0.45}))
    profile.with_name(f"{drawn.stem}-8x128.csv").write_text(profile.read_text())
    texts = [line.split("|") for line in table.read_text().splitlines() if line.startswith("|")]
    assert "lengths" not in " ".join(texts[0])
    table = write_tables(tmp_path)[0][-1]
    assert sorted(row["lengths"] for row in table_rows(table.read_text())) == ["", "lognormal"]
    profile.with_name(f"{drawn.stem}-8x128.csv").unlink()
    profile.write_text("no,such\n1,2\n")
    _, (folder,) = write_tables(tmp_path)
    ((path, reason),) = folder.bad.items()
    assert path == folder.tables / "kernels.md"
    assert "8x128.csv is not a CSV file of kernel times" in reason
    assert (folder.tables / "tiny" / "latency.md").exists()
