"""Sweeps under launchers: all records come back, the exit status is right, and lost nodes and processes lose nothing.

Tests of a cluster start it on this machine. They are skipped if its programs are not installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import marked_processes
import pytest
import ray_cluster
import slurm_cluster
from conftest import ROOT, Cli, command_lines_with, wait_until

from suites.cli.display import STARTED
from suites.hydra_jobs.launchers import LAUNCHERS
from suites.hydra_jobs.sweep_folder import PARENT
from suites.records.results_folder import machine_folders

QUICK = ("repeats=1", "suite.seconds=0.02", "suite.warm_up_s=0.01", "suite.min_samples=2")
TINY = (
    "weights=random",
    "model.architecture={model_type:bert,num_hidden_layers:1,hidden_size:32,num_attention_heads:2,"
    "intermediate_size:64,vocab_size:500}",
    "device=cpu",
)
TWELVE = (
    "backend=null,torch_eager", "batch=[1],[2],[3]", "sequence=[8],[16]", "+null.other={step_ms 3x16: 1e300}", *TINY,
)  # fmt: skip
"""Twelve cells. The cell of the null backend with shape 3x16 fails, because no step can take 1e300 ms."""

VARIABLE = "SUITES_TEST_SWEEP"


@dataclass(frozen=True)
class Place:
    """A launcher with its cluster: words and variables of a command, and a function that ends a node."""

    words: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    end_node: Callable[[], None] | None = None


def installed(name: str) -> None:
    """Skip a test if the packages of a launcher are not installed."""
    launcher = LAUNCHERS[name]
    for package in (launcher.needs, "hydra_plugins", launcher.module.rpartition(".")[0]):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{launcher.package} is not installed")


@pytest.fixture(scope="module")
def ray_place() -> Iterator[Place]:
    installed("ray")
    # Ray makes sockets in the folder, and the path of a socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    try:
        environment = ray_cluster.start(folder, port)
        yield Place(("hydra/launcher=ray",), environment, lambda: ray_cluster.kill_node(folder))
    finally:
        ray_cluster.stop(folder)


@pytest.fixture(scope="module")
def slurm_place() -> Iterator[Place]:
    installed("submitit_slurm")
    if absent := slurm_cluster.missing():
        pytest.skip(f"not installed: {', '.join(absent)}")
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    slurm_cluster.start(folder)
    try:
        environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        words = ("hydra/launcher=submitit_slurm",)
        yield Place(words, environment, lambda: slurm_cluster.kill_node(folder, "node2"))
    finally:
        slurm_cluster.stop(folder)
        shutil.rmtree(folder, ignore_errors=True)


def place(name: str, request: pytest.FixtureRequest) -> Place:
    if name in ("ray", "submitit_slurm"):
        found: Place = request.getfixturevalue("ray_place" if name == "ray" else "slurm_place")
        return found
    if name == "alone":
        return Place(())
    installed(name)
    return Place((f"hydra/launcher={name}", *(["hydra.launcher.n_jobs=2"] if name == "joblib" else [])))


class Sweep:
    """A sweep that runs in the background, with its lines on standard error."""

    def __init__(self, at: Place, words: Sequence[str], folder: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.output = folder / "output.txt"
        own = (*QUICK, f"results={folder / 'results'}", f"cache={folder / 'cache'}")
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "suites.run", "-m", *at.words, *words, *own],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **at.environment, VARIABLE: self.mark},
            )

    def wait(self) -> int:
        """Wait until the sweep has ended, and return its exit status."""
        assert self.process.stderr is not None
        self.process.stderr.close()
        return self.process.wait()

    def read_until(self, condition: Callable[[list[str]], bool]) -> list[str]:
        """Read lines until the condition holds for them or the sweep has ended."""
        assert self.process.stderr is not None
        lines: list[str] = []
        for line in self.process.stderr:
            lines.append(line)
            if condition(lines):
                break
        return lines


def ended(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if "  ok  " in line or "  failed  " in line]


def records(folder: Path) -> dict[Path, str]:
    """Return the outcome of each record. All files must be whole."""
    found: dict[Path, str] = {}
    for machine in machine_folders(folder / "results"):
        for suite in machine.suites():
            found |= {path: record.outcome for path, record in machine.read_files(suite).items()}
        assert machine.bad == {}
    return found


@pytest.mark.parametrize("name", ["joblib", "submitit_local"])
def test_the_parent_has_records_tables_and_the_status(
    name: str, command: Cli, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    at = place(name, request)
    done = command("-m", *at.words, "backend=null", "null.behaviour=ok,raise", "batch=[1]", "sequence=[8]", *QUICK)
    assert done.returncode == 1
    assert sorted(records(tmp_path).values()) == ["failed", "ok"]
    assert "behaviour=ok" in done.stdout
    assert "failed [" in done.stdout
    assert sum(line.startswith(f"{STARTED}cell 2 of 2") for line in done.stderr.splitlines()) >= 2
    assert len(ended(done.stderr.splitlines())) == 2
    assert not (tmp_path / "results" / PARENT).exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["submitit_slurm", "ray"])
def test_a_lost_node_loses_no_finished_record(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    at = place(name, request)
    assert at.end_node is not None
    sweep = Sweep(at, TWELVE, tmp_path)
    first = sweep.read_until(lambda lines: len(ended(lines)) == 4)
    before = {path: path.read_bytes() for path in records(tmp_path)}
    assert len(before) >= 4
    at.end_node()
    lines = first + sweep.read_until(lambda lines: False)
    assert sweep.wait() == 1, "".join(lines)
    outcomes = records(tmp_path)
    assert sorted(outcomes.values()) == ["failed"] + ["ok"] * 11
    assert {path: path.read_bytes() for path in before} == before
    assert "torch_eager fp32" in sweep.output.read_text()


def no_lock_is_held(folder: Path) -> bool:
    for path in folder.glob("*.lock"):
        with path.open("r+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(
    "SUITES_TEST_KILLS" not in os.environ, reason="takes minutes; set SUITES_TEST_KILLS to a number of kills, e.g. 10"
)
@pytest.mark.parametrize("name", ["alone", "joblib", "submitit_local", "submitit_slurm", "ray"])
def test_a_killed_sweep_loses_nothing(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    at = place(name, request)
    chosen = random.Random(name)
    words = ("backend=null", "batch=[1],[2]", "sequence=[8],[16]", "device=cpu", "rerun=true")
    finished: set[Path] = set()
    for _ in range(int(os.environ["SUITES_TEST_KILLS"])):
        sweep, last = Sweep(at, words, tmp_path), chosen.randint(0, 12)
        sweep.read_until(lambda lines, last=last: len(lines) >= last)  # type: ignore[misc]
        sweep.process.send_signal(signal.SIGKILL)
        assert sweep.wait() == -signal.SIGKILL
        wait_until(lambda mark=sweep.mark: not marked_processes.with_variable(VARIABLE, mark))
        wait_until(lambda: not command_lines_with(str(tmp_path)))
        assert finished <= set(records(tmp_path))
        finished = set(records(tmp_path))
        assert no_lock_is_held(Path(os.environ["SUITES_LOCK_DIR"]))
    whole = Sweep(at, words, tmp_path)
    whole.read_until(lambda lines: False)
    assert whole.wait() == 0
    assert list(records(tmp_path).values()) == ["ok"] * 4
    assert not (tmp_path / "results" / PARENT).exists()


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder for sockets, whose paths have at most 107 characters."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.mark.slow
def test_ray_on_this_machine_ends_with_a_killed_sweep(
    tmp_path: Path, short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    words = ("backend=null", "batch=[1]", "sequence=[8]", "device=cpu")
    launcher = ("hydra/launcher=ray", "+hydra.launcher.ray.remote.resources={absent: 1}")
    sweep = Sweep(Place(launcher, {"RAY_TMPDIR": str(short_folder)}), words, tmp_path)
    (line,) = sweep.read_until(bool)
    assert "waiting for Ray: no node has CPU=1, absent=1; start such a node" in line
    marked = marked_processes.with_variable(VARIABLE, sweep.mark)
    started = marked_processes.with_descendants(marked)
    agents = {process for process in started if "ray::DashboardAgent" in command_line(process)}
    assert agents
    assert agents <= marked, "the title of a process of Ray covers its environment, so its mark is not found"
    sweep.process.send_signal(signal.SIGKILL)
    assert sweep.wait() == -signal.SIGKILL
    wait_until(lambda: not started & marked_processes.running().keys())


@pytest.mark.slow
def test_ray_in_a_folder_with_a_long_path_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed("ray")
    for name in ("RAY_ADDRESS", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    words = ("backend=null", "batch=[1]", "sequence=[8]", "device=cpu")
    sweep = Sweep(Place(("hydra/launcher=ray",), {"TMPDIR": str(folder)}), words, tmp_path)
    printed = sweep.read_until(lambda lines: False)
    assert sweep.wait() == 2
    (line,) = [line for line in printed if "started no job" in line]
    assert "the paths of Ray's sockets in " in line
    assert line.strip().endswith("are too long; set RAY_TMPDIR to a folder with a short path, such as RAY_TMPDIR=/tmp")


def command_line(process: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8", errors="replace")
    return ""
