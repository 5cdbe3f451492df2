"""Optimization profiles: planning, choice, and their names in cache keys."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends.base import Artifact, BuildSpec, Device, Shape, Source, Unsupported
from backends.cache import ArtifactCache
from backends.options import Layout, Profiles
from backends.profiles import Profile, choose_profile, plan_profiles
from backends.tensorrt_.onnx_backend import TensorRT
from backends.tensorrt_.plugin_backend import TensorRTPlugin
from backends.tensorrt_.runtime.tensorrt_options import PluginOptions, TensorRTOptions
from backends.tensorrt_.tensorrt_backend import TensorRTBackend

SHAPES = (Shape(1, 128), Shape(8, 384), Shape(8, 128))
OPTIONS = TensorRTOptions(min=[1, 16], opt=[8, 384], max=[8, 384])


@pytest.mark.parametrize(
    ("options", "profiles"),
    [
        ({"profiles": Profiles.per_shape}, ["1x128", "8x128", "8x384"]),
        ({"profiles": Profiles.dynamic}, ["1x16..8x384"]),
        ({"profiles": Profiles.buckets}, ["1x16..1x128", "2x16..8x128", "1x129..1x384", "2x129..8x384"]),
        ({"profiles": Profiles.dynamic, "min": [1, 128], "max": [16, 512]}, ["1x128..16x512"]),
    ],
)
def test_profiles_are_planned_from_the_shapes(options: dict[str, Any], profiles: list[str]) -> None:
    planned = plan_profiles(SHAPES, replace(OPTIONS, **options))
    assert [str(profile) for profile in planned] == profiles
    assert all(planned[choose_profile(planned, shape)].contains(shape) for shape in SHAPES)


def test_a_range_without_a_requested_shape_is_refused() -> None:
    ranges = [[1, 128, 8, 384], [9, 16, 16, 384]]
    with pytest.raises(Unsupported, match=r"9x16\.\.16x384 of trt\.ranges contains none of the requested shapes"):
        plan_profiles(SHAPES, replace(OPTIONS, profiles=Profiles.ranges, ranges=ranges))
    assert len(plan_profiles(SHAPES, replace(OPTIONS, profiles=Profiles.ranges, ranges=ranges[:1]))) == 1


def test_buckets_tile_the_range_without_overlap() -> None:
    planned = plan_profiles(SHAPES, replace(OPTIONS, profiles=Profiles.buckets))
    for batch in range(1, 9):
        for sequence in range(16, 385):
            assert sum(profile.contains(Shape(batch, sequence)) for profile in planned) == 1


def test_the_narrowest_profile_is_chosen() -> None:
    wide, narrow = Profile(Shape(1, 16), Shape(8, 64), Shape(8, 64)), Profile(*[Shape(4, 32)] * 3)
    assert choose_profile([wide, narrow], Shape(4, 32)) == 1
    assert choose_profile([wide, narrow], Shape(4, 33)) == 0


WIDE = {
    "low": {"batch": 1, "sequence": 16},
    "best": {"batch": 8, "sequence": 384},
    "high": {"batch": 8, "sequence": 512},
}


def test_a_profile_is_read_from_its_json() -> None:
    profile = Profile(Shape(1, 16), Shape(8, 384), Shape(8, 512))
    assert profile.to_json() == WIDE
    assert Profile.from_json(WIDE) == profile


BUILDER = (
    "workspace_mb", "optimization_level", "aux_streams", "tactic_sources", "types", "hardware_compatible",
    "version_compatible", "refit", "verbosity", "plugin_libraries", "keep_fp32",
)  # fmt: skip
PLUGINS = (*BUILDER, "products", "gelu", "attention", "norms", "interleaved", "layout")
RANGE = {"min": [1, 16], "opt": [8, 384], "max": [8, 512], "profiles": Profiles.dynamic}


@pytest.mark.parametrize(
    ("backend", "options", "names", "keys"),
    [
        (TensorRT(), TensorRTOptions(**RANGE), BUILDER, {"onnx": "1", "calibration": "", "method": ""}),
        (
            TensorRTPlugin(),
            PluginOptions(**RANGE, layout=Layout.fixed),
            PLUGINS,
            {"arrays": "2", "ranges": "", "left": [], "marked": [], "form": 5, "epsilon": 1e-12},
        ),
    ],
    ids=["trt", "trt_plugin"],
)
def test_the_cache_key_of_a_plan_keeps_its_names(
    backend: TensorRTBackend,
    options: TensorRTOptions,
    names: tuple[str, ...],
    keys: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A key with other names would build every cached plan again."""
    requested: list[Any] = []
    monkeypatch.setattr(ArtifactCache, "get", lambda cache, *arguments: requested.append(arguments))
    device = Device("cuda", 0, "NVIDIA H200", "GPU-0", (9, 0), driver="580.1")
    spec = BuildSpec("fp16", device, SHAPES, True, tmp_path, options)
    arrays = Artifact(tmp_path, "2", notes={"epsilon": 1e-12})
    backend.build(spec, Source(tmp_path, "0", onnx=Artifact(tmp_path, "1"), arrays=arrays))
    ((kind, key, filename, _, _),) = requested
    assert (kind, filename) == ("engine", "model.plan")
    assert tuple(key.pop("options")) == names
    assert key == {
        **keys,
        "precision": "fp16",
        "profiles": [WIDE],
        "gpu": ["NVIDIA H200", [9, 0]],
        "driver": "580.1",
    }
