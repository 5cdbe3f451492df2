"""Start and stop a SLURM cluster of two nodes on this machine: `python slurm_cluster.py start|stop FOLDER`.

It needs Debian's packages slurmctld, slurmd, slurm-client and munge, and no service of them. All files are in FOLDER.
Commands of SLURM find the cluster through SLURM_CONF=FOLDER/slurm.conf. `kill FOLDER NODE` ends a node with SIGKILL.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
NODES = ("node1", "node2")
CONFIGURATION = """\
ClusterName=suites
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdSpoolDir={folder}/spool.%n
StateSaveLocation={folder}/state
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SlurmdTimeout=5
SlurmctldTimeout=10
KillWait=2
MinJobAge=2
ReturnToService=2
JobRequeue=1
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1
PartitionName=main Nodes=node1,node2 Default=YES MaxTime=60 State=UP
"""


def missing() -> list[str]:
    """Return the programs that are not installed."""
    places = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))
    return [name for name in PROGRAMS if shutil.which(name, path=places) is None]


def start(folder: Path) -> None:
    """Start the cluster, and wait until its nodes are idle."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    host = socket.gethostname().partition(".")[0]
    text = CONFIGURATION.format(folder=folder, host=host, user=getpass.getuser(), ports=_free_ports(3))
    (folder / "slurm.conf").write_text(text)
    (folder / "state").mkdir(exist_ok=True)
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    _run("munged", "--force", f"--socket={folder}/munge.socket", *files)
    _run("slurmctld", "-f", str(folder / "slurm.conf"))
    for node in NODES:
        start_node(folder, node)
    while _run("sinfo", "-h", "-o", "%t", "-t", "idle", folder=folder).strip() != "idle":
        time.sleep(0.2)


def start_node(folder: Path, node: str) -> None:
    _run("slurmd", "-N", node, "-f", str(folder / "slurm.conf"))


def kill_node(folder: Path, node: str) -> None:
    """End the daemon of a node and its jobs with SIGKILL, as if the node lost its power."""
    daemon = int((folder / f"slurmd.{node}.pid").read_text())
    stopped = {daemon}
    for process in _processes():
        with contextlib.suppress(OSError):
            if f"SLURMD_NODENAME={node}\0".encode() in Path(f"/proc/{process}/environ").read_bytes():
                stopped |= {process, _parent(process)}
    for process in stopped - {0, 1, os.getpid()}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def stop(folder: Path) -> None:
    """Cancel all jobs, and end the daemons."""
    _run("scancel", f"--user={getpass.getuser()}", folder=folder)
    while _run("squeue", "-h", folder=folder).strip():
        time.sleep(0.2)
    for name in (*(f"slurmd.{node}" for node in NODES), "slurmctld", "munge"):
        with contextlib.suppress(OSError, ValueError):
            process = int((folder / f"{name}.pid").read_text())
            os.kill(process, signal.SIGTERM)
            while Path(f"/proc/{process}").exists() and _state(process) != "Z":
                time.sleep(0.1)


def _run(program: str, *arguments: str, folder: Path | None = None) -> str:
    environment = {**os.environ, "PATH": os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))}
    if folder is not None:
        environment["SLURM_CONF"] = str(folder / "slurm.conf")
    done = subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, check=False)
    if done.returncode and program in PROGRAMS:
        raise RuntimeError(f"{program}: {done.stderr.strip()}")
    return done.stdout


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(process: int) -> list[str]:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def _state(process: int) -> str:
    try:
        return _stat(process)[0]
    except OSError:
        return "Z"


def _parent(process: int) -> int:
    """Return the parent of a process if it is a step daemon of SLURM, else 0."""
    parent = int(_stat(process)[1])
    return parent if "slurmstepd" in Path(f"/proc/{parent}/comm").read_text() else 0


if __name__ == "__main__":
    action, path = sys.argv[1], Path(sys.argv[2]).absolute()
    if absent := missing():
        sys.exit(f"not installed: {', '.join(absent)}; install slurmctld, slurmd, slurm-client and munge")
    if action == "kill":
        kill_node(path, sys.argv[3])
    else:
        {"start": start, "stop": stop}[action](path)
