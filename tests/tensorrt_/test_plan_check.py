"""Checks of plans that do not open at every profile, with a mock of TensorRT."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_api import fake_api

from backends.tensorrt_.build import plan_check
from backends.tensorrt_.runtime.tensorrt_options import TensorRTOptions

OPTIONS = TensorRTOptions()


def faults_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> list[str]:
    """Return the faults that are read from a child process that runs the shell script `script`."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    return plan_check.find_faults(tmp_path / "model.plan", OPTIONS, 0)


def test_a_plan_that_opens_has_no_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "echo the process ended at profile 0; echo ERROR: but well >&2; echo"
    assert faults_of(tmp_path, monkeypatch, script) == []


def test_faults_of_a_killed_child_have_the_profile_and_the_last_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    profiles = "echo the process ended at profile 0; echo the process ended at profile 1"
    script = f"{profiles}; echo CHECK failed >&2; echo ERROR: Myelin >&2; kill -SEGV $$"
    faults = faults_of(tmp_path, monkeypatch, script)
    assert faults == ["Myelin", "the process ended at profile 1 (ERROR: Myelin)"]
    assert "CHECK failed" in capfd.readouterr().err


def test_a_child_that_prints_nothing_or_never_ends_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert faults_of(tmp_path, monkeypatch, "exit 1") == ["it did not open (no reason given)"]
    monkeypatch.setattr(plan_check, "SECONDS", 0.2)
    assert faults_of(tmp_path, monkeypatch, "exec sleep 30") == ["it did not open within 0.2 s"]


class Context:
    def __init__(self, refused: tuple[str, Any]) -> None:
        self.refused, self.visited = refused, list[Any]()

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.visited.append(index)
        return ("profile", index) != self.refused

    def set_input_shape(self, name: str, sizes: tuple[int, ...]) -> bool:
        self.visited.append(sizes)
        return ("shape", sizes) != self.refused


@pytest.mark.parametrize(
    ("refused", "failure", "visited"),
    [
        (("", 0), "", [0, (8, 16), 1, (8, 32)]),
        (("profile", 1), "the context cannot switch to profile 1", [0, (8, 16), 1]),
        (("shape", (8, 16)), "input_ids does not accept sizes (8, 16) in profile 0", [0, (8, 16)]),
        (None, "there is no execution context", []),
    ],
)
def test_every_profile_is_visited_at_its_max_sizes(
    refused: Any, failure: str, visited: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    context = Context(refused) if refused else None
    engine = SimpleNamespace(
        num_io_tensors=2, num_optimization_profiles=2, get_tensor_name=["input_ids", "hidden"].__getitem__,
        get_tensor_mode=lambda name: "in" if name == "input_ids" else "out", create_execution_context=lambda: context,
        get_tensor_profile_shape=lambda name, index: ((1, 16), (8, 16), (8, 16 * (index + 1))),
    )  # fmt: skip
    stream = SimpleNamespace(handle=0, synchronize=lambda: None)
    api = fake_api()
    api.trt.TensorIOMode.INPUT = "in"
    api.trt.Runtime.return_value.deserialize_cuda_engine.return_value = engine
    monkeypatch.setattr(plan_check, "CudaStream", lambda index: stream)
    monkeypatch.setattr(plan_check, "use_device", lambda index: None)
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"plan")
    assert plan_check.check_profiles(api, plan, OPTIONS, 0) == failure
    assert (context.visited if context else []) == visited
    profiles = sum(isinstance(visit, int) for visit in visited)
    assert capsys.readouterr().out.count("the process ended at profile") == profiles
