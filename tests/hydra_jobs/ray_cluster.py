"""Start and stop a Ray cluster of two nodes on this machine: `python ray_cluster.py start`, `... kill`, `... stop`.

Each node runs one job at a time. `start` prints the variables of a command that uses the cluster: its address, and a
new token, because the port is open to other hosts. `kill` ends the second node with SIGKILL.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from marked_processes import kill, with_variable

NODE = "SUITES_TEST_RAY_NODE"
FOLDER = Path(tempfile.gettempdir()) / f"suites-ray-{os.getuid()}"
"""Folder of the nodes' files. The path must be short, because it contains sockets."""

PORT = 6399


def start(folder: Path = FOLDER, port: int = PORT) -> dict[str, str]:
    """Start a head node and a second node. Return the variables of a command that uses the cluster.

    Raises:
        RuntimeError: a node does not start.
    """
    import ray

    # Ray replaces the loopback address by this one.
    address = f"{ray.util.get_node_ip_address()}:{port}"
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    _start("1", folder, token, "--head", f"--port={port}", "--include-dashboard=false")
    _start("2", folder, token, f"--address={address}")
    return {"RAY_ADDRESS": address, **token}


def kill_node(folder: Path = FOLDER) -> None:
    """End the second node with its jobs."""
    kill(with_variable(NODE, f"{folder}-2"))


def stop(folder: Path = FOLDER) -> None:
    """End both nodes, and remove their files."""
    for number in ("2", "1"):
        while processes := with_variable(NODE, f"{folder}-{number}"):
            kill(processes)
    shutil.rmtree(folder, ignore_errors=True)


def _start(number: str, folder: Path, token: dict[str, str], *arguments: str) -> None:
    # Without SPT_NOENV, the titles of Ray's processes cover their environment, and NODE is not found.
    environment = {**os.environ, **token, NODE: f"{folder}-{number}", "SPT_NOENV": "1"}
    temporary = [f"--temp-dir={folder}"] if "--head" in arguments else []
    # Small memory: the jobs return texts of records.
    limits = ("--num-cpus=1", "--num-gpus=0", "--object-store-memory=80000000", "--disable-usage-stats")
    done = subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments, *temporary, *limits],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"ray start: {done.stderr or done.stdout}")


if __name__ == "__main__":
    if sys.argv[1] == "start":
        print("\n".join(f"export {name}={value}" for name, value in start().items()))
    else:
        {"kill": kill_node, "stop": stop}[sys.argv[1]]()
