"""TensorRT through its BERT plugins: padded sequences (layout=fixed) or packed ones without padding (layout=packed)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.base import Artifact, Backend, BuildSpec, Session, Source, SourceForm, Unsupported
from backends.tensorrt_.engine import cached_engine, last_of
from backends.tensorrt_.installation import BESIDE, DISTRIBUTIONS, available
from backends.tensorrt_.layout import Layout, plugin_layout
from backends.tensorrt_.plugin_choices import check_left, check_sizes, choices_of, floating_nodes
from backends.tensorrt_.profiles import plan_profiles
from backends.weights import pad_heads

if TYPE_CHECKING:
    import tensorrt as trt

    from backends.tensorrt_.log import Log

FORM = 2
"""Of the network that is made: one more with each change of it, so that engines of the form before are not taken."""

HEAD = 64
"""The head size that the fused attention kernels have on every GPU since compute capability 8.0."""


class TensorRTPlugin(Backend):
    distributions = DISTRIBUTIONS
    beside = BESIDE
    marks = True

    def check(self, spec: BuildSpec) -> None:
        can = available()
        options = spec.options
        if spec.precision not in ("fp32", "fp16", "int8"):
            raise Unsupported(f"the BERT plugins compute in fp32, fp16 and int8, not in {spec.precision}")
        if options["layout"] == "packed" and spec.precision == "fp32":
            raise Unsupported("packed attention has no FP32 kernels; use layout=fixed, or precision=fp16")
        if options["products"] == "convolution" and options["layout"] == "fixed":
            raise Unsupported("plugin.products=convolution wants packed tokens; with layout=fixed use matmul")
        if options["products"] == "plugin" and options["layout"] == "packed":
            raise Unsupported("plugin.products=plugin wants layout=fixed; with packed tokens use convolution")
        if options["interleaved"] and not _all_int8(spec):
            raise Unsupported(
                "plugin.interleaved wants precision=int8, layout=packed, convolutions, and neither "
                "plugin.attention=fp16 nor plugin.norms=fp16"
            )
        for name in ("rewrites", "keep_fp32"):
            if options[name]:
                raise Unsupported(f"{name} is for backend=trt, which builds from an ONNX file")
        if options["types"] != "auto":
            raise Unsupported("an engine of plugins takes its types from the precision; leave trt.types at auto")
        if spec.precision == "int8":
            if not can.weak_typing:
                raise Unsupported("INT8 plugins want dynamic ranges, which ended with TensorRT 10; use backend=trt")
            if spec.quantization["scheme"] != "explicit":
                raise Unsupported("INT8 plugins take the ranges that the suite finds; use quantization.scheme=explicit")
        plan_profiles(spec.shapes, options)

    def form(self, spec: BuildSpec) -> SourceForm:
        return SourceForm(arrays=True, ranges=spec.precision == "int8", floating=floating_nodes(spec.options))

    def build(self, spec: BuildSpec, source: Source) -> Artifact:
        assert source.arrays is not None
        ranges = source.ranges.sha256 if source.ranges else ""
        made_from = {
            "arrays": source.arrays.sha256,
            "ranges": ranges,
            "left": _left(source),
            "marked": list(source.marked),
            "form": FORM,
            **({"shift": True} if spec.quantization.get("shift") else {}),
        }
        return cached_engine(spec, made_from, lambda one: lambda: partial(_define, one, source))

    def open(self, spec: BuildSpec, artifact: Artifact) -> Session:
        return last_of(self.opening(spec, artifact))

    def opening(self, spec: BuildSpec, artifact: Artifact) -> Iterator[tuple[str, Session | None]]:
        from backends.tensorrt_.several import opening

        return opening(spec, artifact, layout_of(spec))


def layout_of(spec: BuildSpec) -> Layout:
    longest = max(held.high.sequence for held in plan_profiles(spec.shapes, spec.options))
    return plugin_layout(spec.options["layout"], longest)


def _define(
    spec: BuildSpec,
    source: Source,
    builder: trt.Builder,
    network: trt.INetworkDefinition,
    config: trt.IBuilderConfig,
    log: Log,
) -> tuple[Layout, Mapping[str, Any]]:
    """Fill `network` from the source's weights; see backends.tensorrt_.build.Define."""
    from backends.tensorrt_.plugin_network import PluginNetwork
    from backends.tensorrt_.precision import obey_layers, set_flags

    assert source.arrays is not None
    with np.load(source.arrays.path, allow_pickle=False) as loaded:
        arrays = pad_heads({name: loaded[name] for name in loaded.files}, HEAD)
    heads = int(source.arrays.notes["heads"])
    notes = {"layers": int(source.arrays.notes["layers"]), "heads": heads, "hidden": heads * HEAD}
    hidden, left = len(arrays["0/output_gamma"]), _left(source)
    choices = choices_of(spec, hidden)
    check_sizes(choices, len(arrays["position"]), hidden)
    check_left(choices, left)
    ranges = json.loads(source.ranges.path.read_text()) if source.ranges else {}
    set_flags(spec, config)
    if left:
        obey_layers(config)
    PluginNetwork(network, choices, arrays, notes, ranges, left, source.marked).define()
    return layout_of(spec), {"padded_heads": source.arrays.notes["head_size"] != HEAD, **choices.notes()}


def _left(source: Source) -> list[str]:
    """What INT8 leaves out, see backends/ranges.py."""
    return list(source.ranges.notes["left"]) if source.ranges else []


def _all_int8(spec: BuildSpec) -> bool:
    """Whether every tensor between the embeddings and the output may be INT8."""
    options = spec.options
    packed = options["layout"] == "packed" and options["products"] in ("auto", "convolution")
    parts = {options["attention"], options["norms"]}
    return packed and spec.precision == "int8" and "fp16" not in parts
