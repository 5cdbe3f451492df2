"""Reasons why a cluster does not start the jobs of a sweep. Without them, a job that can never start gives no line."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from suites.hydra_jobs.sweep_folder import Launch, SweepFolder

if TYPE_CHECKING:
    from omegaconf import DictConfig

POLL_SECONDS = 10

USUAL = ("", "None", "JobArrayTaskLimit")
"""Reasons of SLURM that need no action: it has not looked at the job yet, or array_parallelism limits the jobs."""


@contextlib.contextmanager
def waiting_reported(launch: Launch, settings: DictConfig) -> Iterator[None]:
    """Write to the sweep folder, within the block, why the cluster does not start jobs.

    Args:
        settings: the composed settings of the launcher.
    """
    reason: Callable[[], str] = str  # no reason
    if launch.choice.name == "submitit_slurm":
        reason = partial(slurm_reason, launch.job_name)
    elif launch.choice.name == "ray":
        reason = partial(ray_reason, settings.ray.remote)
    ended = threading.Event()
    thread = threading.Thread(target=_report, args=(SweepFolder(Path(launch.folder)), reason, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _report(folder: SweepFolder, reason: Callable[[], str], ended: threading.Event) -> None:
    while not ended.wait(POLL_SECONDS):
        if text := reason():
            folder.write_waiting(text)


def slurm_reason(job_name: str) -> str:
    """Return a line with the reasons of SLURM for pending jobs of this name; "" if there are none."""
    command = ["squeue", "--noheader", f"--name={job_name}", "--states=PENDING", "--format=%r"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", check=False)
    reasons = sorted({line.strip() for line in done.stdout.splitlines()}.difference(USUAL))
    if not reasons:
        return ""
    return (
        f"waiting for SLURM: {', '.join(reasons)}; if the jobs never start, stop the command and correct "
        "hydra.launcher.KEY=VALUE"
    )


def ray_reason(remote: DictConfig) -> str:
    """Return a line if no node of the Ray cluster has the resources of a job, else "".

    Args:
        remote: the settings hydra.launcher.ray.remote.
    """
    import ray

    if not ray.is_initialized():
        return ""
    wanted = {"CPU": remote.get("num_cpus", 1), "GPU": remote.get("num_gpus", 0), **(remote.get("resources") or {})}
    amounts = {name: amount for name, amount in wanted.items() if amount}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(all(node.get(name, 0) >= amount for name, amount in amounts.items()) for node in nodes):
        return ""
    text = ", ".join(f"{name}={amount:g}" for name, amount in amounts.items())
    return (
        f"waiting for Ray: no node has {text}; start such a node, or stop the command and correct "
        "hydra.launcher.ray.remote"
    )
