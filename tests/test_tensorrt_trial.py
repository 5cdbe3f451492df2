"""Plans that do not open at every profile, over a TensorRT of which nothing is real."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from backends.tensorrt_ import trial

OPTIONS = {"version_compatible": False, "plugin_libraries": []}


def answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> list[str]:
    """What a child that does `script` is taken for."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    return trial.faults(tmp_path / "model.plan", OPTIONS, 0)


def test_a_plan_that_opens_has_no_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answering(tmp_path, monkeypatch, "echo it ended at profile 0; echo ERROR: but well >&2; echo") == []


def test_a_child_that_is_killed_tells_where_and_after_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    script = "echo it ended at profile 0; echo it ended at profile 1; echo CHECK failed >&2; echo ERROR: Myelin >&2"
    found = answering(tmp_path, monkeypatch, f"{script}; kill -SEGV $$")
    assert found == ["Myelin", "it ended at profile 1 (ERROR: Myelin)"]
    assert "CHECK failed" in capfd.readouterr().err


def test_a_child_that_says_nothing_or_never_ends_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answering(tmp_path, monkeypatch, "exit 1") == ["it did not open (no reason given)"]
    monkeypatch.setattr(trial, "SECONDS", 0.2)
    assert answering(tmp_path, monkeypatch, "exec sleep 30") == ["it did not open within 0.2 s"]


class Context:
    def __init__(self, refused: tuple[str, Any]) -> None:
        self.refused, self.went = refused, list[Any]()

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.went.append(index)
        return ("profile", index) != self.refused

    def set_input_shape(self, name: str, sizes: tuple[int, ...]) -> bool:
        self.went.append(sizes)
        return ("shape", sizes) != self.refused


@pytest.mark.parametrize(
    ("refused", "says", "went"),
    [
        (("", 0), "", [0, (8, 16), 1, (8, 32)]),
        (("profile", 1), "the context does not go to profile 1", [0, (8, 16), 1]),
        (("shape", (8, 16)), "input_ids does not take (8, 16) in profile 0", [0, (8, 16)]),
        (None, "there is no execution context", []),
    ],
)
def test_every_profile_is_visited_at_its_largest(
    refused: Any, says: str, went: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    context = Context(refused) if refused else None
    engine = SimpleNamespace(
        num_io_tensors=2, num_optimization_profiles=2, get_tensor_name=["input_ids", "hidden"].__getitem__,
        get_tensor_mode=lambda name: "in" if name == "input_ids" else "out", create_execution_context=lambda: context,
        get_tensor_profile_shape=lambda name, index: ((1, 16), (8, 16), (8, 16 * (index + 1))),
    )  # fmt: skip
    stream = SimpleNamespace(handle=0, synchronize=lambda: None)
    modules = {
        "tensorrt": SimpleNamespace(TensorIOMode=SimpleNamespace(INPUT="in")),
        "backends.cuda": SimpleNamespace(CudaStream=lambda index: stream, use_device=lambda index: None),
        "backends.tensorrt_.loading": SimpleNamespace(load_plugins=MagicMock(), read_plan=lambda *_: engine),
        "backends.tensorrt_.log": SimpleNamespace(Log=MagicMock()),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"plan")
    assert trial.visit(plan, {**OPTIONS, "device": 0}) == says
    assert (context.went if context else []) == went
    assert capsys.readouterr().out.count("it ended at profile") == sum(isinstance(x, int) for x in went)
