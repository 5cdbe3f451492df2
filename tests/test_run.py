"""The command line with the null backend, from arguments to records, tables and exit status."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Cli, command_lines_with, json_of, table_in, wait_until, without_starts
from hydra import compose, initialize_config_dir
from markdown_rows import rows
from omegaconf import OmegaConf

from suites.asking.request import resolve
from suites.cli.display import STARTED
from suites.cli.local_settings import register
from suites.records.cell import Cell
from suites.records.measurement import REQUEST_ENQUEUE, REQUEST_PARTS
from suites.records.results_folder import read_records

QUICK = ("suite.seconds=0.05", "suite.warm_up_s=0.3", "batch=[2]", "sequence=[16]")


def one_line(error: str) -> str:
    """Return the only line on standard error, apart from lines about the start of a process; it is no traceback."""
    lines = without_starts(error)
    assert len(lines) == 1, error
    return lines[0]


def without_remaining(line: str) -> str:
    """Return a line about the start of a process without the remaining time of the sweep."""
    return re.sub(r"  (about .+|less than a minute) left$", "", line)


def test_every_outcome_gives_a_record(cli: Cli, tmp_path: Path) -> None:
    done = cli("-m", "backend=null", "null.behaviour=ok,raise,abort,garbage", *QUICK[:2])
    assert done.returncode == 1
    records = {r.cell.options["behaviour"]: r for r in read_records(tmp_path / "results", "latency")}
    assert {name: record.outcome for name, record in records.items()} == {
        "ok": "ok", "raise": "failed", "abort": "failed", "garbage": "failed",
    }  # fmt: skip
    assert "ValueError: null.behaviour=raise" in records["raise"].reason
    assert "SIGABRT" in records["abort"].reason
    assert "cosine to the FP32 reference" in records["garbage"].reason
    # Without a terminal there is a plain line for the start and the end of each cell, and for each process.
    lines = done.stderr.splitlines()
    started = [f"started: cell {number} of 4  none null fp32  " for number in range(1, 5)]
    assert [without_remaining(line) for line in lines[::3]] == [f"{start}probe" for start in started]
    assert lines[3].endswith(" left"), "the first cell gives the remaining time of the others"
    assert lines[1::3] == [f"{start}process 1 of 1" for start in started]
    assert [line.split()[0] for line in lines[2::3]] == ["ok", "failed", "failed", "failed"]
    table = rows(table_in(tmp_path / "results", "latency").read_text())
    assert sum("**invalid**: cosine" in row["notes"] for row in table) == 4


def test_a_cell_that_hangs_is_stopped(cli: Cli, tmp_path: Path) -> None:
    """On a busy machine an earlier stage may reach the limit; the outcome is the same."""
    done = cli("backend=null", "null.behaviour=hang", "time_limit=2", *QUICK)
    (record,) = read_records(tmp_path / "results", "latency")
    assert (record.outcome, done.returncode) == ("timeout", 1)
    assert "was stopped after 2 s" in record.reason


@pytest.mark.parametrize(
    ("behaviour", "outcome", "reason", "status"),
    [
        ("exit", "failed", "measure exited with status 0 without an answer", 1),
        ("nonfinite", "failed", "2x16: 1 outputs are NaN or Inf", 1),
        ("unsupported", "unsupported", "null.behaviour=unsupported was requested", 0),
        ("unavailable", "unavailable", "null.behaviour=unavailable was requested", 1),
    ],
)
def test_other_outcomes(cli: Cli, tmp_path: Path, behaviour: str, outcome: str, reason: str, status: int) -> None:
    done = cli("backend=null", f"null.behaviour={behaviour}", *QUICK)
    (record,) = read_records(tmp_path / "results", "latency")
    assert (record.outcome, record.reason, done.returncode) == (outcome, reason, status)
    assert reason in done.stdout


def test_gpu_columns_are_measured_in_the_stream_and_graphs_have_their_own_columns(cli: Cli, tmp_path: Path) -> None:
    done = cli("backend=null", "null.gpu_ms=3", "null.step_ms=0.1", "--wide", *QUICK)
    assert done.returncode == 0
    assert "| 3.000 [3.000, 3.000] |" in done.stdout
    (record,) = read_records(tmp_path / "results", "latency")
    phases = {(m.phase, m.cuda_graph) for m in record.measurements}
    every = ("gpu", "enqueue", "latency", "end_to_end", "sustained", *REQUEST_PARTS)
    assert phases == {(phase, graph) for phase in every for graph in (False, True)}


def test_without_a_gpu_its_columns_are_empty(cli: Cli, tmp_path: Path) -> None:
    assert "graph p50" not in cli("backend=null", "--wide", *QUICK).stdout.split("| backend")[1]
    (record,) = read_records(tmp_path / "results", "latency")
    assert {m.phase for m in record.measurements} == {"latency", "end_to_end", *REQUEST_PARTS} - {REQUEST_ENQUEUE}


def test_a_measured_cell_is_reused_and_rerun_measures_it_again(cli: Cli, tmp_path: Path) -> None:
    def stamp() -> int:
        (path,) = (tmp_path / "results").rglob("*.json")
        return path.stat().st_mtime_ns

    cli("backend=null", *QUICK)
    first = stamp()
    again = cli("backend=null", *QUICK)
    assert "rerun=true measures again" in again.stderr
    assert stamp() == first
    cli("backend=null", *QUICK, "rerun=true")
    assert stamp() > first


@pytest.mark.parametrize(
    "change",
    [
        "model.architecture.num_hidden_layers=3",
        "seed=1",
        "lengths=uniform",
        "task.path=Makefile",
        "threads=1",
        "batch=[3]",
    ],
)
def test_every_option_that_changes_the_work_changes_the_cell(change: str) -> None:
    def cell_id(*overrides: str) -> str:
        with initialize_config_dir(str(ROOT / "suites" / "conf"), version_base="1.3"):
            config = compose("run", ["model=bert_base", "weights=random", "backend=ort", *overrides])
        return Cell(release="", **resolve(OmegaConf.to_object(config)).cell).id  # type: ignore[arg-type]

    register()
    assert cell_id("results=.cache/other", "suite.seconds=2") == cell_id("device=cpu") != cell_id(change)


def test_a_record_of_another_device_is_not_reused(cli: Cli, tmp_path: Path) -> None:
    cli("backend=null", *QUICK)
    (path,) = (tmp_path / "results").rglob("*.json")
    path.write_text(re.sub(r'"uuid": "[^"]*"', '"uuid": "HOST-other"', path.read_text()))
    assert "rerun=true" not in cli("backend=null", *QUICK).stderr
    assert "HOST-other" not in path.read_text()


def test_a_failed_cell_is_tried_again(cli: Cli) -> None:
    cli("backend=null", "null.behaviour=nonfinite", *QUICK)
    assert "rerun=true" not in cli("backend=null", "null.behaviour=nonfinite", *QUICK).stderr


KILLED_AFTER_ONE_RECORD = """
import os, signal, sys
from suites import run
from suites.running import pipeline

def write_and_die(*arguments):
    write(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

write, pipeline.write_record = pipeline.write_record, write_and_die
run.main()
"""


def test_a_killed_sweep_continues_where_it_stopped(cli: Cli, tmp_path: Path) -> None:
    sweep = ("-m", "backend=null", "null.step_ms=0.1,0.2,0.3", *QUICK)
    folders = (f"results={tmp_path / 'results'}", f"cache={tmp_path / 'cache'}")
    command = [sys.executable, "-c", KILLED_AFTER_ONE_RECORD, *sweep, *folders, "repeats=1"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == -signal.SIGKILL
    assert len(list(read_records(tmp_path / "results", "latency"))) == 1
    done = cli(*sweep)
    assert done.returncode == 0
    assert done.stderr.count("rerun=true") == 1
    assert len(list(read_records(tmp_path / "results", "latency"))) == 3


def test_a_refused_cell_of_a_sweep_does_not_stop_the_others(cli: Cli, tmp_path: Path) -> None:
    done = cli("-m", "backend=null", "sequence=[600],[16]", "batch=[2]", "suite.seconds=0.05")
    assert done.returncode == 2
    assert "refused: sequence=600 is beyond the 512 positions" in done.stderr
    (record,) = read_records(tmp_path / "results", "latency")
    assert record.outcome == "ok"


def test_equal_refusals_of_a_sweep_are_one_line_with_the_number_of_cells(cli: Cli) -> None:
    done = cli("-m", "backend=null", "sequence=[600],[16]", "null.step_ms=1,2,3", "until=build", "batch=[2]")
    assert done.returncode == 2
    refused = [line for line in done.stderr.splitlines() if line.startswith("refused")]
    assert len(refused) == 1
    assert refused[0].startswith("refused: 3 cells: sequence=600 is beyond the 512 positions")
    started = [without_remaining(line) for line in done.stderr.splitlines() if line.startswith(STARTED)]
    assert started == [f"started: cell {number} of 3  none null fp32  probe" for number in (1, 2, 3)]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_a_worker_ends_with_its_launcher(number: signal.Signals, status: int, tmp_path: Path) -> None:
    folders = (f"results={tmp_path / 'results'}", f"cache={tmp_path / 'cache'}")
    command = [sys.executable, "-m", "suites.run", "backend=null", "null.behaviour=hang", *QUICK, *folders]
    # A shell that runs the tests in the background may make child processes ignore interrupts.
    heeded = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=heeded) as process:  # noqa: PLW1509
        wait_until(lambda: any("suites.worker measure" in line for line in command_lines_with(str(tmp_path))))
        process.send_signal(number)
        _, error = process.communicate()
    assert process.returncode == status, error
    assert number == signal.SIGKILL or "interrupted" in one_line(error)
    wait_until(lambda: not command_lines_with(str(tmp_path)))
    assert not list((tmp_path / "results").rglob("*.json"))


def test_the_record_has_the_command_that_repeats_it(cli: Cli, tmp_path: Path) -> None:
    cli("backend=null", *QUICK)
    (record,) = read_records(tmp_path / "results", "latency")
    assert record.command[1:4] == ("-m", "suites.run", "backend=null")
    assert json_of(record)["environment"]["versions"]["numpy"] == json_of(record)["facts"]["loaded"]["numpy"]
    assert json_of(record)["settings"]["seconds"] == 0.05


def test_a_record_contains_no_path_of_the_machine(cli: Cli, tmp_path: Path) -> None:
    cli("backend=null", "null.behaviour=raise", *QUICK)
    (path,) = (tmp_path / "results").rglob("*.json")
    data = json.loads(path.read_text())
    assert str(ROOT) not in json.dumps(data)


def imported_by(*arguments: str) -> tuple[set[str], str]:
    """Return the modules that this command line imported, and its output."""
    code = "import sys; from suites.run import main; main(); print(); print(*sys.modules)"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    printed, _, modules = done.stdout.rstrip().rpartition("\n")
    return set(modules.split()), printed


def test_help_imports_no_large_library_and_lists_every_choice() -> None:
    modules, printed = imported_by("--help")
    assert modules.isdisjoint(("hydra", "omegaconf", "rich", "numpy", "torch"))
    for group in (path for path in (ROOT / "suites" / "conf").iterdir() if path.is_dir()):
        for choice in group.glob("*.yaml"):
            assert choice.stem in printed


def test_the_parent_process_imports_no_large_library() -> None:
    modules, _ = imported_by("backend=null", "batch=[0]")
    assert "hydra" in modules
    assert modules.isdisjoint(("torch", "transformers", "onnx", "onnxruntime"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("backend=nul",), "null, openvino, ort, torch_compile, torch_eager"),
        (("precision=fp12",), "did you mean fp32? choices: fp32, tf32, fp16, bf16, fp8, int8"),
        (("model=bert",), "bert_base, bert_large, bge_m3"),
        (("bacth=[1]",), "did you mean batch?"),
        (("ort.fussion=on",), "did you mean ort.fusion?"),
        (("backend=null", "null.behaviour=explode"), "garbage"),
        (("weights=trained_well",), "trained, random"),
        (("batch=many",), "batch"),
        (("batch=8",), "batch must be a list"),
        (("backend=ort,torch_eager",), "add -m"),
        (("ort",), "key=value"),
        (("suite.name=speed",), "latency"),
        (("backend=tensorflow",), "choices: faster_transformer, null, openvino, ort"),
        (("backend.name=trt",), "backend.name is now backend; write backend=VALUE"),
        (("backend=null", "backend.time_limit=3"), "backend.time_limit is now time_limit; write time_limit=VALUE"),
        (("backend=null", "backend.cuda_graph=false"), "backend.cuda_graph is now cuda_graph"),
        (("backend=null", "backend.interpreter=trt"), "backend.interpreter is now backend_interpreter"),
        (("backend=null", "time_limit=-1"), "time_limit=-1.0 must be at least 0"),
        (("backend=null", "model.name=a/b"), "cannot be part of a file name"),
        (("--cfg", "job", "-m", "backend=null"), "leave out -m"),
        (("backend=",), "choices: faster_transformer, null, openvino"),
        (("backend=null", "+new=1"), "there is no key new"),
        (("backend=null", "+ort.fuse=on"), "did you mean ort.fusion?"),
        (("backend=null", "gpu=3"), "use the default, gpu=0"),
        (("backend=null", "null.step_ms=-1"), "null.step_ms=-1.0 must be at least 0"),
        (("backend=null", "suite.minimum_cosine=2"), "suite.minimum_cosine=2.0 must be between -1 and 1"),
        (("weights=random", "model.path=/nowhere"), "leave one out"),
        (("model.tokenizer=/nowhere",), "trained weights have their own tokenizer"),
        (("weights=random", "model.tokenizer=/nowhere"), "/nowhere has no tokenizer.json"),
        (("batch=[1,8",), "close its brackets"),
        (("experiment=bert_fp16",), "experiment=bert_fp16 is a sweep: add -m"),
        (("--foo",), "there is no flag --foo"),
        (("precision=FP32",), "did you mean fp32?"),
        (("backend=null", "seed=-1"), "seed=-1 must be at least 0"),
        (("backend=null", "suite=switching", "seed=-1"), "seed=-1 must be at least 0"),
        (("backend=null", "suite=switching", "suite.pairs_s=inf"), "must be greater than 0 and finite"),
        (("backend=null", "batch=[0]"), "batch=0 is too small"),
        (("backend=null", "batch=[99999999999999999999]"), "batch=99999999999999999999 is too large"),
        (("backend=null", "seed=9223372036854775808"), "seed=9223372036854775808 is too large"),
        (("backend=null", "batch=[]"), "batch=[] is empty; give at least one value"),
        (("backend=null", "sequence=[0]"), "sequence=0 is too small"),
        (("backend=null", "sequence=[513]"), "sequence=513 is beyond the 512 positions of minilm"),
        (("model=roberta_base", "weights=random", "sequence=[513]"), "beyond the 512 positions of roberta_base"),
        (("model.path=/nowhere",), "/nowhere has no config.json"),
        (("backend=null", "device=cuda"), "runs on the CPU only"),
        (("backend=null", "lengths=file"), "lengths.path"),
        (("backend=null", "lengths=stsb", "lengths.counts=[1]"), "lists of the same size"),
        (("backend=null", "lengths=squad_like", "lengths.sigma=0"), "lengths.sigma=0.0 must be greater"),
        (("backend=null", "lengths=file", "lengths.path=Makefile"), "Makefile, line 1"),
        (("backend=null", "lengths.passes=2"), "lengths.passes sorts sequences by length"),
        (("backend=null", "lengths=stsb", "lengths.passes=3"), "lengths.passes=3 does not divide batch=1"),
        (("backend=ort", "suite=accuracy", "lengths=stsb", "lengths.passes=2"), "lengths.passes is for suite=latency"),
        (("backend=null", "suite.seconds=0"), "suite.seconds=0.0 must be greater than 0"),
        (("backend=null", "interpreter.main=/no/python"), "interpreter.main=/no/python"),
        (("precision=int8", "backend=ort", "quantization.placement=heads"), "attention"),
        (
            ("backend=ort", "precision=int8", "quantization.scheme=implicit", "quantization.method=percentile"),
            "minmax or",
        ),
        (("backend=ort", "precision=int8", "quantization.sequence=1"), "quantization.sequence=1 must be at least 2"),
        (("backend=ort", "precision=int8", "quantization.sequence=513"), "is beyond the 512 positions of minilm"),
        (("backend=null", "backend_interpreter=trt9"), "choices: main, trt"),
    ],
)
def test_bad_input_is_refused_in_one_line(cli: Cli, tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    done = cli(*arguments)
    assert done.returncode == 2
    assert says in one_line(done.stderr)
    assert not list((tmp_path / "results").rglob("*.json"))


def test_an_empty_folder_name_is_refused(cli: Cli) -> None:
    done = cli("backend=null", "results=", folders=False)
    assert done.returncode == 2
    assert "results= names no folder" in one_line(done.stderr)


def test_an_unusable_python_is_reported_with_its_needs_and_its_log(cli: Cli, tmp_path: Path) -> None:
    python = tmp_path / "bare-python"
    python.write_text("#!/bin/sh\necho \"No module named 'numpy'\"\nexit 1\n")
    python.chmod(0o755)
    done = cli("backend=null", f"interpreter.main={python}", *QUICK)
    assert done.returncode == 1
    assert "probe exited with status 1 without an answer: No module named 'numpy'" in done.stderr
    assert "must be a Python with numpy" in done.stderr
    log = Path(done.stderr.partition("(log: ")[2].partition(")")[0])
    assert "numpy" in (ROOT / log).read_text()


@pytest.mark.skipif(bool(os.environ.get("CUDA_VISIBLE_DEVICES")), reason="would hide the GPU twice")
def test_a_missing_gpu_is_refused(cli: Cli) -> None:
    done = cli("backend=ort", "device=cuda", CUDA_VISIBLE_DEVICES="-1")
    assert done.returncode == 2
    assert "needs an NVIDIA GPU" in one_line(done.stderr)


def test_a_model_folder_without_weights_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    done = cli(f"model.path={tmp_path / 'model'}")
    assert done.returncode == 2
    assert "has no model.safetensors" in one_line(done.stderr)


def test_results_that_cannot_be_written_are_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = cli("backend=null", f"results={tmp_path / 'file' / 'below'}", f"cache={tmp_path / 'cache'}", folders=False)
    assert done.returncode == 2
    assert "cannot be written" in one_line(done.stderr)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_refused_and_leaves_no_partial_record(cli: Cli, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        for folder, other in (("results", "cache"), ("cache", "results")):
            done = cli(
                "backend=null", *QUICK, f"{folder}={disk}", f"{other}={tmp_path / 'roomy'}", "null.step_ms=0",
                "suite.min_samples=5000", "suite.max_samples=5000", folders=False,
            )  # fmt: skip
            assert done.returncode == 2, done.stderr
            assert "cannot" in one_line(done.stderr)
            assert not [path for path in disk.rglob("*.json") if path.parent.name == "latency"]
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)  # this process keeps the lock of its job folders
