"""The worker contract on the parent's side: each possible end of a worker has its own outcome."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import wait_until

from backends.base import BuildSpec, Device
from backends.json_codec import to_json
from backends.null_.null_options import NullOptions
from suites import worker
from suites.root import ROOT
from suites.running import launch
from suites.running.job import Probed, ProbeJob
from suites.running.launch import Answer, CannotStart, CannotWrite, Interpreter, call

HERE = Interpreter(sys.executable)
JOB = ProbeJob("null", BuildSpec("fp32", Device(), (), False, Path("cache"), NullOptions()))
"""A job for workers that do not read it."""


def fake_python(folder: Path, body: str) -> Interpreter:
    """Return an "interpreter" that runs `body` instead of the worker; the job folder is sys.argv[4]."""
    script = folder / "fake-python"
    script.write_text(f"#!{sys.executable}\nimport os, sys, time\nfrom pathlib import Path\n" + textwrap.dedent(body))
    script.chmod(0o755)
    return Interpreter(str(script))


def run(python: Interpreter, tmp_path: Path, job: ProbeJob = JOB, limit: float = 1000) -> Answer[Probed]:
    return call(job, tmp_path / "job", python, limit, lambda text, keep: None)


def launcher(python: str, tmp_path: Path) -> str:
    """Return code that runs JOB in the interpreter `python`."""
    return f"""
import signal
from pathlib import Path
from backends.json_codec import from_json
from suites.running.job import ProbeJob
from suites.running.launch import Interpreter, call
signal.signal(signal.SIGINT, signal.default_int_handler)
job = from_json(ProbeJob, {to_json(JOB)!r})
call(job, Path({str(tmp_path / "job")!r}), Interpreter({python!r}), 600, lambda text, keep: None)
"""


def wait_for_pids(process: subprocess.Popen[bytes], file: Path, count: int) -> None:
    """Wait until `file` has `count` process ids. Fail if the process ends before."""
    wait_until(lambda: process.poll() is not None or (file.exists() and len(file.read_text().split()) == count))
    assert process.poll() is None


def write_job(folder: Path, job: ProbeJob) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "job.json").write_text(json.dumps(to_json(job)))


def test_a_stage_returns_its_answer(null_job: ProbeJob, tmp_path: Path) -> None:
    answer = run(HERE, tmp_path, null_job)
    assert (answer.outcome, answer.reason) == ("ok", "")
    assert answer.result is not None
    assert answer.result.release.startswith("numpy ")


def test_a_worker_of_an_installed_copy_does_not_import_its_neighbouring_packages(
    null_job: ProbeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those packages may belong to another interpreter than the worker's. The worker must import its own."""
    site = tmp_path / "site-packages"
    (site / "inference_suites-1.0.dist-info").mkdir(parents=True)
    (site / "numpy.py").write_text("raise ImportError('built for another Python')")
    for name in ("suites", "backends"):
        (site / name).symlink_to(ROOT / name)
    monkeypatch.setattr(launch, "ROOT", site)
    for _ in range(2):
        assert run(HERE, tmp_path, null_job).outcome == "ok"


def test_an_exception_in_a_stage_is_its_reason_and_its_traceback_is_in_the_log(
    null_job: ProbeJob, tmp_path: Path
) -> None:
    answer = run(HERE, tmp_path, replace(null_job, backend="no-such"))
    assert answer.outcome == "failed"
    assert answer.reason.startswith(
        "Refused: there is no backend=no-such; choices: faster_transformer, null, openvino, ort, "
    )
    assert "Traceback" in answer.log_tail


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("os._exit(0)", "exited with status 0 without an answer"),
        ("os._exit(3)", "exited with status 3 without an answer"),
        ("os.kill(os.getpid(), 11)", "killed by SIGSEGV without an answer"),
        ("Path(sys.argv[4], 'out.json').write_text('garbage')", "wrote an answer that cannot be read"),
        ("Path(sys.argv[4], 'out.json').write_text('[]')", "wrote an answer that cannot be read"),
        (
            """Path(sys.argv[4], 'out.json').write_text('{"outcome":"fine","reason":"","result":{}}')""",
            "the outcome 'fine' is unknown",
        ),
        (
            """Path(sys.argv[4], 'out.json').write_text('{"outcome":"ok","reason":"","result":{"versoin":{}}}')""",
            "wrote an answer that cannot be read: result.versoin is unknown",
        ),
        (
            """Path(sys.argv[4], 'out.json').write_text('{"outcome":"ok","reason":"","result":{"release":1}}')""",
            "wrote an answer that cannot be read: result.release must be of type str, not int",
        ),
    ],
)
def test_an_invalid_answer_is_a_failure(body: str, reason: str, tmp_path: Path) -> None:
    answer = run(fake_python(tmp_path, body), tmp_path)
    assert answer.outcome == "failed"
    assert reason in answer.reason


def test_an_answer_of_an_earlier_run_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "out.json").write_text('{"outcome":"ok","reason":"","result":{}}')
    assert run(fake_python(tmp_path, "os._exit(0)"), tmp_path).outcome == "failed"


@pytest.mark.parametrize("handler", ["SIG_IGN", "SIG_DFL"])
def test_a_time_limit_ends_the_whole_process_group(tmp_path: Path, handler: str) -> None:
    body = """
        import signal, subprocess
        signal.signal(signal.SIGTERM, getattr(signal, HANDLER))
        child = subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 3600"])
        Path(sys.argv[4], "child").write_text(f"{child.pid}.")
        time.sleep(3600)
    """.replace("HANDLER", repr(handler))
    noted = tmp_path / "job" / "child"
    for limit in (1, 10, 100):
        answer = run(fake_python(tmp_path, body), tmp_path, limit=limit)
        assert (answer.outcome, answer.reason) == ("timeout", f"probe was stopped after {limit} s")
        if noted.exists() and noted.read_text().endswith("."):
            break  # otherwise the machine was too busy to start the processes within the limit
    child = noted.read_text().rstrip(".")

    def state() -> str:
        return subprocess.run(["ps", "-o", "stat=", "-p", child], capture_output=True, text=True).stdout.strip()

    wait_until(lambda: state()[:1] in ("", "Z"))  # a zombie of a process with low priority is "ZN"


def test_progress_arrives_while_the_stage_runs(tmp_path: Path) -> None:
    body = """
        lines = b'{"text": "half", "keep": false}\\nnoise\\n{"text": "x", "keep": true}\\n'
        os.write(int(os.environ["SUITES_PROGRESS_FD"]), lines)
    """
    seen: list[tuple[str, bool]] = []
    call(JOB, tmp_path / "job", fake_python(tmp_path, body), 1000, lambda text, keep: seen.append((text, keep)))
    assert seen == [("half", False), ("x", True)]


def test_a_worker_that_cannot_write_is_no_failed_cell(tmp_path: Path) -> None:
    body = "print('OSError: [Errno 28] No space left on device', flush=True); os._exit(74)"
    with pytest.raises(CannotWrite, match="No space left"):
        run(fake_python(tmp_path, body), tmp_path)


def test_endless_output_uses_little_disk_and_memory(tmp_path: Path) -> None:
    body = """
        block = b"noise " * 10000 + b"\\n"
        for _ in range(1000):
            os.write(1, block)
        os.write(2, b"the end\\n")
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = run(fake_python(tmp_path, body), tmp_path, limit=120)
    assert answer.reason == "probe exited with status 0 without an answer: the end"
    assert len(answer.log_tail) < 20_000
    assert (tmp_path / "job" / "log.txt").stat().st_size < 1_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # kB, of 60 MB of output


def alive(tmp_path: Path, count: int = 1) -> list[int]:
    """Return those processes that still run, of the ids that workers wrote to `tmp_path`/pids."""
    found = []
    for line in (tmp_path / "pids").read_text().split():
        state = subprocess.run(["ps", "-o", "stat=", "-p", line], capture_output=True, text=True).stdout.strip()
        if state and not state.startswith("Z"):
            found.append(int(line))
    assert len((tmp_path / "pids").read_text().split()) == count
    return found


DAEMON = """
    import subprocess
    child = subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 600; true"], start_new_session=True)
    with open(PIDS, "a") as pids:
        pids.write(f"{child.pid}\\n")
"""


def test_a_child_outside_the_group_that_keeps_the_log_open_ends_with_the_worker(tmp_path: Path) -> None:
    body = DAEMON.replace("PIDS", repr(str(tmp_path / "pids")))
    answer = run(fake_python(tmp_path, body), tmp_path, limit=60)
    assert answer.reason == "probe exited with status 0 without an answer"
    wait_until(lambda: not alive(tmp_path))


@pytest.mark.parametrize("text", ["[]", "5", "null", "\\xff\\xfe", '{"text": 1, "keep": 2}'])
def test_an_invalid_progress_line_does_not_end_the_worker(tmp_path: Path, text: str) -> None:
    body = f"""
        line = b'{text}' + b'\\n'
        for _ in range(100_000):
            os.write(int(os.environ["SUITES_PROGRESS_FD"]), line)
        Path(sys.argv[4], 'out.json').write_text('{{"outcome":"ok","reason":"","result":{{}}}}')
    """
    assert run(fake_python(tmp_path, body), tmp_path, limit=60).outcome == "ok"


def test_a_worker_continues_if_nobody_reads_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setenv("SUITES_PROGRESS_FD", str(writer))
    worker._progress("half")
    os.close(writer)
    worker._progress("nor when the pipe is gone")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"just text\n", "neither a program of this machine nor a script"),
        (b"\x7fELF broken", "neither a program of this machine nor a script"),
        (b"", "neither a program of this machine nor a script"),
        (b"#!/no/such/program\n", "the program that its first line names is missing"),
    ],
)
def test_a_file_that_is_not_an_interpreter_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "python").write_bytes(content)
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(CannotStart, match=says):
        run(Interpreter(str(tmp_path / "python")), tmp_path)


def test_a_second_interrupt_still_ends_the_group(tmp_path: Path) -> None:
    body = """
        import signal, subprocess
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 600; true"])
        Path(PIDS).write_text(f"{os.getpid()} {child.pid}")
        time.sleep(600)
    """.replace("PIDS", repr(str(tmp_path / "pids")))
    code = launcher(fake_python(tmp_path, body).python, tmp_path)
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        wait_for_pids(process, tmp_path / "pids", 2)
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)
    wait_until(lambda: not alive(tmp_path, 2))


def test_a_launcher_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    """This includes a script that does not exec its Python, and children of the worker in their own sessions."""
    python, pids = tmp_path / "script", tmp_path / "pids"
    body = DAEMON.replace("PIDS", repr(str(pids)))
    body += f"""
    with open({str(pids)!r}, "a") as own:
        own.write(f"{{os.getpid()}}\\n{{os.getppid()}}\\n")
    time.sleep(600)
    """
    python.write_text(f'#!/bin/sh\n{fake_python(tmp_path, body).python} "$@"\ntrue\n')
    python.chmod(0o755)
    with subprocess.Popen([sys.executable, "-c", launcher(str(python), tmp_path)], cwd=ROOT) as process:
        wait_for_pids(process, pids, 3)
        assert len(alive(tmp_path, 3)) == 3
        process.kill()
    wait_until(lambda: not alive(tmp_path, 3))


def test_a_cache_that_is_removed_during_a_cell_fails_it_with_that_reason(tmp_path: Path) -> None:
    body = "import shutil; os.chdir('/'); shutil.rmtree(sys.argv[4])"
    answer = run(fake_python(tmp_path, body), tmp_path)
    assert (answer.outcome, answer.reason) == (
        "failed", "probe exited with status 0: its folder in cache= was removed meanwhile"
    )  # fmt: skip


def test_temporary_files_of_a_worker_are_removed(tmp_path: Path) -> None:
    body = "import tempfile; Path(tempfile.mkdtemp(), 'big').write_text('x'); os.kill(os.getpid(), 9)"
    assert "SIGKILL" in run(fake_python(tmp_path, body), tmp_path).reason
    assert sorted(path.name for path in (tmp_path / "job").iterdir()) == ["job.json", "log.txt"]


def test_a_full_disk_does_not_count_as_a_failed_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CannotWrite, match="No space left on device"):
        run(fake_python(tmp_path, "os._exit(1)"), tmp_path)


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EROFS"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_the_worker_recognizes_a_full_disk(
    name: str, wrapped: bool, null_job: ProbeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = getattr(errno, name)

    def stage(job: ProbeJob) -> Probed:
        if wrapped:  # as libraries in other languages do it
            raise RuntimeError(f"cannot save: {os.strerror(number)} (os error {number})")
        raise OSError(number, os.strerror(number), "/elsewhere")

    monkeypatch.setitem(worker.STAGES, "probe", stage)
    write_job(tmp_path, null_job)
    assert worker.main("probe", tmp_path) == os.EX_IOERR
    assert not (tmp_path / "out.json").exists()


def test_an_answer_that_cannot_be_written_is_a_full_disk(
    null_job: ProbeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(worker, "write_atomically", full)
    monkeypatch.setitem(worker.STAGES, "probe", lambda job: Probed())
    write_job(tmp_path, null_job)
    assert worker.main("probe", tmp_path) == os.EX_IOERR


@pytest.mark.parametrize("write", ["mkdir", "write_text"])
def test_no_worker_starts_if_the_job_cannot_be_written(
    write: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    python = fake_python(tmp_path, "Path(sys.argv[4], 'ran').touch()")
    monkeypatch.setattr(Path, write, full)
    with pytest.raises(OSError, match="No space left on device"):
        run(python, tmp_path)
    assert not (tmp_path / "job" / "ran").exists()


def test_a_log_that_cannot_be_written_is_no_failure(
    null_job: ProbeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stderr", Full())
    write_job(tmp_path, replace(null_job, backend="no-such"))
    assert worker.main("probe", tmp_path) == 0
    assert "no-such" in (tmp_path / "out.json").read_text()


@pytest.mark.parametrize(
    ("file", "status"), [("/models/tokenizer.json", 0), ("cache/x", os.EX_IOERR), ("job/x", os.EX_IOERR)]
)
def test_an_unreadable_file_of_the_user_is_not_reported_as_a_full_disk(
    file: str, status: int, null_job: ProbeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stage(job: ProbeJob) -> Probed:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / file))

    monkeypatch.setitem(worker.STAGES, "probe", stage)
    write_job(tmp_path / "job", null_job)
    assert worker.main("probe", tmp_path / "job") == status
    if status == 0:
        assert "tokenizer.json" in (tmp_path / "job" / "out.json").read_text()
