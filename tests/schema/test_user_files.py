"""The user's files that cannot be read or have the wrong content give one line that names the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import without_rights

from suites import advise, batch
from suites.asking.resolve_lengths import resolve_lengths
from suites.schema.config import RunConfig, TaskConfig
from suites.schema.enums import TaskKind
from suites.schema.refusals import Refused, first_line, lines, numbered_lines
from suites.switching.traffic import read_trace
from suites.tasks.task import load_task


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """Return a file without any read permission."""
    file = tmp_path / "locked.csv"
    file.write_text("text,label\na,b\n")
    file.chmod(0)
    return file


def test_files_without_permission_are_named(locked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = RunConfig()
    config.lengths.distribution = type(config.lengths.distribution).file
    config.lengths.path = str(locked)
    text = locked.with_suffix(".txt")
    text.symlink_to(locked)
    tasks = [
        TaskConfig("mine", TaskKind.sequence_classification, str(locked)),
        TaskConfig("mine", TaskKind.question_answering, str(locked)),
        TaskConfig("mine", TaskKind.fidelity, str(text)),
    ]
    with without_rights():
        for read in (
            lambda: resolve_lengths(config),
            lambda: lines("task.calibration", str(locked)),
            lambda: read_trace(str(locked)),
            *(lambda task=task: load_task(task) for task in tasks),
        ):
            with pytest.raises(Refused, match="cannot be read: Permission denied") as refused:
                read()
            assert str(locked.with_suffix("")) in str(refused.value)
        assert batch.main([str(locked)]) == 2
        assert advise.main([str(locked)]) == 2
    error = capsys.readouterr().err
    assert error.count("Permission denied") == error.count("\n") == 2


def test_a_folder_of_a_task_without_permission_is_named(tmp_path: Path) -> None:
    (tmp_path / "sts-test.csv").write_text("x")
    (tmp_path / "sts-test.csv").chmod(0)
    tmp_path.chmod(0o700)
    with without_rights(), pytest.raises(Refused, match="cannot be read: Permission denied"):
        load_task(TaskConfig("stsb", TaskKind.stsb, str(tmp_path)))


def test_a_long_line_is_quoted_in_part(tmp_path: Path) -> None:
    file = tmp_path / "long.txt"
    file.write_text("7" * 1_000_000)
    config = RunConfig()
    config.lengths.distribution, config.lengths.path = type(config.lengths.distribution).file, str(file)
    for read in (lambda: resolve_lengths(config), lambda: read_trace(str(file))):
        with pytest.raises(Refused) as refused:
            read()
        assert len(str(refused.value)) < 500


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "/dev/null/x"])
def test_an_impossible_file_name_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="is not a file"):
        numbered_lines("lengths.path", name)
    with pytest.raises(Refused):
        load_task(TaskConfig("mine", TaskKind.sequence_classification, name))


def test_lines_end_only_at_line_breaks(tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    file.write_bytes("\ufeffone\r\n\r\ntwo\u2028still two\rthree\n".encode())
    assert numbered_lines("task.path", str(file)) == [(1, "one"), (3, "two\u2028still two"), (4, "three")]


def test_too_deeply_nested_questions_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "dev.json"
    file.write_text('{"data": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(Refused, match=r"dev\.json"):
        load_task(TaskConfig("mine", TaskKind.question_answering, str(file)))


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_a_reason_is_never_empty() -> None:
    assert first_line(raised(ValueError("\n\n  what is wrong\nmore"))) == "ValueError: what is wrong"
    assert first_line(raised(ValueError("Error for field 'eps':\n    TypeError: a text"))) == (
        "ValueError: Error for field 'eps': TypeError: a text"
    )
    said = first_line(raised(AssertionError()))
    assert said.startswith("AssertionError at test_user_files.py:")
    assert said.endswith("without a message")
    assert first_line(MemoryError()) == "MemoryError, without a message"
