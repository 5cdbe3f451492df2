"""Timings of tactics on disk, with a mock of TensorRT that only has a version."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.base import BuildSpec, Device, Shape
from backends.compute_share import BuildLimit
from backends.tensorrt_.build import timing_cache
from backends.tensorrt_.runtime.tensorrt_options import TensorRTOptions

H200 = Device("cuda", 0, "NVIDIA H200", "GPU-0", (9, 0), driver="580.1")


def spec(cache: Path, limit: BuildLimit | None = None) -> BuildSpec:
    return BuildSpec("fp16", H200, (Shape(1, 16),), True, cache, TensorRTOptions(), build_limit=limit)


class Timings:
    """Mock of TensorRT's timing cache, with the content "layer:tactic ...".

    `combine` keeps existing entries, and refuses content of another GPU, which starts with "other".
    """

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
    """Mock of a builder's configuration, which cannot read content that starts with "bad" or "unread". It returns None
    for the former, and an empty cache for the latter."""

    def __init__(self) -> None:
        self.timings = Timings(b"")

    def create_timing_cache(self, content: bytes) -> Timings | None:
        if content.startswith(b"unread"):
            return Timings(b"")
        return None if content.startswith(b"bad") else Timings(content)

    def set_timing_cache(self, timings: Timings, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.timings = timings
        return not timings.mismatches

    def get_timing_cache(self) -> Timings:
        return self.timings


def test_concurrent_builders_keep_the_timings_of_each_other(tmp_path: Path) -> None:
    path = timing_cache.timing_cache_path(spec(tmp_path), "8.6.0")
    assert path.name == "NVIDIA-H200-driver-580.1-tensorrt-8.6.0.bin"
    first, second = Config(), Config()
    for config, layer in ((first, b"first"), (second, b"second")):
        timing_cache.load_timings(config, path)
        assert config.timings.tactics == {}
        config.timings.tactics[layer] = b"1"
    timing_cache.save_timings(first, path)
    timing_cache.save_timings(second, path)
    third = Config()
    timing_cache.load_timings(third, path)
    assert third.timings.tactics == {b"first": b"1", b"second": b"1"}


def test_each_limit_of_builds_has_its_own_timings(tmp_path: Path) -> None:
    limits = [None, *(BuildLimit(method, share) for method in ("green", "mps") for share in (0.1, 0.125, 1.0))]
    paths = [timing_cache.timing_cache_path(spec(tmp_path, limit), "8.6.0") for limit in limits]
    assert len(set(paths)) == len(limits)
    assert paths[2].name == "NVIDIA-H200-driver-580.1-tensorrt-8.6.0-on-green-12.5-percent.bin"


def test_timings_of_a_build_replace_older_ones(tmp_path: Path) -> None:
    path = timing_cache.timing_cache_path(spec(tmp_path), "8.6.0")
    path.parent.mkdir()
    path.write_bytes(b"layer:bad kept:1")
    config = Config()
    timing_cache.load_timings(config, path)
    config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    config.timings.tactics[b"layer"] = b"good"
    timing_cache.save_timings(config, path)
    assert path.read_bytes() == b"kept:1 layer:good"


@pytest.mark.parametrize("content", [b"bad content", b"unreadable", b"other GPU"])
def test_a_timing_cache_that_is_not_accepted_is_set_aside_with_one_line(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = timing_cache.timing_cache_path(spec(tmp_path), "8.6.0")
    path.parent.mkdir()
    path.write_bytes(content)
    config = Config()
    timing_cache.load_timings(config, path)
    assert config.timings.tactics == {}
    config.timings.tactics[b"layer"] = b"1"
    timing_cache.save_timings(config, path)
    assert path.read_bytes() == b"layer:1"
    rejected = path.with_suffix(".rejected")
    assert rejected.read_bytes() == content
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        f"timing cache {path.name} is damaged, or of another release or GPU; renamed to {rejected.name}, and this "
        "build times all tactics"
    )


@pytest.mark.parametrize("content", [b"bad content", b"unreadable", b"other GPU"])
def test_a_timing_cache_that_another_release_wrote_during_a_build_is_not_mixed(content: bytes, tmp_path: Path) -> None:
    path = timing_cache.timing_cache_path(spec(tmp_path), "8.6.0")
    config = Config()
    assert not timing_cache.load_timings(config, path)
    config.timings.tactics[b"layer"] = b"1"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    timing_cache.save_timings(config, path)
    assert (path.read_bytes(), path.with_suffix(".rejected").read_bytes()) == (b"layer:1", content)
    assert timing_cache.load_timings(Config(), path)


def test_a_timing_cache_that_another_builder_replaced_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = timing_cache.timing_cache_path(spec(tmp_path), "8.6.0")
    path.parent.mkdir()
    path.write_bytes(b"bad content")
    config = Config()
    create = config.create_timing_cache

    def slowly(content: bytes) -> Timings | None:
        path.write_bytes(b"layer:1")  # by another builder, meanwhile
        return create(content)

    monkeypatch.setattr(config, "create_timing_cache", slowly)
    assert not timing_cache.load_timings(config, path)
    assert (path.read_bytes(), path.with_suffix(".rejected").exists()) == (b"layer:1", False)
