from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from suites.cli.output import write_output
from suites.schema.refusals import Refused


def test_an_output_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.csv"
    for content in ("one", b"two"):
        write_output("--csv", path, content)
    assert path.read_text() == "two"


def test_a_json_file_is_not_replaced_because_it_may_be_a_record(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text("{}")
    with pytest.raises(Refused, match=r"--csv .*record\.json exists and may be a record; choose another file"):
        write_output("--csv", path, "rows")
    assert path.read_text() == "{}"


def test_a_pipe_is_written_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=write_output, args=("--output", path, "page"))
    writer.start()
    assert path.read_text() == "page"
    writer.join()
    assert path.is_fifo()


def test_a_target_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="cannot be written"):
        write_output("--output", tmp_path / "file" / "page.html", "page")
