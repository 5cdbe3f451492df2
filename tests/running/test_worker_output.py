"""Output of a worker: limited in memory and on disk for any output, even if another process keeps the pipe open."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from suites.running import worker_output
from suites.running.worker_output import ProgressLines, Reader, WorkerLog


def test_a_short_log_is_kept_as_it_is(tmp_path: Path) -> None:
    log = WorkerLog(tmp_path / "log.txt")
    for block in (b"one\n", b"tw", b"o\n"):
        log.add(block)
    log.close()
    assert (tmp_path / "log.txt").read_bytes() == b"one\ntwo\n"
    assert log.tail() == "one\ntwo"


def test_a_long_log_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    log = WorkerLog(tmp_path / "log.txt")
    line = b"%07d " + b"x" * 91 + b"\n"
    for number in range(40_000):
        log.add(line % number)
        assert len(log._tail) <= 2 * worker_output.LOG_TAIL_BYTES
    log.close()
    kept = (tmp_path / "log.txt").read_bytes()
    assert len(kept) < worker_output.LOG_HEAD_BYTES + worker_output.LOG_TAIL_BYTES + 100
    assert kept.startswith(b"0000000 ")
    assert kept.endswith(line % 39_999)
    assert b"bytes of output are left out" in kept
    assert log.tail().splitlines()[-1].startswith("0039999 ")


@pytest.mark.parametrize("size", [worker_output.LOG_HEAD_BYTES, worker_output.LOG_HEAD_BYTES + 5])
def test_the_two_parts_of_a_log_join_without_a_gap(tmp_path: Path, size: int) -> None:
    log, output = WorkerLog(tmp_path / "log.txt"), os.urandom(size)
    log.add(output)
    log.close()
    assert (tmp_path / "log.txt").read_bytes() == output


def test_an_endless_line_is_cut_in_the_record(tmp_path: Path) -> None:
    log = WorkerLog(tmp_path / "log.txt")
    for _ in range(50):
        log.add(b"x" * 65536)
    log.close()
    assert len(log.tail()) == worker_output.LOG_LINE_CHARACTERS


def test_a_log_that_cannot_be_written_is_kept_in_memory(tmp_path: Path) -> None:
    log = WorkerLog(tmp_path / "missing" / "log.txt")
    log.add(b"said\n")
    log.close()
    assert log.tail() == "said"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_does_not_end_the_log(tmp_path: Path) -> None:
    log = WorkerLog(Path("/dev/full"))
    for _ in range(3):
        log.add(b"said\n")
    log.close()
    assert log.tail() == "said\nsaid\nsaid"


def test_control_characters_do_not_reach_a_record(tmp_path: Path) -> None:
    log = WorkerLog(tmp_path / "log.txt")
    log.add(b"\x1b[31mred\x07 \xff\n")
    log.close()
    assert log.tail() == "\\x1b[31mred\\x07 \ufffd"


def test_a_process_that_keeps_the_pipe_open_does_not_keep_the_reader() -> None:
    received: list[bytes] = []
    reader, writer = os.pipe()
    reading = Reader(reader, received.append)
    os.write(writer, b"the last words")
    reading.finish()
    assert b"".join(received) == b"the last words"
    assert not reading._thread.is_alive()
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"to nobody")
    os.close(writer)


def test_progress_lines_arrive_and_other_lines_are_ignored() -> None:
    seen: list[tuple[str, bool]] = []
    lines = ProgressLines(lambda text, keep: seen.append((text, keep)))
    stream = (
        b'{"text": "one", "keep": false}\n[]\nnull\n5\n"text"\n\xff\xfe\n{"text": 5, "keep": false}\n{"keep": true}\n'
        + b'{"text": "'
        + b"x" * (2 * worker_output.PROGRESS_BYTES)
        + b'", "keep": true}\n'
        + b"[" * 5000
        + b'\n{"text": "t\\u001b[2Jwo", "keep": true}\n{"text": "cut'
    )
    for start in range(0, len(stream), 1000):
        lines.add(stream[start : start + 1000])
    assert seen == [("one", False), ("t\\x1b[2Jwo", True)]


def test_permanent_lines_are_limited() -> None:
    kept: list[bool] = []
    lines = ProgressLines(lambda text, keep: kept.append(keep))
    for _ in range(1000):
        lines.add(b'{"text": "again", "keep": true}\n')
    assert len(kept) == 1000
    assert sum(kept) == worker_output.KEPT_LINES


def test_a_display_that_fails_does_not_end_the_reading() -> None:
    seen: list[str] = []

    def show(text: str, keep: bool) -> None:
        seen.append(text)
        raise BrokenPipeError

    lines = ProgressLines(show)
    lines.add(b'{"text": "one", "keep": false}\n{"text": "two", "keep": false}\n')
    assert seen == ["one", "two"]
