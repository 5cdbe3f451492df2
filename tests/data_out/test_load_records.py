"""The Python interface `from suites import load_records`, and the example of its guide."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from conftest import ROOT

import suites
from suites import Refused, load_records
from suites.records.record import Record, write_record

PAGE = (ROOT / "docs" / "guides" / "data_out.md").read_text(encoding="utf-8")
MakeRecord = Callable[..., Record]


def test_the_example_of_the_guide_prints_the_output_of_the_guide(monkeypatch: pytest.MonkeyPatch) -> None:
    matched = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
    assert matched
    monkeypatch.chdir(ROOT)
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(matched.group(1), {})
    assert printed.getvalue() == matched.group(2)


def test_the_guide_quotes_the_message_of_an_unknown_suite() -> None:
    with pytest.raises(Refused) as refused:
        load_records(ROOT / "results" / "reference", suite="latancy")
    assert str(refused.value) in PAGE


def test_records_are_a_sequence_of_all_suites_and_machines(make_record: MakeRecord, tmp_path: Path) -> None:
    for record in (make_record(machine="gpu-b"), make_record(), make_record(precision="fp16")):
        write_record(tmp_path, record)
    write_record(
        tmp_path,
        make_record(suite="accuracy", lengths={"distribution": "full", "task": "stsb"}, measurements=(), checks=()),
    )
    records = load_records(tmp_path)
    assert [(r.environment.machine, r.cell.suite) for r in records] == [
        ("gpu-a", "accuracy"), ("gpu-a", "latency"), ("gpu-a", "latency"), ("gpu-b", "latency"),
    ]  # fmt: skip
    assert len(records) == 4
    assert records[-1].environment.machine == "gpu-b"
    assert [r.environment.machine for r in load_records(tmp_path, machine="b")] == ["gpu-b"]
    assert {r.cell.suite for r in load_records(str(tmp_path), suite="latency")} == {"latency"}
    assert [row.suite for row in load_records(tmp_path, suite="accuracy").rows()] == ["accuracy"]


def test_the_default_folder_is_that_of_runs(
    make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_record(Path("results/runs"), make_record())
    assert len(load_records()) == 1


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        ({"machine": "gpu-c"}, "there are no records of machine gpu-c; did you mean gpu-a? choices: gpu-a"),
        ({"suite": "latancy"}, "there are no records of suite latancy; did you mean latency? choices: latency"),
        ({"suite": "accuracy"}, "there are no records of suite accuracy; choices: latency"),
    ],
)
def test_an_unknown_selection_names_the_existing_ones(
    chosen: dict[str, str], reason: str, make_record: MakeRecord, tmp_path: Path
) -> None:
    write_record(tmp_path, make_record())
    with pytest.raises(Refused, match=re.escape(reason)):
        load_records(tmp_path, **chosen)


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="has no records"):
        load_records(tmp_path / "nowhere")


def test_a_file_that_is_not_a_record_is_skipped_with_a_warning(make_record: MakeRecord, tmp_path: Path) -> None:
    write_record(tmp_path, make_record())
    path = write_record(tmp_path, make_record(precision="fp16"))
    path.write_text("no JSON")
    with pytest.warns(UserWarning, match=re.escape(str(path))):
        records = load_records(tmp_path)
    assert len(records) == 1
    assert [str(path) in line for line in records.skipped] == [True]


def test_a_record_that_gives_no_row_is_left_out(
    make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from suites.latency.figures import LatencyRow

    write_record(tmp_path, make_record())
    write_record(tmp_path, make_record(precision="fp16"))

    def faulty(row: LatencyRow) -> int:
        if row.record.cell.precision == "fp16":
            raise ZeroDivisionError("no memory")
        return 8_000_000

    monkeypatch.setattr(LatencyRow, "peak_bytes", property(faulty))
    records = load_records(tmp_path)
    assert [(row.precision, row.peak_mb) for row in records.rows()] == [("fp32", 8.0)] * 2
    assert ["no row can be made from it: ZeroDivisionError: no memory" in line for line in records.skipped] == [True]


@pytest.mark.parametrize(("library", "purpose"), [("pandas", "a DataFrame"), ("pyarrow", "--parquet")])
def test_a_missing_library_names_the_command_that_installs_it(
    library: str, purpose: str, make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from suites.data_out.frames import parquet_of

    write_record(tmp_path, make_record())
    records = load_records(tmp_path)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(Refused) as refused:
        records.frame() if library == "pandas" else parquet_of(records.rows())
    install = f"run {sys.executable} -m pip install {library}"
    assert str(refused.value) == f"{purpose} needs {library}, which is not installed; {install}"
    assert len(records.rows()) == 2


def test_public_names_exist_and_others_do_not() -> None:
    assert all(getattr(suites, name).__name__ == name for name in suites.__all__)
    with pytest.raises(AttributeError, match="no attribute 'load'"):
        suites.load  # noqa: B018


def test_importing_the_package_imports_none_of_its_modules() -> None:
    program = "import sys, suites; print([name for name in sys.modules if name.startswith(('suites.', 'numpy'))])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_the_stub_has_the_public_names() -> None:
    stub = (ROOT / "suites" / "__init__.pyi").read_text(encoding="utf-8")
    assert {name: module for module, name in re.findall(r"from (\S+) import (\w+) as \2", stub)} == suites._PUBLIC
