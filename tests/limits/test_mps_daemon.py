"""The MPS daemon that limits a process, simulated by a script with the commands of nvidia-cuda-mps-control."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from backends import mps_daemon
from backends.base import BuildSpec, Device, Shape, Unavailable
from backends.compute_share import ComputeShare
from backends.ort_.description import OrtOptions
from backends.ort_.ort import OnnxRuntime

Install = Callable[[str], None]

DAEMON = """\
#!/bin/sh
[ "$CUDA_MPS_LOG_DIRECTORY" = "$CUDA_MPS_PIPE_DIRECTORY" ] || exit 3
if [ "$1" = -d ]; then
    [ -z "$CUDA_MPS_ACTIVE_THREAD_PERCENTAGE" ] || exit 5
    {start}
    exit 0
fi
read command
[ "$command" = get_server_list ] || exit 4
cat "$CUDA_MPS_PIPE_DIRECTORY/servers"
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a daemon that runs a command of the shell at its start."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv(mps_daemon.PERCENTAGE, raising=False)

    def write(start: str) -> None:
        script = tmp_path / mps_daemon.TOOL
        script.write_text(DAEMON.replace("{start}", start), encoding="utf-8")
        script.chmod(0o755)

    return write


@pytest.mark.parametrize(("share", "percentage"), [(0.1, "10"), (0.125, "12.5"), (1.0, "100")])
def test_a_process_has_the_percentage_while_the_daemon_serves_it(
    install: Install, share: float, percentage: str
) -> None:
    install('echo 1234 > "$CUDA_MPS_PIPE_DIRECTORY/servers"')
    with mps_daemon.limited_process(share) as given:
        assert os.environ[mps_daemon.PERCENTAGE] == percentage
        assert (Path(os.environ[mps_daemon.PIPES]) / "servers").read_text(encoding="utf-8") == "1234\n"
        assert given == ComputeShare(0, 0)
    assert mps_daemon.PERCENTAGE not in os.environ


def test_a_variable_of_the_user_is_restored(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install('echo 1234 > "$CUDA_MPS_PIPE_DIRECTORY/servers"')
    monkeypatch.setenv(mps_daemon.PERCENTAGE, "70")
    with mps_daemon.limited_process(0.5):
        assert os.environ[mps_daemon.PERCENTAGE] == "50"
    assert os.environ[mps_daemon.PERCENTAGE] == "70"


def test_child_processes_share_the_daemon_of_their_parent(install: Install) -> None:
    """The simulated daemon writes a line at each start."""
    install('echo 1234 >> "$CUDA_MPS_PIPE_DIRECTORY/servers"')
    with mps_daemon.limited_process(None) as given:
        assert given == ComputeShare(0, 0)
        assert mps_daemon.PERCENTAGE not in os.environ
        folder = os.environ[mps_daemon.PIPES]
        for share in (0.25, 1.0):
            with mps_daemon.limited_process(share):
                assert os.environ[mps_daemon.PIPES] == folder
                assert os.environ[mps_daemon.PERCENTAGE] == f"{100 * share:g}"
        assert (Path(folder) / "servers").read_text(encoding="utf-8") == "1234\n"
    assert mps_daemon.STARTED not in os.environ


@pytest.mark.parametrize("long", [False, True])
def test_the_folder_of_the_daemon_has_a_short_path(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: bool
) -> None:
    parent = tmp_path / ("x" * 80 if long else "x")
    parent.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(parent))
    monkeypatch.setattr(mps_daemon, "LONGEST_FOLDER", len(str(tmp_path)) + 40)
    install('echo 1234 > "$CUDA_MPS_PIPE_DIRECTORY/servers"')
    with mps_daemon.limited_process(0.5):
        folder = Path(os.environ[mps_daemon.PIPES])
        assert folder.parent == (Path("/tmp") if long else parent)
    assert not folder.exists()


def test_a_process_that_the_daemon_did_not_serve_is_unavailable(install: Install) -> None:
    install(': > "$CUDA_MPS_PIPE_DIRECTORY/servers"')
    with pytest.raises(Unavailable, match="started no server for this process"), mps_daemon.limited_process(0.5):
        pass


@pytest.mark.parametrize(
    ("start", "reason"),
    [("echo first; echo Permission denied >&2; exit 1", "Permission denied"), ("exit 7", "status 7")],
)
def test_a_daemon_that_may_not_start_is_unavailable(install: Install, start: str, reason: str) -> None:
    install(start)
    expected = f"the MPS daemon could not be started: {reason}; use limits.method=green"
    with pytest.raises(Unavailable, match=f"^{expected}$"), mps_daemon.limited_process(0.5):
        pytest.fail("the work started")
    assert mps_daemon.PERCENTAGE not in os.environ


def test_without_the_tool_the_message_says_where_it_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    spec = BuildSpec("fp32", Device("cuda", 0), (Shape(1, 16),), True, tmp_path, OrtOptions())
    with (
        pytest.raises(Unavailable, match="nvidia-cuda-mps-control is not installed; install it with the NVIDIA driver"),
        OnnxRuntime().limit_process(spec, 0.5),
    ):
        pytest.fail("the work started")
