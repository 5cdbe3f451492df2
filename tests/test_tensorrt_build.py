"""How a build ends, over a TensorRT of which nothing is real."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from backends.base import BuildSpec, Device, Shape
from backends.tensorrt_ import capabilities
from backends.tensorrt_.capabilities import Capabilities
from suites.backend_config import TrtConfig
from suites.config import plain

MODULES = ("build", "inspection", "log", "progress", "timing_cache")
OPTIONS = {**plain(vars(TrtConfig(min=[1, 8], opt=[2, 8], max=[2, 8]))), "profiles": "per_shape"}
SPEC = BuildSpec("fp16", Device("cuda", 0, "NVIDIA H200", "GPU-0", (9, 0)), (Shape(2, 8),), True, Path("c"), OPTIONS)


class Stage:
    """What a build meets: the plans that the builder gives, which of them open, and the bytes that are free."""

    def __init__(self) -> None:
        self.plans: list[bytes | None] = [b"plan"]
        self.opening: list[bool] = [True]
        self.free = 100 << 30
        self.errors: list[str] = []
        self.config = MagicMock()


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    found, fake = Stage(), MagicMock()
    fake.ILogger = fake.IProgressMonitor = object
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setattr(
        capabilities, "installed", lambda: Capabilities(**dict.fromkeys(Capabilities.__dataclass_fields__, False))
    )
    for name in MODULES:
        monkeypatch.delitem(sys.modules, f"backends.tensorrt_.{name}", raising=False)
    build = importlib.import_module("backends.tensorrt_.build")
    watch = SimpleNamespace(phase="", notes=dict)
    log = SimpleNamespace(errors=found.errors, peak_bytes=0, lines=list)
    fake.Builder().create_builder_config.return_value = found.config
    fake.Builder().build_serialized_network.side_effect = lambda *_: found.plans.pop(0)
    replaced = {
        "use_device": lambda index: None, "free_memory": lambda: found.free, "Log": lambda: log,
        "Watch": lambda phase: nullcontext(watch), "opens": lambda plan, log: found.opening.pop(0),
        "write_layers": lambda path, log: {}, "load_timings": lambda *_: None, "save_timings": lambda *_: None,
        "timing_cache_path": lambda *_: Path("timings"),
    }  # fmt: skip
    for name, value in replaced.items():
        monkeypatch.setattr(build, name, value)
    yield found
    for name in MODULES:
        sys.modules.pop(f"backends.tensorrt_.{name}", None)


def built(tmp_path: Path) -> bytes:
    layout = SimpleNamespace(sizes=lambda profile: {})
    build = sys.modules["backends.tensorrt_.build"]
    build.build_plan(SPEC, tmp_path / "plan", lambda *_: (layout, {}))
    return (tmp_path / "plan").read_bytes()


def test_a_plan_that_opens_is_kept(stage: Stage, tmp_path: Path) -> None:
    assert built(tmp_path) == b"plan"
    assert not stage.config.set_timing_cache.called


def test_a_plan_that_does_not_open_is_built_again_with_new_timings(stage: Stage, tmp_path: Path) -> None:
    stage.plans, stage.opening = [b"broken", b"whole"], [False, True]
    assert built(tmp_path) == b"whole"
    assert stage.config.set_timing_cache.call_count == 1


def test_a_plan_that_never_opens_fails_with_the_last_error(stage: Stage, tmp_path: Path) -> None:
    stage.plans, stage.opening = [b"broken", b"broken"], [False, False]
    stage.errors += ["Myelin (missing offset)"]
    with pytest.raises(RuntimeError, match=r"cannot open the engine that it built, twice: Myelin \(missing offset\)"):
        built(tmp_path)
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize(
    ("free", "error", "says"),
    [
        (1 << 30, "Cuda Runtime (invalid resource handle)", "too little GPU memory to build, of which 1024 MiB"),
        (100 << 30, "Out of memory", "too little GPU memory"),
        (100 << 30, "no such kernel", "could not build the engine: no such kernel"),
    ],
)
def test_no_plan_has_its_reason(free: int, error: str, says: str, stage: Stage, tmp_path: Path) -> None:
    stage.plans, stage.free = [None], free
    stage.errors += [error]
    with pytest.raises(RuntimeError, match=says):
        built(tmp_path)
