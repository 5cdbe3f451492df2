"""Timings of tactics on disk, over a TensorRT that is only a version."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backends.base import Device

H200 = Device("cuda", 0, "NVIDIA H200", "GPU-0", (9, 0), driver="580.1")


class Timings:
    """Stands in for TensorRT's timing cache, "layer:tactic ...": what is there stays on `combine`, and what is of
    another GPU, "other", is refused."""

    def __init__(self, content: bytes) -> None:
        self.mismatches = content.startswith(b"other")
        self.tactics = {} if self.mismatches else dict(entry.split(b":") for entry in content.split())

    def combine(self, other: Timings, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.tactics = {**other.tactics, **self.tactics}
        return not other.mismatches

    def serialize(self) -> bytes:
        return b" ".join(b":".join(entry) for entry in sorted(self.tactics.items()))


class Config:
    """Stands in for a builder's configuration; reads no content that begins with "bad"."""

    def __init__(self) -> None:
        self.timings = Timings(b"")

    def create_timing_cache(self, content: bytes) -> Timings | None:
        return None if content.startswith(b"bad") else Timings(content)

    def set_timing_cache(self, timings: Timings, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.timings = timings
        return not timings.mismatches

    def get_timing_cache(self) -> Timings:
        return self.timings


@pytest.fixture
def timing_cache(monkeypatch: pytest.MonkeyPatch) -> Any:
    """backends.tensorrt_.timing_cache over a TensorRT that is only a version."""
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="8.6.0"))
    monkeypatch.delitem(sys.modules, "backends.tensorrt_.timing_cache", raising=False)
    module = importlib.import_module("backends.tensorrt_.timing_cache")
    yield module
    del sys.modules["backends.tensorrt_.timing_cache"]


def test_builders_at_the_same_time_keep_each_others_timings(timing_cache: Any, tmp_path: Path) -> None:
    path = timing_cache.timing_cache_path(tmp_path, H200)
    assert path.name == "NVIDIA-H200-driver-580.1-tensorrt-8.6.0.bin"
    one, two = Config(), Config()
    for config, layer in ((one, b"first"), (two, b"second")):
        timing_cache.load_timings(config, path)
        assert config.timings.tactics == {}
        config.timings.tactics[layer] = b"1"
    timing_cache.save_timings(one, path)
    timing_cache.save_timings(two, path)
    third = Config()
    timing_cache.load_timings(third, path)
    assert third.timings.tactics == {b"first": b"1", b"second": b"1"}


def test_timings_of_a_build_replace_those_that_were_there(timing_cache: Any, tmp_path: Path) -> None:
    path = timing_cache.timing_cache_path(tmp_path, H200)
    path.parent.mkdir()
    path.write_bytes(b"layer:bad kept:1")
    config = Config()
    timing_cache.load_timings(config, path)
    config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    config.timings.tactics[b"layer"] = b"good"
    timing_cache.save_timings(config, path)
    assert path.read_bytes() == b"kept:1 layer:good"


@pytest.mark.parametrize("content", [b"bad content", b"other GPU"])
def test_timings_that_cannot_be_read_are_begun_anew_with_a_line(
    content: bytes, timing_cache: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = timing_cache.timing_cache_path(tmp_path, H200)
    path.parent.mkdir()
    path.write_bytes(content)
    config = Config()
    timing_cache.load_timings(config, path)
    assert [r.getMessage() for r in caplog.records] == [
        f"timing cache {path.name} cannot be read by this release; starting a new one"
    ]
    config.timings.tactics[b"layer"] = b"1"
    timing_cache.save_timings(config, path)
    assert path.read_bytes() == b"layer:1"
