"""Fresh processes of each cell: interleaved over a sweep, added to earlier processes, and with failures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from backends.base import Artifact, Shape, Source, SourceForm
from suites.asking.request import Request, resolve
from suites.cli.local_settings import register
from suites.records.facts import Facts
from suites.records.measurement import Measurement
from suites.records.parts import Check
from suites.records.record import Record
from suites.records.results_folder import read_records
from suites.root import CONF
from suites.running import stages
from suites.running.job import Exported, Job, Measured, MeasureJob, Probed
from suites.running.launch import Answer
from suites.running.pipeline import CellResult, run_request, run_to_end
from suites.schema.refusals import Refused

QUICK = ("suite.seconds=0.05", "suite.warm_up_s=0.05", "suite.min_samples=3", "batch=[2]", "sequence=[16]")


@pytest.fixture
def request_of(tmp_path: Path) -> Callable[..., Request]:
    """Return a request of the null backend."""

    def resolved(*overrides: str) -> Request:
        register()
        own = [f"results={tmp_path / 'results'}", f"cache={tmp_path / 'cache'}"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("run", ['backend="null"', *QUICK, *own, *overrides])
        return resolve(OmegaConf.to_object(config))  # type: ignore[arg-type]  # a RunConfig by its schema

    return resolved


class Worker:
    """A replacement for `call` of suites/running/launch.py that answers immediately, and fails in the process numbered
    `failing`."""

    def __init__(self, failing: int = -1, digest: str = "a") -> None:
        self.failing, self.digest = failing, digest
        self.measured: list[int] = []

    def __call__(self, job: Job[Any], folder: Path, *_: Any) -> Answer[Any]:
        folder.mkdir(parents=True, exist_ok=True)
        artifact = Artifact(Path("x"), self.digest)
        notes = {"tokens": "random", "shapes": {"2x16": {"tokens": 32, "cut": 0}}}
        answers: dict[str, object] = {
            "probe": Probed(release="null 1", form=SourceForm()),
            "export": Exported(Source(Path("x"), "a"), replace(artifact, notes=notes), (Shape(2, 16),)),
            "build": artifact,
        }
        if not isinstance(job, MeasureJob):
            return Answer("ok", "", answers[job.stage], "")
        number = job.spec.process
        self.measured.append(number)
        if number == self.failing:
            return Answer("failed", "measure was killed by SIGSEGV without an answer", None, "the log")
        samples = (1_000_000 + number,) * 30
        measurement = Measurement("latency", 2, 16, False, samples, ((0, 1, 30),), True)
        check = Check(batch=2, sequence=16, cuda_graph=False, nonfinite=0, cosine=1.0, when="first use")
        return Answer("ok", "", Measured((measurement,), (check,), Facts(open_ns=number)), "")


def nothing(stage: str, text: str, keep: bool) -> None:
    """Show no progress."""


def processes(record: Record) -> list[int]:
    return [measurement.process for measurement in record.measurements]


def test_a_cell_is_measured_in_the_requested_number_of_processes(
    request_of: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker()
    monkeypatch.setattr(stages, "call", worker)
    first = run_request(request_of(), nothing)
    assert first.another is not None
    assert processes(first.record) == [0]
    ended = run_to_end(request_of("rerun=true"), nothing)
    assert ended.another is None
    assert processes(ended.record) == [0, 1, 2]
    assert [(process.process, process.facts.open_ns) for process in ended.record.processes] == [(1, 1), (2, 2)]
    assert [check.process for check in ended.record.checks] == [0, 1, 2]
    assert run_to_end(request_of(), nothing).reused


def test_processes_are_added_to_an_earlier_run(
    request_of: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker()
    monkeypatch.setattr(stages, "call", worker)
    run_to_end(request_of("repeats=1"), nothing)
    assert run_to_end(request_of("repeats=1"), nothing).reused
    ended = run_to_end(request_of("repeats=3"), nothing)
    assert worker.measured == [0, 1, 2]
    assert processes(ended.record) == [0, 1, 2]


def test_processes_of_another_engine_are_not_added(
    request_of: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "call", Worker())
    run_to_end(request_of("repeats=2"), nothing)
    other = Worker(digest="b")
    monkeypatch.setattr(stages, "call", other)
    run_to_end(request_of("repeats=3"), nothing)
    assert other.measured == [0, 1, 2]


def test_a_failure_in_any_process_fails_the_cell_and_keeps_its_measurements(
    request_of: Callable[..., Request], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(stages, "call", Worker(failing=1))
    ended: CellResult = run_to_end(request_of(), nothing)
    assert (ended.record.outcome, processes(ended.record)) == ("failed", [0])
    assert ended.record.reason == "process 2 of 3: measure was killed by SIGSEGV without an answer"
    (kept,) = read_records(tmp_path / "results", "latency")
    assert kept.outcome == "failed"


def test_suites_that_do_not_time_single_cells_measure_once(request_of: Callable[..., Request]) -> None:
    assert request_of().repeats == 3
    assert request_of("suite=switching").repeats == 1


@pytest.mark.parametrize("repeats", [0, -1])
def test_zero_processes_are_refused(repeats: int, request_of: Callable[..., Request]) -> None:
    with pytest.raises(Refused, match=f"repeats={repeats} must be between 1 and 1000"):
        request_of(f"repeats={repeats}")


def test_more_threads_than_cpus_or_the_cgroup_limit_are_refused(
    request_of: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    from suites.asking import request
    from suites.measuring import machine

    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    for module in (machine, request):
        monkeypatch.setattr(module, "cpu_quota", lambda: 2.5)
    with pytest.raises(Refused, match=r"threads=4 is more than the 2\.5 CPUs that the cgroup allows .* at most 2"):
        request_of("threads=4")
    with pytest.raises(Refused, match="threads=9 is more than the 8 CPUs of this machine"):
        request_of("threads=9")
    resolved_request = request_of()
    assert (resolved_request.spec.threads, resolved_request.cell["options"]["threads"]) == (2, 0)
    assert resolved_request.machine.slug.endswith("8-cores-limited-to-2.5")


def test_the_cells_of_a_sweep_take_turns_and_programmed_processes_tie(cli: Cli, tmp_path: Path) -> None:
    done = cli("-m", "backend=null", "null.step_ms=1.0,1.1", "null.process_factors=[1.0,2.0]", "repeats=2", *QUICK)
    assert done.returncode == 0, done.stderr
    records = list(read_records(tmp_path / "results", "latency"))
    starts = sorted(
        (measurement.windows[0][0], record.cell.id, measurement.process)
        for record in records
        for measurement in record.measurements
    )
    order = list(dict.fromkeys((cell, process) for _, cell, process in starts))
    (cell, first), (other_cell, second), *rest = order
    assert (first, second) == (0, 0)
    assert cell != other_cell
    assert rest == [(cell, 1), (other_cell, 1)]
    for record in records:
        first, second = (min(m.samples) for m in record.measurements if m.phase == "latency")
        assert second > 1.5 * first
