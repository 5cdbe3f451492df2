"""The worker contract from the parent's side: each way to end is an outcome of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_until

from suites import launch
from suites.launch import Answer, CannotWrite, Interpreter, call, holding

HERE = Interpreter(sys.executable)


def fake_python(folder: Path, body: str) -> Interpreter:
    """An "interpreter" that runs `body` in the worker's place; the job folder is sys.argv[4]."""
    script = folder / "fake-python"
    script.write_text(f"#!{sys.executable}\nimport os, sys, time\nfrom pathlib import Path\n" + textwrap.dedent(body))
    script.chmod(0o755)
    return Interpreter(str(script))


def run(python: Interpreter, tmp_path: Path, job: dict[str, Any] | None = None, limit: float = 1000) -> Answer:
    return call("probe", job or {}, tmp_path / "job", python, limit, lambda text, keep: None)


def test_a_stage_answers(null_job: dict[str, Any], tmp_path: Path) -> None:
    answer = run(HERE, tmp_path, null_job)
    assert (answer.outcome, answer.reason) == ("ok", "")
    assert answer.result["release"].startswith("numpy ")


def test_an_exception_in_a_stage_is_its_reason_and_its_traceback_is_in_the_log(tmp_path: Path) -> None:
    answer = run(HERE, tmp_path, {"backend": "no-such"})
    assert (answer.outcome, answer.reason) == ("failed", "KeyError: 'no-such'")
    assert "Traceback" in answer.log_tail


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("os._exit(0)", "exited with status 0 without an answer"),
        ("os._exit(3)", "exited with status 3 without an answer"),
        ("os.kill(os.getpid(), 11)", "killed by SIGSEGV without an answer"),
        ("Path(sys.argv[4], 'out.json').write_text('garbage')", "something that is no answer"),
        ("Path(sys.argv[4], 'out.json').write_text('[]')", "something that is no answer"),
        (
            """Path(sys.argv[4], 'out.json').write_text('{"outcome":"fine","reason":"","result":1}')""",
            "the unknown outcome 'fine'",
        ),
    ],
)
def test_what_is_no_answer_is_a_failure(body: str, reason: str, tmp_path: Path) -> None:
    answer = run(fake_python(tmp_path, body), tmp_path)
    assert answer.outcome == "failed"
    assert reason in answer.reason


def test_an_answer_left_by_an_earlier_run_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "out.json").write_text('{"outcome":"ok","reason":"","result":1}')
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
            break  # otherwise this machine was too busy to start the processes within the limit
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
    call("probe", {}, tmp_path / "job", fake_python(tmp_path, body), 1000, lambda *said: seen.append(said))
    assert seen == [("half", False), ("x", True)]


def test_a_worker_that_cannot_write_is_no_failed_cell(tmp_path: Path) -> None:
    body = "print('OSError: [Errno 28] No space left on device', flush=True); os._exit(74)"
    with pytest.raises(CannotWrite, match="No space left"):
        run(fake_python(tmp_path, body), tmp_path)


@pytest.mark.parametrize("builders", [False, True])
def test_who_measures_is_alone_on_a_device_and_builders_share_it(builders: bool) -> None:
    device, sharing = f"test-{os.getpid()}-{builders}", f", shared={builders}"
    holder = (
        "import sys; from suites.launch import holding\n"
        f"with holding('{device}', lambda: None{sharing}): print('held', flush=True); sys.stdin.read()"
    )
    command, pipe = [sys.executable, "-c", holder], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=launch.ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        if builders:
            with holding(device, lambda: pytest.fail("a builder waited for another"), shared=True):
                pass
        released: list[bool] = []

        def release() -> None:
            released.append(True)
            process.stdin.close()

        with holding(device, release):
            assert released == [True]
            process.wait()
