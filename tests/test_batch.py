from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT, command_lines_with, wait_until
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from backends.base import Device
from backends.options import Profiles
from backends.profiles import plan_profiles
from suites import batch
from suites.asking import chosen_machine, request
from suites.batch_runs import line_processes
from suites.batch_runs.engine_schedule import Batch, Division
from suites.batch_runs.line_processes import LineProcesses
from suites.cli import batch_file
from suites.cli.cell_commands import split_sweep
from suites.cli.local_settings import register
from suites.measuring.machine import Machine
from suites.records.cell import Cell
from suites.records.results_folder import read_records
from suites.root import CONF
from suites.schema.refusals import Refused
from suites.switching.suite import SwitchingQuestion

register()
COMMITTED = [line for file in sorted((CONF / "batches").glob("*.txt")) for line in batch_file.read_lines(file)]
QUICK = ("suite.seconds=0.02", "suite.warm_up_s=0.05", "batch=[2]", "sequence=[16]", "repeats=1")


def folders(tmp_path: Path) -> list[str]:
    return [f"results={tmp_path / 'results'}", f"cache={tmp_path / 'cache'}"]


def test_a_batch_builds_and_measures_every_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cells.txt"
    file.write_text("# a sweep\n\n-m backend=null null.step_ms=2,3  # of two\n")
    assert batch_file.read_lines(file) == [["-m", "backend=null", "null.step_ms=2,3"]]
    assert batch.main([str(file), "--builders", "2", *QUICK, *folders(tmp_path)]) == 0
    records = list(read_records(tmp_path / "results", "latency"))
    assert sorted(record.cell.options["step_ms"] for record in records) == [2.0, 3.0]
    printed = capsys.readouterr().out
    assert printed.count("until=build") == 2
    numbered = [line[:13] for line in printed.splitlines() if line.startswith("cell ")]
    assert numbered == ["cell 1 of 2  ", "cell 2 of 2  "]
    assert printed.count("not measured") == 2


def test_a_batch_of_the_project_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed copy has these files in a folder that nobody types."""
    monkeypatch.chdir(tmp_path)
    own = CONF / "batches" / "switching.txt"
    assert batch_file.batch_file(Path("switching")) == batch_file.batch_file(Path("switching.txt")) == own
    for other in ("below/switching.txt", str(own)):
        assert batch_file.batch_file(Path(other)) == Path(other)
    with pytest.raises(Refused, match=r"there is no file switchin; did you mean switching\? use a file or a batch"):
        batch_file.batch_file(Path("switchin"))
    Path("switching.txt").write_text("backend=null")
    assert batch_file.batch_file(Path("switching.txt")) == Path("switching.txt")


@pytest.mark.parametrize("text", ["batch=[1,2", "# nothing", None])
def test_a_file_that_is_not_a_batch_is_refused(
    text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cells.txt"
    if text:
        file.write_text(text)
    assert batch.main([str(file)]) == 2
    assert capsys.readouterr().err.startswith("refused: ")


@pytest.mark.parametrize(("line", "says"), [("'backend=null", "no closing quotation"), ("batch=[1] \\", "no escaped")])
def test_a_line_that_no_shell_can_parse_is_named(
    line: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cells.txt"
    file.write_text(f"backend=null\n{line}\n")
    assert batch.main([str(file)]) == 2
    assert f"{file}, line 2: {says}" in capsys.readouterr().err


@pytest.mark.parametrize("option", [("--builders", "-1"), ("--bulders", "3"), ("--ahead", "0")])
def test_an_option_without_effect_is_refused(
    option: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cells.txt"
    file.write_text("backend=null\n")
    assert batch.main([str(file), *option]) == 2
    assert option[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--bulders", "3"], "there is no option --bulders; did you mean --builders? (number of engines"),
        (["--builders", "x"], "--builders x must be a whole number"),
        (["--seed", "3"], "there is no option --seed; did you mean seed=VALUE?"),
        (["suite.secnds=1"], "there is no key suite.secnds; did you mean suite.seconds? (Measuring time"),
    ],
)
def test_an_option_with_a_typo_names_the_nearest(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cells.txt"
    file.write_text("backend=null\n")
    assert batch.main([str(file), *arguments]) == 2
    assert f"refused: {says}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("bacth=[1]", "there is no key bacth; did you mean batch? (Batch sizes."),
        ("-m trt.mni=[1,2],[2,2]", "there is no key trt.mni; did you mean trt.min? (Smallest"),
        ("model.architecture.hiden_size=3", "did you mean model.architecture.hidden_size?"),
        ("backend=nul", "did you mean null?"),
    ],
)
def test_a_typo_in_a_line_is_refused_before_any_line_runs(
    line: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cells.txt"
    file.write_text(f"backend=null\n{line}\n")
    assert batch.main([str(file), *folders(tmp_path)]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith(f"refused: {file}, line 2: ")
    assert says in error
    assert not (tmp_path / "results").exists()


def test_known_entries_and_new_ones_with_a_plus_are_accepted(tmp_path: Path) -> None:
    lines = ["model.architecture.hidden_size=64", "+model.architecture.new=3"]
    (tmp_path / "cells.txt").write_text("\n".join(lines))
    assert batch_file.read_cells(tmp_path / "cells.txt") == [(1, [lines[0]]), (2, [lines[1]])]


def test_a_line_that_is_refused_runs_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cells.txt"
    file.write_text("backend=null sequence=[600]\n")
    assert batch.main([str(file), *folders(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert out.count("refused: sequence=600 is beyond the 512 positions") == 1
    assert "started: " not in out


def without_gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Hide all GPUs. Return the lines that start."""
    started: list[str] = []
    monkeypatch.setattr(batch, "gpu_uuids", list)
    monkeypatch.setattr(chosen_machine, "gpus", list)
    monkeypatch.setattr(LineProcesses, "run", lambda self, line, *extra: started.append(" ".join(line)))
    return started


def test_lines_that_need_a_gpu_are_named_once_on_a_machine_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = without_gpu(monkeypatch)
    file = tmp_path / "cells.txt"
    file.write_text("""# the cells
backend=trt precision=fp16
backend=null device=cuda
backend=null

backend=torch_tensorrt
-m backend=trt_plugin precision=fp16,int8
-m backend=torch_eager device=cpu,cuda
backend=trt trt.target=sm89 until=build
-m experiment=minilm_precisions
""")
    assert batch.main([str(file), "repeats=1"]) == 1
    assert started == [
        "backend=null device=cuda", "backend=null", "-m backend=torch_eager device=cpu",
        "backend=trt trt.target=sm89 until=build", "-m experiment=minilm_precisions",
    ]  # fmt: skip
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == (
        "not started: 5 cells of lines 2, 6 to 8: no NVIDIA GPU is visible here (nvidia-smi must list it); "
        "the other lines run"
    )
    assert printed[1:6] == [
        "failed: backend=trt precision=fp16", "failed: backend=torch_tensorrt",
        "failed: -m backend=trt_plugin precision=fp16", "failed: -m backend=trt_plugin precision=int8",
        "failed: -m backend=torch_eager device=cuda",
    ]  # fmt: skip


def test_a_batch_in_which_every_line_needs_a_gpu_is_refused_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = without_gpu(monkeypatch)
    file = tmp_path / "cells.txt"
    file.write_text("backend=ort\n")
    assert batch.main([str(file), "device=cuda"]) == 2
    assert capsys.readouterr() == ("", (
        "refused: no NVIDIA GPU is visible here (nvidia-smi must list it), and every line needs one; "
        "run the batch on a machine with a GPU\n"
    ))  # fmt: skip
    assert started == []
    assert batch.main([str(file), "repeats=1"]) == 0
    assert started == ["backend=ort"]


def test_lines_are_not_checked_for_a_gpu_on_a_machine_with_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = without_gpu(monkeypatch)
    monkeypatch.setattr(batch, "gpu_uuids", lambda: ["a"])
    (tmp_path / "cells.txt").write_text("backend=trt\n")
    assert batch.main([str(tmp_path / "cells.txt"), "repeats=1"]) == 0
    assert started == ["backend=trt"]


def test_a_sweep_is_split_into_its_cells() -> None:
    line = [
        "-m",
        "backend=null,ort",
        "sequence=[128],[384]",
        "trt.tactic_sources=[none]",
        "experiment=minilm_precisions",
    ]
    assert split_sweep(line) == [
        [
            "-m",
            f"backend={backend}",
            f"sequence={sequence}",
            "trt.tactic_sources=[none]",
            "experiment=minilm_precisions",
        ]
        for backend in ("null", "ort")
        for sequence in ("[128]", "[384]")
    ]


def test_a_line_that_fails_is_named_and_the_others_continue(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cells.txt"
    file.write_text("backend=null null.behaviour=raise\nbackend=null\n")
    assert batch.main([str(file), "--builders", "0", *QUICK, *folders(tmp_path)]) == 1
    assert "failed: backend=null null.behaviour=raise" in capsys.readouterr().out
    assert {record.outcome for record in read_records(tmp_path / "results", "latency")} == {"ok", "failed"}


def test_nothing_starts_after_the_time_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cells.txt"
    file.write_text("backend=null\n")
    assert batch.main([str(file), "--seconds", "0", *folders(tmp_path)]) == 0
    assert capsys.readouterr().out.count("skipped because the time is over: backend=null") == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("flags", "built"),
    [
        ([], [False] * 3),
        (["--ahead", "2"], [True, True, False, False, True, False]),
        (["--builders", "2"], [True, True, False, False, True, False]),
        (["--builders", "2", "--ahead", "3"], [True] * 3 + [False] * 3),
    ],
)
def test_a_gpu_measures_its_builds_before_new_builds_start(
    flags: list[str], built: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cells.txt"
    file.write_text("-m backend=null null.step_ms=1,2,3\n")
    ran: list[bool] = []
    monkeypatch.setattr(LineProcesses, "run", lambda self, line, *extra: ran.append("until=build" in extra))
    assert batch.main([str(file), *flags, "repeats=1"]) == 0
    assert ran == built


def test_an_engine_that_is_scored_and_timed_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = split_sweep(["suite=accuracy,latency", "task=stsb,banking77", "task.calibration=x"])
    own = [["task=stsb"], ["task=banking77"]]
    switching = ["suite=switching", "task=stsb"]
    engines = batch_file.group_by_engine([*cells, *own, [batch_file.ACCURACY_SUITE, "task=stsb"], switching])
    assert engines == [cells, [own[0], [batch_file.ACCURACY_SUITE, "task=stsb"]], [own[1]], [switching]]
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(LineProcesses, "run", lambda self, line, *extra: ran.append((*line[:2], *extra)))
    Batch(LineProcesses(()), float("inf")).work(iter(engines[:1]), "", Division(2, 2, 0))
    assert ran[0] == ("suite=accuracy", "task=stsb", "until=build")
    assert sorted(ran[1:3]) == [("suite=accuracy", "task=banking77"), ("suite=accuracy", "task=stsb")]
    lines = [("suite=latency", "task=stsb"), ("suite=latency", "task=banking77")]
    assert ran[3:] == [
        (*line, f"repeats={process}", *(["rerun=false"] if process > 1 else []))
        for process in (1, 2, 3)
        for line in lines
    ]


def test_a_gpu_measures_cells_without_a_build_while_no_built_engine_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first cell without a build ends after all builds, so the built engines are before the second one."""
    file = tmp_path / "cells.txt"
    file.write_text("backend=trt\nbackend=torch_eager\nbackend=ort\nbackend=torch_compile\nbatch=[7]\n")
    ran: list[tuple[str, ...]] = []
    all_built, measuring = threading.Event(), threading.Event()

    def run(self: LineProcesses, line: Sequence[str], *extra: str) -> None:
        ran.append((line[0], *extra))
        if "until=build" in extra:
            assert measuring.wait(60)
            if line[0] == "batch=[7]":
                all_built.set()
        elif line[0] == "backend=torch_eager":
            measuring.set()
            assert all_built.wait(60)

    monkeypatch.setattr(batch, "gpu_uuids", lambda: ["a", "b"])
    monkeypatch.setattr(LineProcesses, "run", run)
    assert batch.main([str(file), "--measuring", "1"]) == 0
    builds = [line for line, *extra in ran if "until=build" in extra]
    assert builds == ["backend=ort", "backend=trt", "batch=[7]"]
    measured = [line for line, *extra in ran if extra == ["gpu=1"]]
    assert measured[0] == "backend=torch_eager"
    assert measured[1:3] == ["backend=ort", "backend=trt"]
    assert sorted(measured[3:]) == ["backend=torch_compile", "batch=[7]"]


@pytest.mark.parametrize(
    ("words", "build"),
    [
        (["backend=trt"], "engine"), (["backend=ort"], "files"), (["backend=torch_eager"], "nothing"),
        (["backend=torch_eager", "backend=trt"], "engine"), ([], "engine"), (["experiment=x"], "engine"),
        (["backend=unknown"], "engine"),
    ],
)  # fmt: skip
def test_the_backend_of_a_line_tells_what_its_build_makes(words: list[str], build: str) -> None:
    assert batch_file.build_of(words) is batch_file.Build[build]


def test_some_gpus_build_and_others_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cells.txt"
    file.write_text("-m backend=trt batch=[1],[2],[3]\n")
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(batch, "gpu_uuids", lambda: ["a", "b", "c"])
    monkeypatch.setattr(LineProcesses, "run", lambda self, line, *extra: ran.append((line[-1], *extra)))
    assert batch.main([str(file), "--builders", "2", "--measuring", "1"]) == 0
    steps = [f"batch=[{step}]" for step in (1, 2, 3)]
    assert sorted(line for line, *extra in ran if extra == ["gpu=2"]) == steps
    assert sorted(line for line, *extra in ran if "until=build" in extra) == steps
    assert {extra[-1] for _, *extra in ran if "until=build" in extra} <= {"gpu=0", "gpu=1"}
    assert all(ran.index((step, "gpu=2")) > [line for line, *_ in ran].index(step) for step in steps)
    assert batch.main([str(file), "--measuring", "3"]) == 2
    assert "--measuring 3 needs another device that builds" in capsys.readouterr().err


def test_cells_of_a_gpu_that_disappears_run_on_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first cell that starts on the first GPU fails, because the GPU disappears."""
    file = tmp_path / "cells.txt"
    file.write_text("-m backend=null null.step_ms=1,2,3,4\n")
    present = ["a", "b"]
    ended: list[str] = []

    class Process:
        def __init__(self, command: list[str], env: dict[str, str], **unused: object) -> None:
            device = env["CUDA_VISIBLE_DEVICES"]
            assert command[-1] == "gpu=0"
            self.returncode = int(device == "a")
            if device == "a":
                present.remove("a")
            else:
                ended.append(next(word for word in command if "step_ms" in word))

        def communicate(self) -> tuple[str, str]:
            return "", ""

    monkeypatch.setattr(batch, "gpu_uuids", lambda: list(present))
    monkeypatch.setattr(line_processes, "subprocess", SimpleNamespace(Popen=Process, DEVNULL=None, PIPE=None))
    assert batch.main([str(file), "--builders", "0", "suite=accuracy"]) == 0
    assert sorted(ended) == [f"null.step_ms={step}" for step in (1, 2, 3, 4)]
    assert "gpu=0 has disappeared; another GPU runs: " in capsys.readouterr().out
    present.clear()
    file.write_text("backend=null\n")
    uuids = iter([["a"], []])
    monkeypatch.setattr(batch, "gpu_uuids", lambda: next(uuids, []))
    assert batch.main([str(file), "--builders", "0"]) == 1
    assert "failed: backend=null" in capsys.readouterr().out


def test_a_batch_that_ends_stops_all_processes_that_it_started(tmp_path: Path) -> None:
    file = tmp_path / "cells.txt"
    file.write_text("backend=null null.behaviour=hang\nbackend=null null.step_ms=9\n")
    command = [sys.executable, "-m", "suites.batch", str(file), "--builders", "0", *QUICK, *folders(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        wait_until(lambda: any("suites.worker measure" in line for line in command_lines_with(str(tmp_path))))
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate()
    assert process.returncode == 130
    assert "skipped because the batch was stopped: backend=null null.step_ms=9" in printed
    wait_until(lambda: not command_lines_with(str(tmp_path)))


@pytest.mark.parametrize("line", COMMITTED, ids=" ".join)
def test_the_lines_of_a_committed_batch_compose(line: list[str]) -> None:
    """Only the first cell of a sweep is composed."""
    words = [word for word in split_sweep(line)[0] if word != "-m"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose("run", overrides=words)


def test_cells_of_the_switching_batch_resolve_and_have_profiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This batch has the least time on a GPU: it must contain no cell that is refused, and no cell twice."""
    card = Machine(Device("cuda", 0, "NVIDIA H200", "GPU-0", (9, 0)), "nvidia-h200", {"uuid": "GPU-0"})
    monkeypatch.setattr(chosen_machine, "gpus", lambda: [card])
    lines = batch_file.read_lines(CONF / "batches" / "switching.txt")
    words = [[word for word in cell if word != "-m"] for line in lines for cell in split_sweep(line)]
    requests = []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for cell in words:
            config = compose("run", overrides=[*cell, *folders(tmp_path)])
            requests.append(request.resolve(OmegaConf.to_object(config)))
    assert len({Cell(release="", **resolved.cell).id for resolved in requests}) == len(requests)
    for resolved in requests:
        if resolved.backend.startswith("trt"):
            assert plan_profiles(resolved.spec.shapes, resolved.spec.options)
    on_tensorrt = [resolved for resolved in requests if resolved.backend.startswith("trt")]
    assert {(resolved.backend, resolved.cell["precision"]) for resolved in on_tensorrt} == {
        (backend, precision) for backend in ("trt", "trt_plugin") for precision in ("fp16", "int8")
    }
    for resolved in on_tensorrt:
        names = {"switch=0", "switch=0.01", "switch=0.1", "switch=0.5", "switch=1", "stsb"}
        assert isinstance(resolved.question, SwitchingQuestion)
        assert set(resolved.question.traffic) == names
        assert len(resolved.question.requested) >= 6
    # Each engine is used once before an engine is used again, and the longest runs are last.
    engines = [str([line for line in cell if not line.startswith(("trt.contexts", "switching."))]) for cell in words]
    assert len(set(engines[:10])) == 10
    assert {resolved.spec.options.profiles for resolved in requests[-5:-1]} == {Profiles.per_shape}
    assert requests[-1].backend == "torch_compile"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("backend=null model.name=a=b", "line 3: 'model.name=a=b' has characters that must be quoted"),
        ("backend=null batch=[1", "line 3: 'batch=[1' is cut short"),
        ("backend=null --multrun", "line 3: there is no flag --multrun"),
        ("backend=null hydra/launcher=joblib", "line 3: hydra/launcher cannot be set here"),
        (
            "backend=null trt.memry_mb=1",
            "line 3: there is no key trt.memry_mb; did you mean trt.memory_mb? (Device memory",
        ),
        (
            "-m backend=null,ortt",
            "line 3: there is no backend=ortt; did you mean ort? choices: faster_",
        ),
        ("-m backend=null seed=range(0,3,0)", "line 3: "),
        ("backend=null 'x", "line 3: no closing quotation"),
    ],
)
def test_a_line_that_is_not_a_command_is_named_by_its_number(
    line: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cells.txt"
    file.write_text(f"# the cells\nbackend=null\n{line}\n")
    assert batch.main([str(file)]) == 2
    error = capsys.readouterr().err
    assert f"cells.txt, {says}" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("option", [("--seconds", "nan"), ("--seconds", "-1"), ("--measuring", "-1")])
def test_options_that_select_no_work_are_refused(
    option: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cells.txt"
    file.write_text("backend=null\n")
    assert batch.main([str(file), *option]) == 2
    error = capsys.readouterr().err
    assert option[0] in error
    assert error.count("\n") == 1


def test_paths_in_a_batch_are_taken_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bs=32,lr=1").mkdir()
    assert split_sweep(["-m", "backend=ort", "model.path=bs=32,lr=1,x (1)"]) == [
        ["-m", "backend=ort", f'model.path="{path}"'] for path in ("bs=32,lr=1", "x (1)")
    ]
    assert split_sweep(["model.path=a,b"]) == [['model.path="a,b"']]
