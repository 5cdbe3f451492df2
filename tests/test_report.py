from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

from suites.record import Record, read_records, write_record
from suites.report import main, shown, write_tables


def test_tables_are_made_from_all_records(make_record: Callable[..., Record], tmp_path: Path) -> None:
    write_record(tmp_path, make_record())
    write_record(tmp_path, make_record(machine="gpu-b"))
    (table,) = write_tables(tmp_path)
    assert table == tmp_path / "tables" / "latency.md"
    assert table.read_text().count("\n## ") == 2


def test_without_records_there_is_no_table(tmp_path: Path) -> None:
    assert write_tables(tmp_path) == []


def test_a_file_that_is_no_record_is_named(
    make_record: Callable[..., Record], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_record(tmp_path, make_record())
    path.write_text("{}")
    with pytest.raises(ValueError, match=rf"{path.name} is not a record: record schema None"):
        write_tables(tmp_path)
    path.write_text("no JSON")
    assert main([str(tmp_path)]) == 2
    assert f"refused: {path} is not a record" in capsys.readouterr().err


def test_a_folder_without_records_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "nowhere has no folder records" in capsys.readouterr().err


def test_a_terminal_gets_the_rows_and_where_the_columns_are_explained(make_record: Callable[..., Record]) -> None:
    text = shown("latency", [make_record()], Path("results"))
    assert text.startswith("## GPU-A, driver 1.2")
    assert "p50 is the median" not in text
    assert text.endswith("What the columns say: results/tables/latency.md")


@pytest.mark.parametrize(("folder", "gpu"), [("results", "nvidia-h200"), ("results_h100", "nvidia-h100")])
def test_the_committed_tables_are_those_of_the_committed_records(folder: str, gpu: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / folder / "records", tmp_path / "records")
    for table in write_tables(tmp_path):
        assert table.read_text() == (ROOT / folder / "tables" / table.name).read_text()
    for record in read_records(tmp_path, "latency"):
        assert record.environment["machine"].startswith(gpu) or record.cell.device == "cpu"


def test_kernels_are_added_up_by_what_they_do(make_record: Callable[..., Record], tmp_path: Path) -> None:
    record = write_record(tmp_path, make_record())
    rows = [("mha0", "2,000", "us"), ("sm90_xmma_gemm_f16", "3", "ms"), ("__myl_bb0_2_ResMovTra", "500000", "ns")]
    names = ("Kernel Name", "Metric Value", "Metric Unit")
    lines = [",".join(f'"{cell}"' for cell in row) for row in (names, *rows)]
    profile = record.parents[1] / "kernels" / f"{record.stem}-8x128.csv"
    profile.parent.mkdir()
    profile.write_text("\n".join(lines))
    table = write_tables(tmp_path)[-1]
    assert table.name == "kernels.md"
    cells = [cell.strip() for cell in table.read_text().splitlines()[-1].split("|")]
    assert cells[-8:-1] == ["8", "128", "3", "5.50", "2.00 (1)", "3.00 (1)", "0.50 (1)"]
    drawn = write_record(tmp_path, make_record(lengths={"distribution": "lognormal", "mean": 177.0, "sigma": 0.45}))
    profile.with_name(f"{drawn.stem}-8x128.csv").write_text(profile.read_text())
    texts = [line.split("|") for line in table.read_text().splitlines() if line.startswith("|")]
    assert "lengths" not in " ".join(texts[0])
    table = write_tables(tmp_path)[-1]
    header, _, *both = [line.split("|") for line in table.read_text().splitlines() if line.startswith("|")]
    place = [cell.strip() for cell in header].index("lengths")
    assert sorted(row[place].strip() for row in both) == ["", "lognormal"]
    profile.with_name(f"{drawn.stem}-8x128.csv").unlink()
    profile.write_text("no,such\n1,2\n")
    with pytest.raises(ValueError, match=r"8x128.csv is no CSV of kernel times"):
        write_tables(tmp_path)
