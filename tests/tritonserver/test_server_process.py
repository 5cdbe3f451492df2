"""A server process: found or not, ready or not, ended with its children. Small programs stand in for tritonserver."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import command_lines_with, wait_until

from backends.base import Unavailable
from suites.tritonserver.server_process import (
    Program,
    ServerFailed,
    find_program,
    free_address,
    running_server,
    url_host,
)

READY = """
import http.server, subprocess, sys
port = int(next(word for word in sys.argv if word.startswith("--http-port=")).partition("=")[2])
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)", "{mark}"])

class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

print("E1127 10:00:00.0 1 model.cc:1] \\"the disk is gone\\"", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", port), Health).serve_forever()
"""
"""Program that is ready at once and has a child process."""

Start = Callable[..., Program]


@pytest.fixture
def program(tmp_path: Path) -> Start:
    """Return a program that runs Python code."""

    def make(code: str) -> Program:
        (tmp_path / "server.py").write_text(code, encoding="utf-8")
        return Program((sys.executable, str(tmp_path / "server.py")))

    return make


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "repository").mkdir()
    return tmp_path / "repository"


def silent(text: str) -> None:
    pass


def test_a_server_that_does_not_start_fails_with_its_log(
    program: Start, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = [
        'I1127 19:12:23.6 1 model_lifecycle.cc:472] "loading: m:1"',
        "E1127 19:12:23.7 1 model_lifecycle.cc:642] \"failed to load 'm' version 1: Internal: ModuleNotFoundError: "
        "No module named 'onnxruntime'\\n\\nAt:\\n  model.py(14): <module>\"",
        "error: creating server: Internal - failed to load all models",
    ]
    failing = program(f"print({chr(10).join(log)!r}); raise SystemExit(1)")
    with (
        pytest.raises(ServerFailed) as raised,
        running_server(failing, repository, free_address("127.0.0.1", 0, 0), 60, silent),
    ):
        pass
    reason = "failed to load 'm' version 1: Internal: ModuleNotFoundError: No module named 'onnxruntime'"
    assert str(raised.value) == f"tritonserver did not start: {reason}"
    assert capsys.readouterr().err.splitlines() == ["last lines of tritonserver's log:", *log]


def test_a_server_that_is_never_ready_is_ended(program: Start, repository: Path) -> None:
    mark = f"{repository}-slow"
    slow = program(f"import time; print('loading', flush=True); time.sleep(1000)  # {mark}")
    with (
        pytest.raises(ServerFailed, match="was not ready after 1 s"),
        running_server(Program((*slow.arguments, mark)), repository, free_address("127.0.0.1", 0, 0), 1, silent),
    ):
        pass
    wait_until(lambda: command_lines_with(mark) == [])


def test_a_server_that_ends_is_noticed_and_leaves_no_child(program: Start, repository: Path) -> None:
    mark = f"{repository}-child"
    serving = running_server(program(READY.format(mark=mark)), repository, free_address("127.0.0.1", 0, 0), 60, silent)

    def serve() -> None:
        with serving as server:
            assert len(command_lines_with(mark)) == 1
            server.check()
            server.process.kill()
            wait_until(lambda: server.process.poll() is not None)
            server.check()

    with pytest.raises(ServerFailed) as raised:
        serve()
    assert str(raised.value) == "tritonserver ended with status -9: the disk is gone"
    wait_until(lambda: command_lines_with(mark) == [])


def test_a_server_is_ended_with_its_children_at_the_end_of_the_block(program: Start, repository: Path) -> None:
    mark = f"{repository}-child"
    address = free_address("127.0.0.1", 0, 0)
    with running_server(program(READY.format(mark=mark)), repository, address, 60, silent) as server:
        assert len(command_lines_with(mark)) == 1
    assert server.process.returncode is not None
    wait_until(lambda: command_lines_with(mark) == [])


def test_free_ports_differ_and_a_port_in_use_is_refused() -> None:
    address = free_address("127.0.0.1", 0, 0)
    assert address.grpc != address.http
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        port = used.getsockname()[1]
        message = (
            f"tritonserver.http_port={port} cannot be used: Address already in use; choose another port, or 0 for any"
        )
        with pytest.raises(Unavailable, match=message):
            free_address("127.0.0.1", 0, port)
    with pytest.raises(Unavailable, match=r"tritonserver.host=192.0.2.1 cannot be used: .*; choose another address"):
        free_address("192.0.2.1", 0, 0)


@pytest.mark.parametrize(("host", "in_url"), [("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")])
def test_hosts_in_urls(host: str, in_url: str) -> None:
    assert url_host(host) == in_url


def interpreter(folder: Path, output: str) -> str:
    """Return a program that prints the layout of a Python."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\necho '{output}'\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def layout(folder: Path, version: str, library: Path) -> str:
    return f'{{"server": "{folder}", "version": "{version}", "programs": "/venv/bin", "library": "{library}"}}'


def test_the_server_of_a_package_gets_links_and_its_own_python(tmp_path: Path) -> None:
    root, library = tmp_path / "package", tmp_path / "lib" / "libpython3.11.so"
    for name in (
        "backends/python/lib.so",
        "python_backend_stubs/3.11/triton_python_backend_stub",
        "../lib/libpython3.11.so",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    found = find_program("", interpreter(tmp_path, layout(root, "3.11", library)), tmp_path / "links")
    backends = tmp_path / "links" / "backends"
    assert found.arguments == (str(root / "bin" / "tritonserver"), f"--backend-directory={backends}")
    assert {path.name for path in (backends / "python").iterdir()} == {"lib.so", "triton_python_backend_stub"}
    assert found.environment["PATH"].split(os.pathsep)[0] == "/venv/bin"
    assert found.environment["LD_LIBRARY_PATH"].split(os.pathsep)[0] == str(library.parent)
    for version, missing, says in (("3.7", library, "is Python 3.7, for which nvidia-pytriton has no server"),
                                   ("3.11", tmp_path / "no.so", "has no shared library no.so")):  # fmt: skip
        with pytest.raises(Unavailable, match=says):
            find_program("", interpreter(tmp_path, layout(root, version, missing)), tmp_path / "links")


@pytest.mark.parametrize(
    ("server", "python", "says"),
    [
        ("/nowhere/tritonserver", "", "tritonserver.server=/nowhere/tritonserver is not a program"),
        ("", "/nowhere/python", "tritonserver.python=/nowhere/python cannot be started: No such file"),
        (
            "",
            "/bin/false",
            "tritonserver.python=/bin/false has no nvidia-pytriton; pip install nvidia-pytriton there",
        ),
    ],
)
def test_a_missing_server_is_unavailable(server: str, python: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as raised:
        find_program(server, python, tmp_path)
    assert says in str(raised.value)
