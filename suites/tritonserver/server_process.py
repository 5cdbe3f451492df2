"""A process of tritonserver: find the program, start it, wait until it is ready, and end it with all its children."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backends.base import Unavailable
from suites.measuring.clock import now_ns
from suites.running.process_tree import kill_group

INSTALL = "pip install nvidia-pytriton"

LAYOUT = """
import json, sys, sysconfig
from pathlib import Path
import pytriton
print(json.dumps({
    "server": str(Path(pytriton.__file__).parent / "tritonserver"),
    "version": "%d.%d" % sys.version_info[:2],
    "programs": str(Path(sys.executable).parent),
    "library": str(Path(sysconfig.get_config_var("LIBDIR")) / (sysconfig.get_config_var("INSTSONAME") or "")),
}))
"""
"""Program for the Python that has nvidia-pytriton: it prints the places of the server and of its shared library."""

LOG_LINES = 12
"""Last lines of the log that a failure shows."""

POLL_S = 0.05
GRACE_S = 20.0
"""Seconds between SIGTERM and SIGKILL. Triton waits for requests and unloads models."""


class ServerFailed(RuntimeError):
    """The server did not start, or ended. The message has the last line of its log with an error."""


@dataclass(frozen=True)
class Program:
    """How tritonserver is started.

    Attributes:
        arguments: the program and its own arguments.
        environment: variables that it needs.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def find_program(server: str, python: str, folder: Path) -> Program:
    """Return the program of a server.

    Args:
        server: path of a tritonserver; empty for that of nvidia-pytriton.
        python: Python with nvidia-pytriton; empty for this one.
        folder: folder for links to the Python backend.

    Raises:
        Unavailable: there is no such program.
    """
    if server:
        if not os.access(server, os.X_OK) or os.path.isdir(server):
            raise Unavailable(f"tritonserver.server={server} is not a program; give the path of tritonserver")
        return Program((server,))
    key = f"tritonserver.python={python}" if python else f"this Python ({sys.executable})"
    try:
        done = subprocess.run([python or sys.executable, "-c", LAYOUT], capture_output=True, text=True,
                              encoding="utf-8", check=False)  # fmt: skip
    except OSError as error:
        raise Unavailable(
            f"{key} cannot be started: {error.strerror}; `make triton` installs one in .venv-triton"
        ) from None
    if done.returncode:
        raise Unavailable(
            f"{key} has no nvidia-pytriton; {INSTALL} there, or set tritonserver.python, tritonserver.server or "
            "tritonserver.grpc_url"
        )
    return _pytriton(json.loads(done.stdout), folder, key)


def _pytriton(layout: Mapping[str, object], folder: Path, key: str) -> Program:
    """Return the server of nvidia-pytriton, with links to its Python backend for the version of Python."""
    root, version = Path(str(layout["server"])), str(layout["version"])
    stub = root / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise Unavailable(f"{key} is Python {version}, for which nvidia-pytriton has no server; use another Python")
    library = Path(str(layout["library"]))
    if not library.is_file():
        raise Unavailable(
            f"{key} has no shared library {library.name}, which the server needs; use a Python that has it, such as "
            "that of Debian with the package libpython3"
        )
    backend = folder / "backends" / "python"
    backend.mkdir(parents=True, exist_ok=True)
    for source in (*(root / "backends" / "python").iterdir(), stub):
        with contextlib.suppress(FileExistsError):
            (backend / source.name).symlink_to(source)
    libraries = [str(library.parent), os.environ.get("LD_LIBRARY_PATH", "")]
    return Program(
        (str(root / "bin" / "tritonserver"), f"--backend-directory={backend.parent}"),
        {
            # The Python in the server finds its packages by the python3 in PATH. It does not read PYTHONPATH.
            "PATH": os.pathsep.join([str(layout["programs"]), os.environ.get("PATH", os.defpath)]),
            "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
        },
    )


@dataclass(frozen=True)
class Address:
    """Address of a server.

    Attributes:
        host: address that it listens on.
        grpc, http: ports.
    """

    host: str
    grpc: int
    http: int


def free_address(host: str, grpc: int, http: int) -> Address:
    """Return an address with free ports.

    Args:
        grpc, http: ports; the system chooses a free one for 0.

    Raises:
        Unavailable: a port is in use, or this machine does not have the address.
    """
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(_bound(host, port, name)).getsockname()[1]
                 for name, port in (("grpc_port", grpc), ("http_port", http))]  # fmt: skip
    return Address(host, *ports)


def _bound(host: str, port: int, name: str) -> socket.socket:
    with contextlib.ExitStack() as stack:
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            bound = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            bound.bind((host, port))
        except OSError as error:
            key, other = (
                (f"{name}={port}", "another port, or 0 for any") if port else (f"host={host}", "another address")
            )
            raise Unavailable(f"tritonserver.{key} cannot be used: {error.strerror}; choose {other}") from None
        stack.pop_all()
        return bound


@dataclass
class TritonServer:
    """A running tritonserver.

    Attributes:
        address: where it listens.
        log: file of its output.
    """

    process: subprocess.Popen[bytes]
    address: Address
    log: Path

    def check(self) -> None:
        """
        Raises:
            ServerFailed: the server has ended.
        """
        if (status := self.process.poll()) is not None:
            raise ServerFailed(f"tritonserver ended with status {status}: {self.reason()}")

    def reason(self) -> str:
        """Return the last line of the log that names an error."""
        lines = self.last_lines(200)
        # A model that cannot be loaded has a line of its own; the last error only says that there was one.
        loading = [line for line in lines if "failed to load" in line and "version" in line]
        marked = [line for line in lines if line[:1] in "EF" or line.startswith("error")]
        line = (loading[:1] or marked[-1:] or lines[-1:] or ["its log is empty"])[0]
        return line.partition("] ")[2].strip('"').partition("\\n")[0] or line.strip()

    def last_lines(self, count: int = LOG_LINES) -> list[str]:
        """Return the last lines of the log."""
        with contextlib.suppress(OSError):
            return [
                line for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
            ][-count:]
        return []


@contextlib.contextmanager
def running_server(
    program: Program, repository: Path, address: Address, start_s: float, progress: Callable[[str], None]
) -> Iterator[TritonServer]:
    """Start a server, give it when all models are ready, and end it with all its processes at the end of the block.

    Args:
        start_s: most seconds until it is ready.

    Raises:
        ServerFailed: it did not become ready, or it ended before the end of the block. The last lines of its log are
            printed.
    """
    progress("starting tritonserver")
    log = repository.parent / "tritonserver.log"
    arguments = [
        *program.arguments, f"--model-repository={repository}", "--allow-metrics=false",
        f"--http-address={address.host}", f"--http-port={address.http}",
        f"--grpc-address={address.host}", f"--grpc-port={address.grpc}",
    ]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                   env={**os.environ, **program.environment}, start_new_session=True)  # fmt: skip
    server = TritonServer(process, address, log)
    try:
        _wait_until_ready(server, start_s)
        yield server
        server.check()
    except Exception:
        print("last lines of tritonserver's log:", *server.last_lines(), sep="\n", file=sys.stderr)
        raise
    finally:
        progress("stopping tritonserver")
        _stop(process)


def _wait_until_ready(server: TritonServer, seconds: float) -> None:
    end = now_ns() + round(seconds * 1e9)
    url = f"http://{url_host(server.address.host)}:{server.address.http}/v2/health/ready"
    while now_ns() < end:
        if server.process.poll() is not None:
            raise ServerFailed(f"tritonserver did not start: {server.reason()}")
        with contextlib.suppress(OSError, urllib.error.URLError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(POLL_S)
    raise ServerFailed(f"tritonserver was not ready after {seconds:g} s (tritonserver.start_s): {server.reason()}")


def url_host(host: str) -> str:
    """Return a host as it is in a URL. A server that listens on all addresses is reached by loopback."""
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{local}]" if ":" in local else local


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and its group: first by SIGTERM, then the remaining processes by SIGKILL."""
    try:
        if process.poll() is None:
            kill_group(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
    finally:
        kill_group(process.pid, signal.SIGKILL)
    process.wait()
