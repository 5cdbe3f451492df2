"""The command doctor: it fails on no machine, and reports missing parts with a command that corrects it."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT

from backends.base import Device
from backends.description import SourceKind
from backends.finding import MISSING, OK, WARNING, Finding
from backends.registry import descriptions
from suites import doctor
from suites.cli import local_settings
from suites.diagnosis import diagnosis as diagnoses
from suites.diagnosis import hardware_checks, place_checks
from suites.diagnosis.diagnosis import Diagnosis, Settings, diagnose
from suites.diagnosis.interpreter_checks import check_interpreters
from suites.diagnosis.query_interpreter import NOTHING, NoAnswer, Query
from suites.diagnosis.report_text import report_json, report_text
from suites.diagnosis.runnable import Runnable, missing_for_exports, runnable
from suites.measuring.machine import Machine
from suites.schema.refusals import Refused

GOLDEN = ROOT / "tests" / "golden" / "doctor.txt"
FACTS = {"gpu": "NVIDIA Test", "uuid": "GPU-0", "driver": "580.1", "cuda_driver": "13.0", "memory_bytes": 80 * 10**9}
CARD = Machine(Device("cuda", 0, "NVIDIA Test", "GPU-0", (9, 0), driver="580"), "nvidia-test", FACTS)
CPU = Machine(Device("cpu"), "cpu-test", {"cpu": "Test", "uuid": "HOST-0"})

Script = Callable[[str], str]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Return the path of a program that runs a shell script."""

    def make(text: str) -> str:
        path = tmp_path / f"python-{len(list(tmp_path.iterdir()))}"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    return make


class StubQuery(Query):
    """Answers of interpreters without processes, by the last argument of their program."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        super().__init__(1.0)
        object.__setattr__(self, "answers", answers)

    def __call__(
        self, python: str, arguments: Sequence[str], given: str = "", environment: Mapping[str, str] = NOTHING
    ) -> Mapping[str, Any]:
        answer: Any = self.answers[arguments[-1]]  # type: ignore[attr-defined]
        if isinstance(answer, Exception):
            raise answer
        result: Mapping[str, Any] = answer(json.loads(given)) if callable(answer) else answer
        return result


# Interpreters


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("exit 3", "no answer (exit status 3): no output"),
        ("echo broken library >&2; exit 1", "no answer (exit status 1): broken library"),
        ("echo hello", "no answer (exit status 0): hello"),
        ("kill -SEGV $$", "no answer (signal 11)"),
        ("echo '{}'", "is not a Python"),
        (
            """echo '{"version": [3, 9], "python": "3.9.1", "numpy": "1"}'""",
            "Python 3.9.1 is too old; workers need 3.10",
        ),
        ("""echo '{"version": [3, 12], "python": "3.12.1", "numpy": ""}'""", "Python 3.12.1 has no numpy"),
    ],
)
def test_a_broken_interpreter_is_a_line_with_a_fix(text: str, says: str, script: Script) -> None:
    path = script(text)
    main, other = check_interpreters({"main": "", "trt": path}, Query(60.0))
    assert (main.finding.status, main.path) == (OK, sys.executable)
    assert (other.finding.status, other.path) == (MISSING, "")
    assert says in other.finding.text
    assert other.finding.fix in ("python -m suites.doctor interpreter.trt=PATH", f"{path} -m pip install numpy")


def test_an_interpreter_that_hangs_is_stopped(script: Script) -> None:
    path = script("sleep 1000")
    (main,) = check_interpreters({"main": path}, Query(0.2))
    assert (main.finding.status, main.path) == (MISSING, "")
    assert main.finding.text == f"{path}: no answer within 0.2 s"


@pytest.mark.parametrize(("given", "says"), [("/no/such/python", "there is no such file"), ("/", "is a folder")])
def test_a_path_without_a_program_is_a_line(given: str, says: str) -> None:
    *_, python = check_interpreters({"main": "", "trt": given}, Query(60.0))
    assert python.finding.status == MISSING
    assert says in python.finding.text


def test_a_program_that_cannot_be_executed_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "python"
    path.write_text("no program")
    path.chmod(0o755)
    *_, python = check_interpreters({"main": "", "trt": str(path)}, Query(60.0))
    assert "neither a program of this machine nor a script" in python.finding.text


def test_an_interpreter_that_is_not_set_is_the_main_one() -> None:
    main, other = check_interpreters({"main": "", "trt": ""}, Query(60.0))
    assert other.path == main.path
    assert other.finding == Finding("interpreter.trt", OK, "not set, the same as interpreter.main")


def test_without_a_temporary_folder_interpreters_still_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: object) -> None:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    assert Query(60.0)(sys.executable, ["-c", "print('{\"a\": 1}')"]) == {"a": 1}


# Backends


def test_the_survey_of_a_backend_runs_in_its_interpreter() -> None:
    answer = runnable(descriptions()["null"], sys.executable, [CPU], {}, Query(120.0))
    assert (answer.device, answer.has_model, answer.runs) == ("cpu", False, True)
    assert set(answer.reasons.values()) == {""}


def probed(data: Any, **fields: Any) -> dict[str, Any]:
    answers = {
        name: {"outcome": "ok" if name == "fp32" else "unsupported", "reason": f"no {name}"} for name in data["jobs"]
    }
    return {"findings": [], "probed": answers, **fields}


def test_reasons_are_those_of_the_check() -> None:
    answer = runnable(descriptions()["ort"], "python", [CPU], {}, StubQuery({"ort": probed}))
    assert answer.runs
    assert (answer.reasons["fp32"], answer.reasons["int8"]) == ("", "no int8")


def test_without_packages_for_exports_no_precision_runs() -> None:
    query = StubQuery({"ort": probed, "export": {"missing": {"checkpoint": ["torch"], "onnx": ["torch", "onnx"]}}})
    missing, finding = missing_for_exports("/bin/python", query)
    assert finding == Finding(
        "export", MISSING, "interpreter.main lacks onnx, torch", "/bin/python -m pip install onnx torch"
    )
    answer = runnable(descriptions()["ort"], "python", [CPU], missing, query)
    assert set(answer.reasons.values()) == {"exports need torch, onnx"}
    missing, finding = missing_for_exports("", query)
    assert finding.status == MISSING
    assert SourceKind.none.name not in missing


@pytest.mark.parametrize("answer", [{}, {"findings": [3, {"x": 1}]}, {"probed": 3}, NoAnswer("no answer (signal 11)")])
def test_a_crashing_or_strange_survey_is_no_error(answer: Any) -> None:
    found = runnable(descriptions()["ort"], "python", [CPU], {}, StubQuery({"ort": answer}))
    assert not found.runs
    assert all(found.reasons.values())


def test_a_backend_that_cannot_use_the_gpu_runs_on_the_cpu() -> None:
    def answer(data: Any) -> Any:
        on_gpu = data["device"]["kind"] == "cuda"
        found = [{"name": "L", "status": MISSING, "text": "it cannot use the GPU", "fix": "x"}] if on_gpu else []
        return probed(data, findings=found)

    found = runnable(descriptions()["ort"], "python", [CARD, CPU], {}, StubQuery({"ort": answer}))
    assert (found.device, found.runs) == ("cpu", True)
    assert [finding.text for finding in found.findings] == ["it cannot use the GPU"]


def test_a_library_for_a_device_that_is_not_here_is_only_a_warning() -> None:
    found_library = {"name": "L", "status": MISSING, "text": "not installed", "fix": "x"}
    query = StubQuery({"trt": lambda data: probed(data, findings=[found_library])})
    found = runnable(descriptions()["trt"], "python", [CPU], {}, query)
    assert [finding.status for finding in found.findings] == [WARNING]
    assert set(found.reasons.values()) == {"needs a device of kind cuda, and none is visible here"}


# Hardware, folders and hub


def test_no_nvml_no_driver_and_a_failing_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    findings, found = hardware_checks.hardware()
    assert (findings[-1].status, found) == (MISSING, [])
    assert findings[-1].fix.endswith("-m pip install nvidia-ml-py")
    monkeypatch.setattr(hardware_checks, "gpus", list)
    assert hardware_checks.hardware()[0][-1].status == WARNING

    def fail() -> None:
        raise RuntimeError("Driver/library version mismatch")

    monkeypatch.setattr(hardware_checks, "gpus", fail)
    assert "Driver/library version mismatch" in hardware_checks.hardware()[0][-1].text
    monkeypatch.setattr(hardware_checks, "gpus", lambda: [CARD])
    assert hardware_checks.hardware()[0][-1] == Finding(
        "GPU", OK, "NVIDIA Test, 80 GB, driver 580.1, CUDA 13.0, compute capability 9.0"
    )


def test_memory_is_that_of_the_cgroup(tmp_path: Path) -> None:
    sizes, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    assert hardware_checks._memory(sizes, limit).status == WARNING
    sizes.write_text("MemTotal:       16000000 kB\nMemAvailable:   10000000 kB\n")
    assert hardware_checks._memory(sizes, limit) == Finding("memory", OK, "16.4 GB, 10.2 GB free")
    limit.write_text("2000000000\n")
    found = hardware_checks._memory(sizes, limit)
    assert (found.status, found.text) == (WARNING, "2.0 GB, 2.0 GB free; large models may not fit")
    limit.write_text("max\n")
    assert hardware_checks._memory(sizes, limit).status == OK


def test_folders_are_checked_and_not_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=8 << 30))
    checks = place_checks.folder_checks("cache", str(tmp_path / "a" / "b"))
    assert [(check.name, check.status) for check in checks] == [("cache", OK), ("disk of cache", OK)]
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1 << 30))
    assert place_checks.folder_checks("cache", str(tmp_path))[1].status == WARNING
    (tmp_path / "file").write_text("")
    (check,) = place_checks.folder_checks("results", str(tmp_path / "file"))
    assert (check.status, check.fix) == (MISSING, "python -m suites.run results=/tmp/results")


def test_the_hub_is_asked_with_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in place_checks.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(place_checks, "_fault", lambda endpoint, limit: "")
    assert place_checks.hub_check(5.0).status == OK
    monkeypatch.setattr(place_checks, "_fault", lambda endpoint, limit: "no route")
    found = place_checks.hub_check(5.0)
    assert (found.status, "(no route)" in found.text) == (WARNING, True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert place_checks.hub_check(5.0).fix == "unset HF_HUB_OFFLINE"


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "no url", "http://[", "file:///none"])
def test_an_endpoint_that_cannot_be_reached_gives_a_reason(endpoint: str) -> None:
    assert place_checks._fault(endpoint, 1.0)


def test_a_hub_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    for name in place_checks.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    released = threading.Event()
    monkeypatch.setattr(place_checks, "_fault", lambda endpoint, limit: released.wait() and "")
    found = place_checks.hub_check(0.01)
    released.set()
    assert "no answer within 0.01 s" in found.text


# The command

REASONS = {"fp32": "", "fp16": "needs a GPU, " * 12, "int8": "needs a GPU, " * 12}
MADE = Diagnosis(
    [
        Finding("CPU", OK, "Test CPU, 2 cores"),
        Finding("a name that is longer than its column", OK, "text"),
        Finding("GPU", WARNING, f"no GPU \x1b[2J {'with a long text ' * 8}", "nvidia-smi"),
        Finding("PyTorch", MISSING, "not installed", f"{'/folder' * 12}/python -m pip install torch==2.13.0"),
        Finding("hub", OK, "answers", "a fix that is not needed"),
    ],
    [
        Runnable("ort", "cpu", REASONS, True),
        Runnable("a_longer_name", "", dict.fromkeys(REASONS, "needs a GPU"), True),
        Runnable("null", "cpu", dict.fromkeys(REASONS, ""), False),
    ],
)


def test_the_report_equals_the_golden_file_and_fits_in_80_columns() -> None:
    text = f"{report_text(MADE)}\n"
    assert text == GOLDEN.read_text(encoding="utf-8")
    assert max(len(line) for line in text.splitlines() if "fix: " not in line) <= 80


def test_the_json_has_the_same_content() -> None:
    data = json.loads(report_json(MADE))
    assert [check["name"] for check in data["checks"]] == [finding.name for finding in MADE.findings]
    assert data["backends"]["ort"]["precisions"]["fp32"] == {"runs": True, "reason": ""}
    assert data["backends"]["null"]["runs_a_model"] is False
    assert data["can_run"] is True


def test_a_test_backend_alone_is_not_enough() -> None:
    assert not Diagnosis([], MADE.backends[1:]).can_run
    assert "no backend can run" in report_text(Diagnosis([], MADE.backends[1:]))
    assert report_text(Diagnosis([Finding("backends", MISSING, "x")])).startswith("missing")


def test_the_exit_status_says_whether_a_backend_can_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Settings] = []
    answer = [MADE]
    monkeypatch.setattr(diagnoses, "diagnose", lambda settings, first: seen.append(settings) or answer[0])
    assert doctor.main(["interpreter.trt=/x/python", "cache=/y", "--seconds", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["can_run"] is True
    assert (seen[0].interpreters["trt"], seen[0].folders["cache"], seen[0].limit_s) == ("/x/python", "/y", 3.0)
    assert next(iter(seen[0].interpreters)) == "main"
    answer[0] = Diagnosis([])
    assert doctor.main([]) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["interpreter.tr=/x"], "there is no key interpreter.tr; did you mean interpreter.trt?"),
        (["ort"], "'ort' is not of the form key=value"),
        (["--jsn"], "there is no option --jsn; did you mean --json?"),
        (["--seconds", "0"], "--seconds must be above 0, not 0"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(arguments) == 2
    assert says in capsys.readouterr().err


def test_an_invalid_settings_file_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> dict[str, str]:
        raise Refused("inference-suites.yaml: the file is not valid YAML")

    monkeypatch.setattr(local_settings, "interpreters", fail)
    monkeypatch.setattr(diagnoses, "diagnose", lambda settings, first: Diagnosis([first]))
    assert doctor.main([]) == 1
    assert "the file is not valid YAML; it is not used" in " ".join(capsys.readouterr().out.split())


def test_missing_libraries_of_the_commands_are_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "hydra", None)
    load = importlib.import_module

    def import_module(name: str) -> object:
        if name == "numpy":
            raise OSError("libopenblas.so.0: cannot open shared object file")
        return load(name)

    monkeypatch.setattr(importlib, "import_module", import_module)
    assert doctor.main([]) == 1
    out = capsys.readouterr().out
    assert "missing  hydra-core        cannot be imported" in out
    assert f"fix: {sys.executable} -m pip install --force-reinstall numpy" in out
    assert doctor.main(["--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert (len(data["checks"]), data["can_run"]) == (2, False)


def test_no_interpreter_that_works_gives_a_whole_report(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware_checks, "gpus", list)
    broken = script("exit 1")
    made = diagnose(Settings({"main": broken, "trt": "/none"}, {"results": str(tmp_path), "cache": str(tmp_path)}))
    assert not made.can_run
    assert [backend.backend for backend in made.backends] == list(descriptions())
    names = [finding.name for finding in made.findings]
    assert {"CPU", "memory", "GPU", "interpreter.main", "interpreter.trt", "export", "results", "hub"} <= set(names)
    assert "no backend can run" in report_text(made)


def test_an_invalid_description_is_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail() -> None:
        raise Refused("backends/x_/description.py cannot be read")

    monkeypatch.setattr(diagnoses, "descriptions", fail)
    monkeypatch.setattr(diagnoses, "check_interpreters", lambda configured, query: [])
    made = diagnose(Settings({"main": ""}, {}))
    monkeypatch.setattr("suites.schema.run_schema.interpreter_keys", fail)
    assert doctor._interpreter_keys() == ["main"]
    assert Finding("backends", MISSING, "backends/x_/description.py cannot be read") in made.findings
    assert not made.can_run
