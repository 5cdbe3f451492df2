"""A cluster that does not start the jobs of a sweep: each reason is one line that says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import wait_until
from omegaconf import OmegaConf

from suites.hydra_jobs import waiting_jobs
from suites.hydra_jobs.launched_sweep import LaunchedSweep
from suites.hydra_jobs.launchers import Choice
from suites.hydra_jobs.sweep_folder import Launch, SweepFolder
from suites.hydra_jobs.waiting_jobs import ray_reason, slurm_reason, waiting_reported


def queue(monkeypatch: pytest.MonkeyPatch, *reasons: str) -> list[list[str]]:
    """Make squeue print these reasons. Return the list of its calls."""
    calls: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        return subprocess.CompletedProcess(command, 0, "".join(f"{reason}\n" for reason in reasons), "")

    monkeypatch.setattr(waiting_jobs.subprocess, "run", run)
    return calls


def test_reasons_of_slurm_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = queue(monkeypatch, "PartitionTimeLimit", "None", "PartitionTimeLimit", "JobArrayTaskLimit", "Resources")
    line = slurm_reason("suites-1")
    assert line.startswith("waiting for SLURM: PartitionTimeLimit, Resources; if the jobs never start, stop the")
    assert "--name=suites-1" in calls[0]


@pytest.mark.parametrize("reasons", [(), ("None",), ("JobArrayTaskLimit",)])
def test_jobs_that_start_soon_give_no_line(reasons: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    queue(monkeypatch, *reasons)
    assert slurm_reason("suites-1") == ""


NODES = [
    {"Alive": True, "Resources": {"CPU": 8.0, "memory": 1e9}},
    {"Alive": True, "Resources": {"CPU": 1.0, "GPU": 1.0}},
    {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
]


@pytest.mark.parametrize(
    ("remote", "missing"),
    [
        ({}, ""),
        ({"num_gpus": 1}, ""),
        ({"num_cpus": 8}, ""),
        ({"num_gpus": 2}, "CPU=1, GPU=2"),
        ({"num_cpus": 8, "num_gpus": 1}, "CPU=8, GPU=1"),
        ({"resources": {"fast": 0.5}}, "CPU=1, fast=0.5"),
    ],
)
def test_resources_that_no_node_of_ray_has_are_named(
    remote: dict[str, object], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True, nodes=lambda: NODES))
    line = ray_reason(OmegaConf.create(remote))
    assert line.startswith(f"waiting for Ray: no node has {missing}; start such a node" if missing else "")
    assert bool(line) == bool(missing)


def test_each_reason_is_reported_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(waiting_jobs, "POLL_SECONDS", 0.01)
    calls = queue(monkeypatch, "Resources")
    folder, lines, choice = SweepFolder(tmp_path), list[str](), Choice("submitit_slurm", ())
    sweep = LaunchedSweep(choice, [["backend=null"]], lines.append, lambda answer: None)
    launch = Launch(choice, "suites-1", str(tmp_path), str(tmp_path), (("backend=null",),), (0,), {})
    sweep._report(folder)
    with waiting_reported(launch, OmegaConf.create({})):
        wait_until(lambda: len(calls) > 2)
    for _ in range(2):
        sweep._report(folder)
    assert [line.partition(";")[0] for line in lines] == ["waiting for SLURM: Resources"]
