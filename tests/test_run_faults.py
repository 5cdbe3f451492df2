"""Faults outside the suite during a run: folders, permissions, users and signals. All cells use the null backend."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT, without_starts
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from backends.base import SourceForm
from suites import run
from suites.asking import request
from suites.cli.command_line import overrides
from suites.cli.local_settings import register
from suites.measuring.machine import cpu
from suites.records.record import OK, UNSUPPORTED
from suites.records.results_folder import read_records
from suites.running import pipeline, stages
from suites.running.job import Probed
from suites.running.launch import Answer, CannotStart
from suites.schema.refusals import Refused, check_record

QUICK = ("backend=null", "suite.seconds=0.02", "suite.warm_up_s=0.02", "suite.min_samples=3", "batch=[2]",
         "sequence=[16]")  # fmt: skip

Command = Callable[..., "tuple[int, str]"]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Run `python -m suites.run` in this process, without workers: each cell is unsupported. Return the status and
    the text on standard error."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    probed = Probed(outcome=UNSUPPORTED, reason="no worker here")
    monkeypatch.setattr(stages, "call", lambda *_: Answer(OK, "", probed, ""))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")

    def started(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["suites/run.py", *QUICK, *arguments])
        status = run.main()
        return status, "\n".join(without_starts(capsys.readouterr().err))

    yield started
    for number, handler in handlers.items():
        signal.signal(number, handler)


def resolved(*arguments: str, backend: str = "null") -> request.Request:
    words = overrides([f"backend={backend}", *QUICK[1:], *arguments])
    register()
    with initialize_config_dir(str(ROOT / "suites" / "conf"), version_base="1.3"):
        return request.resolve(OmegaConf.to_object(compose("run", words)))  # type: ignore[arg-type]


def folders(tmp_path: Path) -> list[str]:
    return [f"results={tmp_path / 'results'}", f"cache={tmp_path / 'cache'}"]


@pytest.mark.parametrize("sweep", [(), ("-m", "null.step_ms=1,2")])
def test_a_cache_that_cannot_be_written_is_refused_before_anything_is_written(
    tmp_path: Path, command: Command, sweep: tuple[str, ...]
) -> None:
    (tmp_path / "file").touch()
    status, error = command(*sweep, f"results={tmp_path / 'results'}", f"cache={tmp_path / 'file'}")
    assert status == 2
    (line,) = error.splitlines()
    assert line.startswith("refused: 2 cells: cache=" if sweep else "refused: cache=")
    assert "cannot be written" in line
    assert not list(ROOT.glob("multirun.yaml"))


def test_a_cache_that_fails_during_a_sweep_costs_only_one_cell(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is replaced by a file before the second of three cells."""
    cache, begun = tmp_path / "cache", []
    writable = request.user_cache

    def failing(path: str) -> Path:
        begun.append(path)
        if len(begun) == 2:
            shutil.rmtree(cache)
            cache.touch()
        if len(begun) == 3:
            cache.unlink()
        return writable(path)

    monkeypatch.setattr(request, "user_cache", failing)
    status, error = command("-m", "null.step_ms=1,2,3", *folders(tmp_path))
    assert status == 2
    assert sorted(line.split()[0] for line in error.splitlines()) == ["refused:", "unsupported", "unsupported"]
    assert len(list(read_records(tmp_path / "results", "latency"))) == 2


def test_sweeps_leave_one_folder_in_the_temporary_folder(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "it's a folder").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "it's a folder"))
    for _ in range(2):
        assert command("-m", "null.step_ms=1,2", *folders(tmp_path))[0] == 0
    (folder,) = (tmp_path / "it's a folder").iterdir()
    assert [path.name for path in folder.iterdir()] == ["multirun.yaml"]
    # The suite does not write through a symbolic link that another user may have made.
    shutil.rmtree(folder)
    folder.symlink_to(tmp_path)
    assert command("-m", "null.step_ms=1,2", *folders(tmp_path))[0] == 0
    assert not (tmp_path / "multirun.yaml").exists()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    status, error = command("-m", "null.step_ms=1,2", *folders(tmp_path))
    assert status == 2
    assert error.startswith("refused: a sweep needs a writable temporary folder")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda machine: machine.touch(), "no record can be written in"),
        (lambda machine: (machine.mkdir(), (machine / "records").touch()), "no record can be written in"),
        (lambda machine: (machine.mkdir(), (machine / "tables").touch()), "tables is not a folder"),
    ],
)
def test_a_file_in_place_of_a_results_folder_is_refused_before_the_measurement(
    tmp_path: Path, command: Command, spoil: Callable[[Path], None], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "results").mkdir()
    spoil(tmp_path / "results" / cpu().slug)
    monkeypatch.setattr(pipeline, "prepare", lambda *_: pytest.fail("it was measured"))
    probed = Probed(form=SourceForm())
    monkeypatch.setattr(stages, "call", lambda *_: Answer(OK, "", probed, ""))
    status, error = command(*folders(tmp_path))
    assert status == 2
    assert says in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("kind", [Path.mkdir, os.mkfifo])
def test_a_record_path_that_is_not_a_file_is_refused(tmp_path: Path, kind: Callable[[Path], None]) -> None:
    path = tmp_path / "m" / "records" / "latency" / "cell.json"
    path.parent.mkdir(parents=True)
    kind(path)
    with pytest.raises(Refused, match=r"cell\.json is not a file; move it away"):
        check_record(tmp_path, path)


def test_a_name_too_long_for_a_file_is_refused_and_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"set a shorter model\.name="):
        check_record(tmp_path, tmp_path / "records" / f"{'x' * 260}.json")
    check_record(tmp_path, tmp_path / "records" / f"{'x' * 200}.json")
    assert not list((tmp_path / "records").iterdir())


def test_more_threads_than_cpus_are_refused_with_the_numbers(tmp_path: Path) -> None:
    available = len(os.sched_getaffinity(0))
    with pytest.raises(Refused, match=f"threads=100000 is more than the {available} CPUs of this machine"):
        resolved("threads=100000", *folders(tmp_path))
    with pytest.raises(Refused, match="threads=-1 must be at least 0"):
        resolved("threads=-1", *folders(tmp_path))
    assert resolved(f"threads={available}", *folders(tmp_path)).spec.threads == available


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_model_that_cannot_be_read_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, opened = tmp_path / "model", Path.open
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "bert"}')
    (model / "model.safetensors").write_text("weights")

    def denied(path: Path, *arguments: object, **options: object) -> object:
        if path == model / name:  # root can read everything
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(Refused, match=rf"model.path=.*: {name} cannot be read: Permission denied; change"):
        resolved(f"model.path={model}", *folders(tmp_path), backend="torch_eager")


def test_an_interpreter_that_cannot_start_is_refused(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Answer[Probed]:
        raise CannotStart("/x/python cannot be started: Exec format error")

    monkeypatch.setattr(stages, "call", broken)
    status, error = command(*folders(tmp_path))
    assert status == 2
    assert error.startswith("refused: /x/python cannot be started: Exec format error; interpreter.main")
    assert not list((tmp_path / "cache" / "jobs").glob("*-*"))


def test_partial_artifacts_of_a_killed_worker_are_removed(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This applies after a time limit and after an interrupt, and to partial artifacts of an earlier run that was
    killed."""
    partial = tmp_path / "cache" / "onnx" / f".{'0' * 24}.abcdef"

    def killed(*_: object) -> Answer[Probed]:
        assert not partial.exists()
        partial.mkdir(parents=True)
        (partial / "model.onnx").write_text("half")
        return Answer("timeout", "export was stopped after 1 s", None, "")

    monkeypatch.setattr(stages, "call", killed)
    assert command(*folders(tmp_path))[0] == 1
    assert not partial.exists()

    def interrupted(*_: object) -> Answer[Probed]:
        killed()
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "call", interrupted)
    partial.mkdir()
    assert command(*folders(tmp_path))[0] == 130
    assert not partial.exists()
    assert (
        len(list((tmp_path / "cache" / "jobs").glob("*-*"))) == 1
    )  # the job folder of the time limit, kept for its log


def test_a_user_without_home_and_name_gets_a_record(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    probed = Probed(outcome="failed", reason="broken")
    monkeypatch.setattr(stages, "call", lambda *_: Answer(OK, "", probed, "the log"))
    status, error = command(*folders(tmp_path))
    assert (status, error.split()[0]) == (1, "failed")
    (record,) = read_records(tmp_path / "results", "latency")
    assert record.log_tail == "the log"


def test_waiting_for_the_device_is_reported_without_a_terminal(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Waited:
        def __init__(self, device: str, on_wait: Callable[[], None], shared: bool) -> None:
            on_wait()

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    probed = Probed(form=SourceForm())
    monkeypatch.setattr(stages, "call", lambda *_: Answer(OK, "", probed, ""))
    monkeypatch.setattr(pipeline, "lock_device", Waited)
    monkeypatch.setattr(pipeline, "prepare", lambda *_: stages.StageResult(UNSUPPORTED, "no"))
    _, error = command(*folders(tmp_path))
    assert "wait: for the device, which another run uses" in error.splitlines()[0]


def test_a_shared_folder_has_one_cache_per_user_and_one_note(tmp_path: Path, command: Command) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    status, error = command("-m", "null.step_ms=1,2", *folders(tmp_path))
    assert status == 0
    assert error.count(f"other users can write {tmp_path / 'cache'}; using uid-{os.geteuid()} in it") == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"uid-{os.geteuid()}"]


def processes(tmp_path: Path) -> list[str]:
    """Return the command lines of running processes that name the test's folder."""
    lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout.splitlines()
    return [line for line in lines if str(tmp_path) in line]


def wait_until(holds: Callable[[], object]) -> None:
    while not holds():  # the time limit of the test ends this loop
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_a_batch_that_is_killed_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    """This includes its runs and their workers."""
    file = tmp_path / "cells.txt"
    file.write_text("backend=null null.behaviour=hang\n")
    command = [sys.executable, "-m", "suites.batch", str(file), "--builders", "0", *QUICK[1:], *folders(tmp_path)]
    command.append("time_limit=600")
    # A shell that runs the tests in the background may make child processes ignore these signals.
    heeded = functools.partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=ROOT, preexec_fn=heeded, **quiet) as process:  # noqa: PLW1509
        wait_until(lambda: list((tmp_path / "cache").rglob("measure/log.txt")))
        process.send_signal(number)
    wait_until(lambda: not processes(tmp_path))
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    assert not list((tmp_path / "results").rglob("*.json"))
    # A run that was interrupted removes its files; the files of a killed run are removed by the next run.
    if number == signal.SIGHUP:
        assert not list((tmp_path / "cache" / "jobs").glob("*-*"))
