"""Backend `trt_plugin` without a GPU: source form, refusals, and plugin fields against TensorRT's registry."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PYTHON_WITH_TENSORRT as PYTHON
from conftest import ROOT
from fake_api import ALL, RTX_ONLY, capabilities, fake_api

from backends.base import Artifact, BuildSpec, Device, Shape, Source, SourceForm, Unsupported
from backends.cache import ArtifactCache
from backends.json_codec import from_json, to_json
from backends.model.heads import Head, Layer
from backends.onnx_.onnx_source import prepare_source
from backends.options import Layout, Profiles, Switch
from backends.profiles import Profile
from backends.quantization_options import QuantizationOptions, Scheme
from backends.tensorrt_.plugin_backend import TensorRTPlugin, engine_key
from backends.tensorrt_.plugins.weights_network import layout_of
from backends.tensorrt_.runtime.tensorrt_options import Constraints, EngineKeys, PluginKeys, PluginOptions
from suites.asking.resolve_lengths import resolve_lengths
from suites.asking.resolve_options import backend_options
from suites.schema.enums import Distribution
from suites.schema.refusals import Refused
from suites.schema.run_schema import run_schema

H200 = Device("cuda", 0, "NVIDIA H200", "GPU-0", (9, 0), driver="580.1")
OPTIONS = {"min": [1, 16], "opt": [8, 128], "max": [8, 128]}
PROFILE = Profile(*[Shape(8, 128)] * 3)
INT8 = QuantizationOptions(samples=8, sequence=24)


def spec(precision: str = "fp16", scheme: str = "explicit", **options: Any) -> BuildSpec:
    typed = from_json(PluginOptions, {**OPTIONS, **options})
    quantization = replace(INT8, scheme=Scheme[scheme])
    return BuildSpec(precision, H200, (Shape(8, 128),), True, Path("cache"), typed, quantization)


def plugin_backend_of(weak: bool) -> TensorRTPlugin:
    """Return the backend for a release with weak typing only, or with all capabilities but it."""
    return TensorRTPlugin(lambda: fake_api({"weak_typing"} if weak else ALL - {"weak_typing"} - RTX_ONLY))


@pytest.mark.parametrize(
    ("weak", "requested", "message"),
    [
        (True, spec("bf16"), "not in bf16"),
        (True, spec("fp32"), "use layout=fixed"),
        (True, spec("int8", layout="fixed", attention="int8", profiles="dynamic"), "needs one sequence length"),
        (True, spec(products="plugin"), "with packed tokens use convolution"),
        (True, spec(products="fully_connected"), "needs TensorRT 8"),
        (True, spec(rewrites=["merged_qkv"]), "rewrites is for backend=trt"),
        (True, spec("int8", scheme="implicit"), "scheme=explicit"),
        (True, spec(interleaved=True), "plugin.interleaved needs precision=int8"),
        (True, spec("int8", interleaved=True, norms="fp16"), "nor plugin.norms=fp16"),
        (True, spec(types="graph"), "leave trt.types at auto"),
        (False, spec("int8"), "TensorRT 10 was the last"),
        (False, spec(constraints="obey"), "leave plugin.constraints at none"),
        (
            True,
            spec(constraints="obey", layout="fixed", products="plugin"),
            "products that TensorRT chooses kernels for",
        ),
        (True, spec("int8", layout="fixed", products="plugin"), "products=plugin multiplies in FP16"),
        (True, spec("int8", products="matmul"), "products=matmul multiplies in FP16"),
        (True, spec("int8", gelu="plugin"), "plugin.gelu=plugin is for FP16 and FP32"),
        (True, spec(gelu="plugin", flat_gelu="on"), "plugin.flat_gelu needs a formula"),
        (True, spec(attention="int8"), "plugin.attention is for precision=int8 only"),
        (True, spec(norms="fp16"), "plugin.norms is for precision=int8 only"),
        (True, spec("int8", layout="fixed", scale_max="on"), "plugin.scale_max is for INT8 attention over packed"),
        (True, spec(profiles="dynamic", max=[4, 128], opt=[4, 128]), "in no optimization profile"),
    ],
)
def test_requests_that_cannot_be_built_are_refused(weak: bool, requested: BuildSpec, message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        plugin_backend_of(weak).check(requested)


def test_the_source_has_weights_and_for_int8_ranges(
    tiny: Callable[[str], tuple[Path, str]], shared_cache: ArtifactCache
) -> None:
    backend, requested = plugin_backend_of(True), spec("int8")
    backend.check(requested)
    assert backend.source_form(spec("fp16")) == SourceForm(arrays=True)
    assert backend.source_form(requested) == SourceForm(arrays=True, ranges=True)
    folder, sha256 = tiny("bert")
    form = backend.source_form(requested)
    source = prepare_source(folder, sha256, form, requested.quantization, ["a line"], 0, shared_cache)
    assert source.onnx is None
    assert source.arrays is not None
    assert source.ranges is not None
    assert "1/gelu" in json.loads(source.ranges.path.read_text())
    assert "1/up_weight" in np.load(source.arrays.path).files
    assert from_json(Source, json.loads(json.dumps(to_json(source)))) == source


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ([[1, 1, 8, 64], [4, 64, 16, 128]], "numbers 1 and 2 overlap: both have 4x64"),
        ([[1, 64, 8, 32]], "is empty"),
        ([[1, 64, 8]], "number 1 is"),
        ([], "need each other; give both"),
    ],
)
def test_profiles_that_overlap_or_are_empty_are_refused(ranges: list[list[int]], message: str) -> None:
    config = run_schema()(backend="trt", profiles=Profiles.ranges, trt=EngineKeys(ranges=ranges))
    with pytest.raises(Refused, match=message):
        backend_options(config)
    config.trt.ranges, config.sequence = [[1, 1, 8, 64], [9, 1, 16, 64]], [64]
    assert backend_options(config).for_cell()["ranges"] == [[1, 1, 8, 64], [9, 1, 16, 64]]


def test_plugin_options_at_their_default_are_not_in_the_cell() -> None:
    config = run_schema()(backend="trt_plugin", plugin=PluginKeys())
    assert not {"scale_max", "constraints"} & backend_options(config).for_cell().keys()
    config.plugin.scale_max, config.plugin.constraints = Switch.off, Constraints.obey
    options = backend_options(config).for_cell()
    assert (options["scale_max"], options["constraints"]) == ("off", "obey")


def test_only_packed_tokens_are_padded_to_a_multiple() -> None:
    config = run_schema()(layout=Layout.packed, pad_to_multiple_of=64)
    for name in ("trt_plugin", "torch_packed"):
        config.backend = name
        assert backend_options(config).for_cell()["pad_to_multiple_of"] == 64
    config.pad_to_multiple_of = 1
    assert "pad_to_multiple_of" not in backend_options(config).for_cell()
    config.pad_to_multiple_of, config.layout, config.backend = 64, Layout.fixed, "trt_plugin"
    with pytest.raises(Refused, match="pad_to_multiple_of=64 is for packed tokens"):
        backend_options(config)
    with pytest.raises(Refused, match="pad_to_multiple_of=0 must be at least 1"):
        run_schema()(pad_to_multiple_of=0)


@pytest.mark.parametrize("layout", ["packed", "fixed"])
def test_batches_can_run_in_passes_in_each_layout(layout: str) -> None:
    """Passes of packed batches save no padding, but each pass uses the attention kernel for its longest sequence."""
    config = run_schema()(backend="trt_plugin", batch=[8], layout=Layout[layout])
    config.lengths.distribution, config.lengths.passes = Distribution.lognormal, 4
    assert resolve_lengths(config).passes == 4


def test_an_engine_of_packed_tokens_is_tuned_for_their_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []

    def record_key(backend: TensorRTPlugin, spec: BuildSpec, made_from: Any, define: Any) -> None:
        keys.append(made_from.get("tokens"))

    monkeypatch.setattr(TensorRTPlugin, "engine", record_key)
    source = Source(tmp_path, "0", arrays=Artifact(tmp_path, "1", notes={"epsilon": 1e-12}))
    backend, tokens = plugin_backend_of(True), {Shape(8, 128): 300}
    for layout, tokens_by_shape in (("packed", tokens), ("packed", {}), ("fixed", tokens)):
        backend.build(replace(spec(layout=layout), tokens=tokens_by_shape), source)
    # One wide profile is tuned for one shape only.
    wide = spec(profiles="dynamic", opt=[4, 128])
    backend.build(replace(wide, tokens=tokens), source)
    backend.build(replace(wide, tokens={**tokens, Shape(4, 128): 150}), source)
    assert keys == [{"8x128": 300}, None, None, None, {"4x128": 150}]
    sizes = layout_of(replace(spec(), tokens={Shape(8, 128): 300}), backend.api.can).sizes(PROFILE)
    assert sizes["input_ids"] == ((8,), (300,), (1024,))
    assert "positions" not in sizes


def test_engines_of_different_outputs_have_different_keys(tmp_path: Path) -> None:
    """Poolings and norms to length 1 have no weights, so the arrays of these engines are the same."""
    mean, cls = Head(("mean",), (Layer("normalize"),)).notes(), Head(("cls",), (Layer("normalize"),)).notes()
    notes: list[dict[str, object]] = [{}, {"head": mean}, {"head": cls}, {"head": Head(("mean",), ()).notes()}]
    sources = [
        Source(tmp_path, "0", arrays=Artifact(tmp_path, "1", notes={"epsilon": 1e-12, **more})) for more in notes
    ]
    keys = [json.dumps(engine_key(spec(), source), sort_keys=True) for source in sources]
    assert len(set(keys)) == len(keys)
    rounded = engine_key(spec(pad_to_multiple_of=8), sources[1])
    assert engine_key(spec(), sources[0]) == {**engine_key(spec(flat_gelu="off"), sources[0]), "flat_gelu": True}
    assert json.dumps(rounded, sort_keys=True) not in keys


def test_without_plugins_positions_are_an_input() -> None:
    can = capabilities({"packed_attention"})
    assert "positions" in layout_of(spec(), can).sizes(PROFILE)
    assert "positions" not in layout_of(spec(layout="fixed"), can).sizes(PROFILE)


CODE = """
import json, tensorrt
tensorrt.init_libnvinfer_plugins(tensorrt.Logger(tensorrt.Logger.ERROR), "")
creators = tensorrt.get_plugin_registry().plugin_creator_list
print(json.dumps({f"{c.name} {c.plugin_version}": [f.name for f in c.field_names] for c in creators}))
"""


@pytest.mark.skipif(not PYTHON, reason="no Python with TensorRT is named")
def test_every_field_is_in_the_registry() -> None:
    """The registry is that of TensorRT 8.6. The fields are those that plugin_network.py sets."""
    completed = subprocess.run([PYTHON, "-c", CODE], capture_output=True, text=True, check=True)
    registry = json.loads(completed.stdout)
    attention, norm = {"type_id", "hidden_size", "num_heads", "has_mask", "dq_probs"}, {"type_id", "beta", "gamma"}
    assert attention <= set(registry["CustomQKVToContextPluginDynamic 1"])
    assert attention | {"var_seqlen", "use_int8_scale_max"} <= set(registry["CustomQKVToContextPluginDynamic 2"])
    assert norm | {"ld"} <= set(registry["CustomSkipLayerNormPluginDynamic 1"])
    assert norm <= set(registry["CustomSkipLayerNormPluginDynamic 2"])
    assert {"hidden_size", "num_heads", "dq_probs", "use_int8_scale_max"} <= set(
        registry["CustomQKVToContextPluginDynamic 3"]
    )
    assert {"beta", "gamma"} <= set(registry["CustomSkipLayerNormPluginDynamic 3"])
    assert {"out_dims", "type_id", "W"} <= set(registry["CustomFCPluginDynamic 1"])
    assert {"mha_type_id", "output_fp16"} <= set(registry["CustomEmbLayerNormPluginDynamic 1"])
    source = (ROOT / "backends" / "tensorrt_" / "plugins" / "plugin_network.py").read_text()
    for name in registry["CustomEmbLayerNormPluginDynamic 2"]:
        assert f'"{name}"' in source
