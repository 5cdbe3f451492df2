"""The words of a command line that choose a launcher, and failures of launchers in one line."""

from __future__ import annotations

import socket
import tempfile
from types import ModuleType

import pytest

from suites.hydra_jobs import launchers
from suites.hydra_jobs.launch_process import SLURM_ADVICE, reason_of
from suites.hydra_jobs.launchers import Choice, check_cluster, import_launcher, launcher_settings, split_launcher
from suites.schema.refusals import Refused


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launchers, "_check_installed", lambda name: None)


@pytest.mark.usefixtures("_installed")
def test_words_about_a_launcher_are_taken_out() -> None:
    typed = ["-m", "hydra/launcher=joblib", "backend=null", "hydra.launcher.n_jobs=2"]
    assert split_launcher(typed) == (["-m", "backend=null"], Choice("joblib", ("hydra.launcher.n_jobs=2",)))
    assert split_launcher(["-m", "hydra/launcher=basic", "backend=null"]) == (["-m", "backend=null"], None)
    assert split_launcher(["backend=null"]) == (["backend=null"], None)


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["-m", "hydra/launcher=rayy"], "there is no hydra/launcher=rayy; did you mean ray?"),
        (["hydra/launcher=ray"], "add -m"),
        (["-m", "hydra.launcher.n_jobs=2"], "is a setting of a launcher; add hydra/launcher="),
        (["-m", "hydra/launcher=joblib", "hydra.launcher._target_=os.system"], "cannot be set here"),
        (["-m", "hydra/launcher=ray", "+hydra.launcher.ray.init={_target_: os.system}"], "cannot be set here"),
        (["-m", "hydra/launcher=submitit_slurm", "hydra.launcher.name=x"], "is set by the suite"),
    ],
)
def test_words_that_choose_no_launcher_are_refused(typed: list[str], says: str) -> None:
    with pytest.raises(Refused) as refused:
        split_launcher(typed)
    assert says in str(refused.value)


def test_a_launcher_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Refused, match=r"needs hydra-ray-launcher, which is not installed; run .* pip install"):
        split_launcher(["-m", "hydra/launcher=ray"])


def test_a_broken_launcher_is_refused_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise AttributeError(f"{name} is too old")

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(Refused, match="hydra/launcher=ray cannot be imported: AttributeError: ray is too old; run"):
        import_launcher("ray")


def test_a_cluster_that_does_not_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(Refused, match=f"no Ray cluster answers at {address}"):
            check_cluster(Choice("ray", ()))
        closed.listen()
        check_cluster(Choice("ray", ()))


def test_a_running_ray_cluster_gets_no_size_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    memory = "+hydra.launcher.ray.init.object_store_memory=null"
    assert memory not in launcher_settings(Choice("ray", ()), "job")
    assert memory in launcher_settings(Choice("ray", ("hydra.launcher.ray.init.address=auto",)), "job")
    assert "hydra.launcher.name=job" in launcher_settings(Choice("submitit_local", ()), "job")


def test_the_reason_of_a_failure_on_a_node_is_its_last_error() -> None:
    trace = "Job failed with trace:\n----\nTraceback:\n  File x\nModuleNotFoundError: No module named 'suites'\n----\n"
    assert reason_of(RuntimeError(trace), "ray") == "ModuleNotFoundError: No module named 'suites'"
    assert reason_of(Refused("no cluster"), "ray") == "no cluster"


def test_a_local_ray_in_a_folder_with_a_long_path_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/long/ray/session/sockets/plasma_store"
    error = OSError(f"validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes: {path}")
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", "/long")
    advice = "are too long; set RAY_TMPDIR to a folder with a short path, such as RAY_TMPDIR=/tmp"
    assert reason_of(error, "ray") == f"the paths of Ray's sockets in /long {advice}"
    monkeypatch.setenv("RAY_TMPDIR", "/longer")
    assert reason_of(error, "ray") == f"the paths of Ray's sockets in /longer {advice}"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (
            ["error: invalid partition specified: gpus", "error: Batch job submission failed: Invalid partition name"],
            "sbatch: invalid partition specified: gpus: Batch job submission failed: Invalid partition name",
        ),
        (["fatal: Could not establish a source"], "sbatch: Could not establish a source"),
    ],
)
def test_a_refusal_of_slurm_says_what_to_do(lines: list[str], says: str) -> None:
    error = RuntimeError("\n".join(f"sbatch: {line}" for line in lines))
    assert reason_of(error, "submitit_slurm") == f"{says}; {SLURM_ADVICE}"
