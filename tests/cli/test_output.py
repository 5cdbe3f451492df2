"""A command writes its tables even if its output stream fails."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, table_in

from suites.cli.output import TolerantOutput
from suites.records.record import Record, write_record


@pytest.mark.parametrize(
    ("target", "status", "says"),
    [("> /dev/full", 1, "No space left on device"), (">&-", 0, ""), ("| true; exit ${PIPESTATUS[0]}", 0, "")],
)
def test_tables_are_written_even_if_the_output_fails(
    target: str, status: int, says: str, make_record: Callable[..., Record], tmp_path: Path
) -> None:
    write_record(tmp_path, make_record())
    command = f"{sys.executable} -m suites.report {tmp_path} {target}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == status
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == bool(says)
    assert table_in(tmp_path, "latency").exists()


class Broken(io.StringIO):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize(("number", "status"), [(28, 1), (32, 0), (5, 1)])
def test_a_reader_that_stops_is_no_error_but_lost_output_is(
    number: int, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(number))
    with TolerantOutput() as output:
        print("a table")
        print("more")
    assert output.status(0) == status
    assert output.status(2) == 2
    assert ("cannot be written" in capsys.readouterr().err) == bool(status)


def test_characters_outside_the_encoding_are_printed_as_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    with TolerantOutput():
        print("enqueue \u00b5s")
    assert written.getvalue() == b"enqueue \\xb5s\n"


def test_nothing_on_standard_output_moves_a_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    with TolerantOutput():
        print("a\x1b[2Jb\rc\td")
    assert capsys.readouterr().out == "a\\x1b[2Jb\\x0dc\td\n"


@pytest.mark.parametrize(
    "module", ["__main__", "report", "advise", "choose", "batch", "process_noise", "run", "search"]
)
def test_help_may_be_read_partly(module: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", f"suites.{module}", "--help"], stdout=writer, stderr=subprocess.PIPE, cwd=ROOT
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
